#include <errno.h>

#include "base/clock.h"
#include "control/ops.h"

bool op_find_vm(struct request *r, uint64_t id, struct arena *a, struct store_vm *ret)
{
	int code = id ? store_vm_get(r->control->store, r->workspace, id, a, ret) : -ENOENT;

	if (code == -ENOENT)
		request_fail(r, CODE_VM_NOT_FOUND, "there is no such VM; `iron list` shows which there are");
	else if (code)
		request_fail_store(r, code, "vm_get");
	return code == 0;
}

/* While something is waited for, status_reason says what. */
void op_vm_row(struct request *r, const struct store_vm *vm)
{
	struct row_vm row = vm->row;
	const char *progress = life_progress(r->control->lives, row.id);

	row.status = str_of(vm_state_status(vm->state));
	row.status_detail = str_of(vm_state_detail(vm->state));
	if (progress[0] && row.status_reason.len == 0)
		row.status_reason = str_of(progress);
	request_row(r, MSG_TYPE_row_vm, &row);
}

static void answer_vm(struct request *r, const struct store_vm *vm)
{
	op_vm_row(r, vm);
	request_done(r, 200);
}

/* --- admission --- */

static bool over_memory(struct request *r, const struct vm_spec *spec, struct error *reterr)
{
	const struct settings *s = &r->control->settings;
	struct store_usage u = {0};

	if (s->memory_budget_mib == 0)
		return false;
	if (store_vm_usage(r->control->store, 0, VM_STATES_HOLDING_MEMORY, &u))
		return error_set(reterr, -EIO, "the use of memory is not known"), true;
	uint64_t used = u.memory_mib + u.vms * SPEC_OVERHEAD_MIB;
	if (used + spec_limit_mib(spec) <= s->memory_budget_mib)
		return false;
	error_set(reterr, -EDQUOT,
	          "memory: this VM needs %llu MiB and %llu of the host's budget of %llu MiB are taken; stop or destroy "
	          "a VM, "
	          "or ask for less memory_mib",
	          (unsigned long long)spec_limit_mib(spec), (unsigned long long)used,
	          (unsigned long long)s->memory_budget_mib);
	return true;
}

bool op_admit_vm(struct request *r, const struct vm_spec *spec)
{
	struct error e = {0};

	if (!over_memory(r, spec, &e))
		return true;
	request_fail(r, e.code == -EDQUOT ? CODE_QUOTA_EXCEEDED : CODE_INTERNAL, "%s", e.text);
	return false;
}

/* --- list, show --- */

void op_vm_list(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_vm_list *q = REQUEST_RECORD(r, msg_vm_list);
	struct store_vms vms;

	if (q->status.len && !vm_states_of_status(q->status)) {
		request_fail(r, CODE_VALIDATION_ERROR, "status must be pending, running, stopped, destroyed or failed");
		return;
	}
	if (q->status_detail.len && !vm_states_of_detail(q->status_detail)) {
		request_fail(r, CODE_VALIDATION_ERROR,
		             "status_detail must be queued, creating, starting, running, ready, stopping, stopped, "
		             "suspended, "
		             "destroying, destroyed or failed");
		return;
	}
	int code = store_vms_list(r->control->store, r->workspace, q, &a, &vms);
	if (code) {
		request_fail_list(r, code, "vms_list");
		return;
	}
	for (size_t i = 0; i < vms.n; i++)
		op_vm_row(r, &vms.v[i]);
	request_done_page(r, vms.page.has_more, vms.page.cursor);
}

/* Nothing that is under way will make it ready any more, or it is. */
static bool is_settled(enum vm_state s)
{
	return s == VM_READY || s == VM_FAILED || s == VM_STOPPED || s == VM_SUSPENDED ||
	       (VM_STATES_GONE & VM_STATE_BIT(s));
}

void op_vm_get(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_object *m = REQUEST_RECORD(r, msg_object);
	struct store_vm vm;

	if (!op_find_vm(r, m->vm, &a, &vm))
		return;
	if (m->wait_ms && !r->expired && !is_settled(vm.state))
		request_wait_vm(r, m->vm, m->wait_ms);
	else
		answer_vm(r, &vm);
}

/* --- delete, start, stop --- */

