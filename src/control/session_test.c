/* PATCH of a VM, and its sessions: opened when its machine runs, closed at its end, whoever died meanwhile. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "control/control_internal.h"
#include "control/fake.h"

static int setup(void **state)
{
	*state = fake_create();
	return 0;
}

static int teardown(void **state)
{
	fake_destroy(*state);
	return 0;
}

static unsigned patch(struct fake *f, struct msg_vm_patch m, struct fake_answer *a)
{
	m.key_hash = fake_hash(f);
	m.op = OP_VM_PATCH;
	return fake_call(f, MSG_TYPE_msg_vm_patch, &m, a);
}

static void test_patch(void **state)
{
	_cleanup_(buf_finish) struct buf labels = {0};
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL), other = fake_vm_create(f, "other", NULL);
	unsigned events = f->durable_events;

	assert_int_equal(patch(f, (struct msg_vm_patch){.vm = vm}, &a), 200);
	assert_int_equal(f->durable_events, events); /* nothing changed, nothing on record */
	fake_answer_finish(&a);
	wire_list_add_z(&labels, "team=red");
	struct msg_vm_patch m = {.vm = vm, .name = STR("renamed"), .labels_given = true, .labels = buf_str(&labels), .restart = 2};
	assert_int_equal(patch(f, m, &a), 200);
	const struct row_vm *row = (void *)a.rows.v[0]->record;
	assert_true(str_eq(row->name, STR("renamed")));
	assert_int_equal(row->restart, VM_RESTART_ALWAYS);
	assert_true(str_eq(row->labels, buf_str(&labels)));
	assert_true(str_eq(row->status_detail, STR("ready")));
	fake_answer_finish(&a);
	assert_string_equal(f->last_event, "vm update accepted");
	fake_stop_control(f);
	fake_start_control(f);
	assert_int_equal(patch(f, (struct msg_vm_patch){.vm = vm, .name = STR("renamed")}, &a), 200); /* its own */
	assert_int_equal(((struct row_vm *)(void *)a.rows.v[0]->record)->restart, VM_RESTART_ALWAYS);
	fake_answer_finish(&a);
	patch(f, (struct msg_vm_patch){.vm = other, .name = STR("renamed")}, &a);
	fake_assert_code(&a, 409, "vm_name_taken");
	fake_answer_finish(&a);
	patch(f, (struct msg_vm_patch){.vm = vm, .name = STR("-")}, &a);
	fake_assert_code(&a, 422, "validation_error");
	fake_answer_finish(&a);
	assert_true(fake_vm_create(f, "demo", NULL) != 0); /* its old name is free */
	assert_int_equal(patch(f, (struct msg_vm_patch){.vm = vm, .labels_given = true}, &a), 200);
	assert_int_equal(((struct row_vm *)(void *)a.rows.v[0]->record)->labels.len, 0);
	fake_answer_finish(&a);
	patch(f, (struct msg_vm_patch){.vm = 4711, .name = STR("x")}, &a);
	fake_assert_code(&a, 404, "vm_not_found");
	fake_answer_finish(&a);
	fake_object(f, OP_VM_DELETE, vm, 0, true);
	fake_until_state(f, vm, VM_DESTROYED);
	patch(f, (struct msg_vm_patch){.vm = vm}, &a);
	fake_assert_code(&a, 404, "vm_not_found");
	fake_answer_finish(&a);
}

/* What its steps store while a PATCH waits for the journal is not undone by it. */
static void test_a_patch_while_it_starts(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;

	f->commit.hold = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	f->journal.hold = true;
	struct msg_vm_patch m = {.key_hash = fake_hash(f), .op = OP_VM_PATCH, .vm = vm, .name = STR("renamed")};
	fake_ask(f, MSG_TYPE_msg_vm_patch, &m, &a);
	fake_turn(f);
	f->commit.hold = false;
	fake_release(f);
	fake_until_state(f, vm, VM_READY);
	assert_false(a.done);
	f->journal.hold = false;
	fake_journal_release(f);
	fake_until(f, &a.done);
	assert_int_equal(a.end.status, 200);
	fake_answer_finish(&a);
	fake_assert_detail(f, vm, "running", "ready");
}

