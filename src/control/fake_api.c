/* What the tests ask of iron-control as iron-api does, and what they expect. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/fake.h"

static bool on_answer(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct fake_answer *a = arg;

	if (!m) {
		a->done = true;
		return true;
	}
	if (m->info->type == MSG_TYPE_msg_done) {
		wire_encode(m->info->wire, m->record, &a->end_bytes);
		wire_decode(m->info->wire, buf_str(&a->end_bytes), &a->end);
		a->done = true;
		return true;
	}
	struct fake_row *row = xcalloc(1, sizeof *row);
	row->type = (enum msg_type)m->info->type;
	wire_encode(m->info->wire, m->record, &row->bytes);
	wire_decode(m->info->wire, buf_str(&row->bytes), row->record);
	VEC_PUSH(&a->rows, row);
	return false;
}

void fake_ask(struct fake *f, enum msg_type type, const void *record, struct fake_answer *ret)
{
	*ret = (struct fake_answer){0};
	assert_int_equal(ipc_call(f->api, type, record, NULL, 0, 0, on_answer, ret), 0);
}

unsigned fake_call(struct fake *f, enum msg_type type, const void *record, struct fake_answer *ret)
{
	fake_ask(f, type, record, ret);
	fake_until(f, &ret->done);
	return ret->end.status;
}

void fake_answer_finish(struct fake_answer *a)
{
	for (size_t i = 0; i < a->rows.n; i++) {
		buf_finish(&a->rows.v[i]->bytes);
		free(a->rows.v[i]);
	}
	VEC_FINISH(&a->rows);
	buf_finish(&a->end_bytes);
}

struct str fake_hash(const struct fake *f)
{
	return str_make(f->key_hash, sizeof f->key_hash);
}

uint64_t fake_vm_create(struct fake *f, const char *name, unsigned *ret_status)
{
	struct msg_vm_create m = {.key_hash = fake_hash(f), .op = OP_VM_CREATE, .name = str_of(name), .egress_mode = 2,
				  .egress_inherit = true, .restart = f->restart_always};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	uint64_t id = status == 201 ? ((struct row_vm *)(void *)a.rows.v[0]->record)->id : 0;

	if (ret_status)
		*ret_status = status;
	fake_answer_finish(&a);
	return id;
}

unsigned fake_object(struct fake *f, enum api_op op, uint64_t vm, uint64_t id, bool force)
{
	struct msg_object m = {.key_hash = fake_hash(f), .op = (uint16_t)op, .vm = vm, .id = id, .force = force};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_object, &m, &a);

	fake_answer_finish(&a);
	return status;
}

unsigned fake_stop(struct fake *f, uint64_t vm)
{
	struct msg_vm_stop m = {.key_hash = fake_hash(f), .op = OP_VM_STOP, .vm = vm};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_vm_stop, &m, &a);

	fake_answer_finish(&a);
	return status;
}

unsigned fake_rule_create(struct fake *f, uint64_t vm, const char *name, const char *host, uint64_t *ret_id)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct rec_rule rule = {.name = str_of(name), .host = str_of(host)};
	struct fake_answer a;

	assert_int_equal(wire_encode(&rec_rule_wire, &rule, &b), 0);
	struct msg_rule_create m = {.key_hash = fake_hash(f), .op = vm ? OP_VM_RULE_CREATE : OP_RULE_CREATE, .vm = vm,
				    .rule = buf_str(&b)};
	unsigned status = fake_call(f, MSG_TYPE_msg_rule_create, &m, &a);
	if (status == 201 && ret_id) {
		struct row_rule *row = (void *)a.rows.v[0]->record;
		assert_int_equal(wire_decode(&rec_rule_wire, row->rule, &rule), 0);
		*ret_id = rule.id;
	}
	fake_answer_finish(&a);
	return status;
}

unsigned fake_show(struct fake *f, uint64_t vm, unsigned wait_ms, struct fake_answer *a)
{
	struct msg_object m = {.key_hash = fake_hash(f), .op = OP_VM_GET, .vm = vm, .wait_ms = wait_ms};
	return fake_call(f, MSG_TYPE_msg_object, &m, a);
}

void fake_assert_detail(struct fake *f, uint64_t vm, const char *status, const char *detail)
{
	struct fake_answer a;

	assert_int_equal(fake_show(f, vm, 0, &a), 200);
	const struct row_vm *row = (void *)a.rows.v[0]->record;
	assert_true(str_eq(row->status, str_of(status)));
	assert_true(str_eq(row->status_detail, str_of(detail)));
	fake_answer_finish(&a);
}

void fake_assert_code(const struct fake_answer *a, unsigned status, const char *code)
{
	assert_int_equal(a->end.status, status);
	assert_true(str_eq(a->end.code, str_of(code)));
	assert_true(a->end.message.len > 0);
}