void op_vm_delete(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_object *m = REQUEST_RECORD(r, msg_object);
	struct store_vm vm;

	if (!op_find_vm(r, m->vm, &a, &vm))
		return;
	if (VM_STATES_GONE & VM_STATE_BIT(vm.state)) {
		request_done(r, 204);
		return;
	}
	if ((VM_STATES_RUNNING & VM_STATE_BIT(vm.state)) && !m->force) {
		request_fail(r, CODE_VM_NOT_STOPPED, "the VM is not stopped; stop it first, or use force");
		return;
	}
	_cleanup_(detail_finish) struct detail d = {0};
	detail_add(&d, "name", vm.row.name);
	detail_add(&d, "status", str_of(vm_state_detail(vm.state)));
	if (!request_on_record(r, EVENT_VM, "delete", m->vm, &d))
		return;
	int code = life_remove(r->control->lives, m->vm);
	if (code)
		request_fail_store(r, code, "vm_delete");
	else
		request_done(r, 204);
}

/* The answer to start and stop: when `state` is reached, or what it came to, or after HOLD_MS. */
static void answer_when(struct request *r, const struct store_vm *vm, enum vm_state state)
{
	if (vm->state != state && vm->state != VM_FAILED && !(VM_STATES_GONE & VM_STATE_BIT(vm->state)) && !r->expired)
		request_wait_vm(r, vm->row.id, HOLD_MS);
	else
		answer_vm(r, vm);
}

/* True: what was asked for is done and stored. */
static bool apply_life(struct request *r, int code, enum api_code refused, const char *message)
{
	if (code == 0) {
		r->applied = true;
		return true;
	}
	request_note_outcome(r, EVENT_VM, op_info_get(r->who.op)->name, r->new_id, "refused");
	if (code == -EALREADY || code == -EINVAL)
		request_fail(r, refused, "%s", message);
	else
		request_fail_store(r, code, "vm");
	return false;
}

static bool start_is_refused(struct request *r, const struct store_vm *vm)
{
	bool holds = VM_STATES_HOLDING_MEMORY & VM_STATE_BIT(vm->state);
	struct vm_spec spec = {vm->row.vcpus, vm->row.memory_mib, vm->row.disk_gib};

	if ((VM_STATES_RUNNING | VM_STATES_PENDING) & VM_STATE_BIT(vm->state)) {
		request_fail(r, CODE_VM_ALREADY_RUNNING, "the VM is %s already", vm_state_detail(vm->state));
		return true;
	}
	if (VM_STATES_GONE & VM_STATE_BIT(vm->state)) {
		request_fail(r, CODE_VM_NOT_FOUND, "the VM is destroyed; create a new one");
		return true;
	}
	return !holds && !op_admit_vm(r, &spec);
}

void op_vm_start(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	uint64_t id = REQUEST_RECORD(r, msg_object)->vm;
	struct store_vm vm;

	if (!op_find_vm(r, id, &a, &vm))
		return;
	bool is_started = (VM_STATES_RUNNING | VM_STATES_PENDING) & VM_STATE_BIT(vm.state);
	if (r->resumed && is_started)
		r->applied = true;
	if (!r->applied) {
		if (start_is_refused(r, &vm) || !request_on_record(r, EVENT_VM, "start", id, NULL))
			return;
		if (!apply_life(r, life_start(r->control->lives, id), CODE_VM_ALREADY_RUNNING,
				"the VM is running or starting already"))
			return;
		if (store_vm_get(r->control->store, r->workspace, id, &a, &vm)) {
			request_fail_store(r, -EIO, "vm_get");
			return;
		}
	}
	answer_when(r, &vm, VM_READY);
}

void op_vm_stop(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	uint64_t id = REQUEST_RECORD(r, msg_vm_stop)->vm;
	struct store_vm vm;

	if (!op_find_vm(r, id, &a, &vm))
		return;
	bool is_stopped = !((VM_STATES_RUNNING | VM_STATES_GONE) & VM_STATE_BIT(vm.state));
	if (r->resumed && is_stopped && !life_start_follows(r->control->lives, id))
		r->applied = true;
	if (!r->applied) {
		if (!(VM_STATES_RUNNING & VM_STATE_BIT(vm.state)) && !life_start_follows(r->control->lives, id)) {
			request_fail(r, CODE_VM_NOT_RUNNING, "the VM is not running, it is %s",
			             vm_state_detail(vm.state));
			return;
		}
		if (!request_on_record(r, EVENT_VM, "stop", id, NULL))
			return;
		if (!apply_life(r, life_stop(r->control->lives, id), CODE_VM_NOT_RUNNING,
		                "the VM is not running any more"))
			return;
		if (store_vm_get(r->control->store, r->workspace, id, &a, &vm)) {
			request_fail_store(r, -EIO, "vm_get");
			return;
		}
	}
	answer_when(r, &vm, VM_STOPPED);
}