static unsigned sessions(struct fake *f, uint64_t vm, struct str cursor, uint32_t limit, struct fake_answer *a)
{
	struct msg_vm_page m = {.key_hash = fake_hash(f), .op = OP_VM_SESSIONS, .vm = vm, .cursor = cursor, .limit = limit};
	return fake_call(f, MSG_TYPE_msg_vm_page, &m, a);
}

static const struct row_session *session_at(const struct fake_answer *a, size_t i)
{
	assert_true(i < a->rows.n);
	return (void *)a->rows.v[i]->record;
}

static void assert_ended(struct fake *f, uint64_t vm, size_t n, const char *reason)
{
	struct fake_answer a;

	assert_int_equal(sessions(f, vm, STR_NONE, 0, &a), 200);
	assert_int_equal(a.rows.n, n);
	const struct row_session *s = session_at(&a, 0);
	assert_true(s->ended_at >= s->started_at && s->started_at > 0);
	assert_int_equal(s->duration_ms, s->ended_at - s->started_at);
	if (!str_eq(s->end_reason, str_of(reason)))
		fail_msg("it ended because \"%.*s\", not \"%s\"", STR_ARG(s->end_reason), reason);
	for (size_t i = 1; i < n; i++)
		assert_true(session_at(&a, i)->ended_at > 0 && session_at(&a, i)->generation < session_at(&a, i - 1)->generation);
	fake_answer_finish(&a);
}

static void test_sessions(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	assert_int_equal(sessions(f, vm, STR_NONE, 0, &a), 200);
	assert_int_equal(a.rows.n, 1);
	assert_int_equal(session_at(&a, 0)->ended_at, 0);
	assert_int_equal(session_at(&a, 0)->generation, fake_vm_get(f, vm)->generation);
	fake_answer_finish(&a);
	fake_stop(f, vm);
	assert_ended(f, vm, 1, "stopped");
	fake_object(f, OP_VM_START, vm, 0, false);
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_FAILED);
	assert_ended(f, vm, 2, "killed by signal 9");
	f->guest_fails = true;
	fake_object(f, OP_VM_START, vm, 0, false);
	fake_until_state(f, vm, VM_FAILED);
	fake_turn(f);
	assert_ended(f, vm, 3, "the start failed");
	f->guest_fails = false;
	f->start.code = -EIO; /* it never ran */
	fake_object(f, OP_VM_START, vm, 0, false);
	fake_turn(f);
	assert_ended(f, vm, 3, "the start failed");
	f->start.code = 0;
	fake_object(f, OP_VM_START, vm, 0, false);
	fake_until_state(f, vm, VM_READY);
	fake_object(f, OP_VM_DELETE, vm, 0, true);
	fake_until_state(f, vm, VM_DESTROYED);
	assert_ended(f, vm, 4, "destroyed"); /* readable still */
	sessions(f, 4711, STR_NONE, 0, &a);
	fake_assert_code(&a, 404, "vm_not_found");
	fake_answer_finish(&a);
}

static void test_sessions_over_restarts(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_stop_control(f);
	fake_start_control(f);
	assert_int_equal(sessions(f, vm, STR_NONE, 0, &a), 200);
	assert_int_equal(a.rows.n, 1);
	assert_int_equal(session_at(&a, 0)->ended_at, 0); /* the same, and it goes on */
	fake_answer_finish(&a);
	fake_stop_control(f);
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_start_control(f);
	assert_ended(f, vm, 1, "as ordered"); /* as irond tells */
	fake_object(f, OP_VM_START, vm, 0, false);
	fake_until_state(f, vm, VM_READY);
	fake_stop_control(f);
	fake_reboot(f);
	fake_start_control(f);
	assert_ended(f, vm, 2, "irond or the host was restarted: its end was not seen");
}

