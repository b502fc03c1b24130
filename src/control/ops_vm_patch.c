/* PATCH of a VM: its name, labels and restart. */
#include <errno.h>

#include "base/clock.h"
#include "control/ops.h"
#include "model/name.h"

static bool is_taken(struct request *r, const struct store_vm *vm, struct str name)
{
	return name.len && !str_eq(name, vm->row.name) && !op_name_is_free(r, name);
}

static int check(const struct msg_vm_patch *m, struct error *reterr)
{
	int r = m->name.len ? vm_name_check("name", m->name, reterr) : 0;

	return r ? r : op_check_labels(m->labels, reterr);
}

static bool on_record(struct request *r, const struct msg_vm_patch *m, const struct store_vm *vm)
{
	_cleanup_(detail_finish) struct detail d = {0};

	if (m->name.len) {
		detail_add(&d, "name", m->name);
		detail_add(&d, "old_name", vm->row.name);
	}
	if (m->labels_given)
		detail_add_list(&d, "labels", m->labels);
	if (m->restart)
		detail_add(&d, "restart", m->restart == 1 + VM_RESTART_ALWAYS ? STR("always") : STR("never"));
	return request_on_record(r, EVENT_VM, "update", m->vm, &d);
}

/* The row is read within the transaction: what its life changed while the record was written stays. */
static int apply(struct request *r, const struct msg_vm_patch *m)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	_cleanup_(arena_finish) struct arena a = {0};
	struct store *s = r->control->store;
	struct store_vm vm;

	int code = store_begin(s, STORE_FULL, &tx);
	if (code == 0)
		code = store_vm_get(s, r->workspace, m->vm, &a, &vm);
	if (code)
		return code;
	if (m->name.len)
		vm.row.name = m->name;
	if (m->restart)
		vm.row.restart = (uint8_t)(m->restart - 1);
	vm.row.updated_at = real_ms();
	code = store_vm_update(s, &vm);
	if (code == 0 && m->labels_given)
		code = store_vm_set_labels(s, m->vm, m->labels);
	return code ? code : store_commit(&tx);
}

static void answer(struct request *r, uint64_t id)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm vm;

	if (!op_find_vm(r, id, &a, &vm))
		return;
	op_vm_row(r, &vm);
	request_done(r, 200);
}

void op_vm_patch(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_vm_patch *m = REQUEST_RECORD(r, msg_vm_patch);
	struct store_vm vm;
	struct error e = {0};

	if (!op_find_vm(r, m->vm, &a, &vm))
		return;
	if (VM_STATES_GONE & VM_STATE_BIT(vm.state)) {
		request_fail(r, CODE_VM_NOT_FOUND, "the VM is destroyed; create a new one");
		return;
	}
	if (!m->name.len && !m->labels_given && !m->restart) {
		answer(r, m->vm);
		return;
	}
	if (check(m, &e)) {
		request_fail(r, CODE_VALIDATION_ERROR, "%s", e.text);
		return;
	}
	if (is_taken(r, &vm, m->name) || !on_record(r, m, &vm))
		return;
	int code = apply(r, m);
	if (code == -EEXIST) {
		request_fail(r, CODE_VM_NAME_TAKEN, "a VM named %.*s exists; destroy it or choose another name",
			     STR_ARG(m->name));
	} else if (code) {
		request_fail_store(r, code, "vm_update");
	} else {
		life_restart_changed(r->control->lives, m->vm);
		answer(r, m->vm);
	}
}