static void stats(struct fake *f, uint64_t vm, struct row_stats *ret)
{
	struct msg_object m = {.key_hash = fake_hash(f), .op = OP_VM_STATS, .vm = vm};
	struct fake_answer a;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_object, &m, &a), 200);
	assert_int_equal(a.rows.n, 1);
	*ret = *(struct row_stats *)(void *)a.rows.v[0]->record;
	fake_answer_finish(&a);
}

static struct row_session last_session(struct fake *f, uint64_t vm)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct row_session s;

	assert_int_equal(store_session_last(f->store, vm, &a, &s), 0);
	s.end_reason = STR_NONE;
	return s;
}

static void test_what_it_used(void **state)
{
	struct fake *f = *state;
	struct row_stats s;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_vm_get(f, vm)->used = (struct rec_vm_usage){.cpu_us = 5000, .disk_bytes = 70, .net_sent_bytes = 9};
	stats(f, vm, &s);
	assert_true(s.running && s.cpu_time_ms == 5 && s.disk_bytes == 70 && s.network_sent_bytes == 9);
	assert_int_equal(s.generation, fake_vm_get(f, vm)->generation);
	fake_wait_ms(f, 5);
	stats(f, vm, &s);
	assert_true(s.uptime_ms > 0);
	fake_vm_get(f, vm)->used.cpu_us = 8000;
	fake_stop(f, vm);
	assert_int_equal(last_session(f, vm).cpu_time_ms, 8);
	stats(f, vm, &s);
	assert_false(s.running);
	assert_true(s.cpu_time_ms == 8 && s.network_sent_bytes == 9 && s.uptime_ms == 0 && s.disk_bytes == 70);
	fake_object(f, OP_VM_DELETE, vm, 0, false);
	fake_until_state(f, vm, VM_DESTROYED);
	stats(f, vm, &s);
	assert_true(!s.running && s.cpu_time_ms == 8 && s.disk_bytes == 0);
}

/* The minute's sample is what a power cut leaves. */
static void test_a_power_cut_keeps_the_last_sample(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_vm_get(f, vm)->used = (struct rec_vm_usage){.cpu_us = 5000};
	event_active(f->control->sample, 0, 0);
	fake_turn(f);
	assert_int_equal(last_session(f, vm).cpu_time_ms, 5);
	fake_vm_get(f, vm)->used.cpu_us = 9000;
	int64_t sampled = real_ms();
	fake_wait_ms(f, 30);
	fake_stop_control(f);
	fake_reboot(f);
	fake_start_control(f);
	struct row_session s = last_session(f, vm);
	assert_int_equal(s.cpu_time_ms, 5);
	assert_true(s.ended_at >= s.started_at && s.ended_at <= sampled);
}

static void test_sessions_are_paged(void **state)
{
	struct fake *f = *state;
	struct fake_answer a, b;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	for (int i = 0; i < 3; i++) {
		fake_stop(f, vm);
		fake_object(f, OP_VM_START, vm, 0, false);
	}
	assert_int_equal(sessions(f, vm, STR_NONE, 3, &a), 200);
	assert_int_equal(a.rows.n, 3);
	assert_true(a.end.has_more);
	assert_int_equal(sessions(f, vm, a.end.cursor, 3, &b), 200);
	assert_int_equal(b.rows.n, 1);
	assert_false(b.end.has_more);
	assert_true(session_at(&b, 0)->generation < session_at(&a, 2)->generation);
	fake_answer_finish(&b);
	sessions(f, vm, STR("00"), 3, &b);
	fake_assert_code(&b, 422, "validation_error");
	fake_answer_finish(&b);
	fake_answer_finish(&a);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_patch),
		T(test_a_patch_while_it_starts),
		T(test_sessions),
		T(test_sessions_over_restarts),
		T(test_what_it_used),
		T(test_a_power_cut_keeps_the_last_sample),
		T(test_sessions_are_paged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
