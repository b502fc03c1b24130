/* The lives of VMs, as the API shows them, with peers that fail, die, lie still or repeat themselves. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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

/* --- VMs --- */

static void test_create_runs_to_ready(void **state)
{
	struct fake *f = *state;
	unsigned status;
	uint64_t vm = fake_vm_create(f, "demo", &status);

	assert_int_equal(status, 201);
	fake_assert_detail(f, vm, "running", "ready"); /* within the hold */
	assert_int_equal(f->prepares, 1);
	assert_int_equal(f->starts, 1);
	assert_int_equal(f->contracts, 1);
	assert_int_equal(fake_worker_get(f)->commits, 1); /* before the contract */
	assert_int_equal(f->durable_events, 2);		  /* the key, the VM */
}

static void test_the_policy_is_committed_before_the_contract(void **state)
{
	struct fake *f = *state;

	f->commit.hold = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	assert_int_equal(f->contracts, 0);
	fake_assert_detail(f, vm, "pending", "starting");
	f->commit.hold = false;
	fake_release(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->contracts, 1);
}

static void test_create_is_checked(void **state)
{
	static const struct {
		struct msg_vm_create m;
		unsigned status;
		const char *code, *says;
	} cases[] = {
		{{.name = STR("A")}, 422, "validation_error", "name"},
		{{.name = STR("a"), .memory_mib = 255}, 422, "validation_error", "memory_mib"},
		{{.name = STR("a"), .disk_gib = 3}, 422, "validation_error", "disk_gib"},
		{{.name = STR("a"), .public_key = STR("ssh-rsa x")}, 422, "validation_error", "public_key"},
		{{.name = STR("a"), .image = STR("none")}, 404, "image_not_found", "none"},
		{{.name = STR("a"), .memory_mib = 8000}, 429, "quota_exceeded", "memory"},
	};
	struct fake *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct msg_vm_create m = cases[i].m;
		struct fake_answer a;
		m.key_hash = fake_hash(f);
		m.op = OP_VM_CREATE;
		m.egress_mode = 2;
		m.egress_inherit = true;
		fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
		fake_assert_code(&a, cases[i].status, cases[i].code);
		assert_true(memmem(a.end.message.p, a.end.message.len, cases[i].says, strlen(cases[i].says)) != NULL);
		fake_answer_finish(&a);
	}
	assert_int_equal(f->prepares, 0);
	assert_int_equal(f->durable_events, 1); /* the key's */
}

static void test_names_are_taken_and_free_again(void **state)
{
	struct fake *f = *state;
	unsigned status;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	assert_int_equal(fake_vm_create(f, "demo", &status), 0);
	assert_int_equal(status, 409);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 409);
	f->kill.hold = true;
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	f->kill.hold = false;
	uint64_t next = fake_vm_create(f, "demo", &status); /* while the first is being destroyed */
	assert_int_equal(status, 201);
	fake_release(f);
	fake_until_state(f, vm, VM_DESTROYED);
	fake_until_state(f, next, VM_READY);
	assert_false(fake_vm_get(f, vm)->prepared);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 404);
}

static void test_stop_and_start(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 409);
	assert_int_equal(fake_stop(f, vm), 200);
	fake_assert_detail(f, vm, "stopped", "stopped");
	assert_int_equal(f->shutdowns, 1);
	assert_int_equal(fake_stop(f, vm), 409);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_assert_detail(f, vm, "running", "ready");
	assert_int_equal(f->starts, 2);
	assert_int_equal(f->removes, 0); /* the disk stayed */
	assert_int_equal(fake_stop(f, vm), 200);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	fake_until_state(f, vm, VM_DESTROYED);
}

static void test_start_follows_the_stop(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->shutdown.hold = true;
	assert_int_equal(fake_stop(f, vm), 200); /* held for a second, then it is stopping */
	fake_assert_detail(f, vm, "stopped", "stopping");
	f->shutdown.hold = false;
	struct fake_answer a;
	fake_ask(f, MSG_TYPE_msg_object,
		 &(struct msg_object){.key_hash = fake_hash(f), .op = OP_VM_START, .vm = vm}, &a);
	fake_turn(f);
	fake_exit(f, vm, 0, "powered off");
	fake_until(f, &a.done);
	assert_int_equal(a.end.status, 200);
	fake_answer_finish(&a);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->starts, 2);
}

static void test_delete_while_stopping(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->shutdown.hold = true;
	assert_int_equal(fake_stop(f, vm), 200);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	fake_until_state(f, vm, VM_DESTROYED);
}

static void test_delete_undoes_a_creation_that_is_under_way(void **state)
{
	struct fake *f = *state;

	f->start.hold = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_assert_detail(f, vm, "pending", "starting");
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	fake_turn(f);
	assert_int_equal(f->kills, 0); /* never past a request of the same VM */
	f->start.hold = false;
	fake_release(f);
	fake_until_state(f, vm, VM_DESTROYED);
	assert_int_equal(f->kills, 1);
	assert_int_equal(f->removes, 1);
	assert_int_equal(f->contracts, 0);
}

static void test_a_start_that_fails_at_each_step_ends_in_failed(void **state)
{
	struct fake *f = *state;
	struct fault *faults[] = {&f->prepare, &f->start};
	static const char *const says[] = {"prepare", "start"};

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		char name[16];
		struct fake_answer a;
		snprintf(name, sizeof name, "vm%zu", i);
		faults[i]->code = -EIO;
		uint64_t vm = fake_vm_create(f, name, NULL);
		faults[i]->code = 0;
		fake_show(f, vm, 0, &a);
		const struct row_vm *row = (void *)a.rows.v[0]->record;
		assert_true(str_eq(row->status, STR("failed")));
		assert_true(str_has_prefix(row->status_reason, str_of(says[i])));
		assert_true(str_has_suffix(row->status_reason, STR("as ordered")));
		fake_answer_finish(&a);
		fake_turn(f);
		assert_false(fake_vm_get(f, vm)->prepared); /* undone */
		assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
		fake_until_state(f, vm, VM_READY);
		assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
	}
}

static void test_a_guest_that_fails_its_contract(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;

	f->guest_fails = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_until_state(f, vm, VM_FAILED);
	fake_show(f, vm, 0, &a);
	assert_true(
	        str_eq(((struct row_vm *)(void *)a.rows.v[0]->record)->status_reason, STR("clock: it stands still")));
	fake_answer_finish(&a);
	fake_turn(f);
	assert_false(fake_vm_get(f, vm)->running);
}

static void test_a_guest_that_says_nothing(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;

	f->silent_guest = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_assert_detail(f, vm, "pending", "starting");
	fake_report(f, vm, VM_REPORT_BOOTING, "kernel", "");
	fake_turn(f);
	fake_show(f, vm, 0, &a); /* says what it waits for */
	assert_true(str_has_suffix(((struct row_vm *)(void *)a.rows.v[0]->record)->status_reason, STR("kernel")));
	fake_answer_finish(&a);
	fake_until_state(f, vm, VM_FAILED);
	fake_show(f, vm, 0, &a);
	assert_true(str_has_prefix(((struct row_vm *)(void *)a.rows.v[0]->record)->status_reason, STR("boot: ")));
	fake_answer_finish(&a);
}

static void test_ends_that_nobody_asked_for(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_FAILED);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_until_state(f, vm, VM_READY);
	fake_report(f, vm, VM_REPORT_OFF, "", "");
	fake_turn(f);
	fake_exit(f, vm, 0, "powered off");
	fake_until_state(f, vm, VM_STOPPED);
	/* of an earlier life: no news */
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_until_state(f, vm, VM_READY);
	ipc_notify(f->irond, MSG_TYPE_msg_vm_exited,
	           &(struct msg_vm_exited){.vm = vm, .generation = fake_vm_get(f, vm)->generation - 1, .status = 9},
	           NULL, 0);
	fake_turn(f);
	fake_assert_detail(f, vm, "running", "ready");
}

static void test_a_guest_that_reboots(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->silent_guest = true;
	fake_report(f, vm, VM_REPORT_LOST, "", "the guest rebooted");
	fake_until_state(f, vm, VM_RUNNING);
	fake_turn(f);
	assert_int_equal(f->contracts, 2); /* runs again */
	fake_report(f, vm, VM_REPORT_READY, "", "");
	fake_until_state(f, vm, VM_READY);
}

static void test_wait(void **state)
{
	struct fake *f = *state;
	struct fake_answer a, b;

	f->silent_guest = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	assert_int_equal(fake_show(f, vm, 100, &a), 200); /* the time is over */
	assert_true(str_eq(((struct row_vm *)(void *)a.rows.v[0]->record)->status, STR("pending")));
	fake_answer_finish(&a);
	fake_ask(f, MSG_TYPE_msg_object,
		 &(struct msg_object){.key_hash = fake_hash(f), .op = OP_VM_GET, .vm = vm, .wait_ms = 25000}, &b);
	fake_turn(f);
	assert_false(b.done);
	fake_report(f, vm, VM_REPORT_READY, "", "");
	fake_until(f, &b.done);
	assert_true(str_eq(((struct row_vm *)(void *)b.rows.v[0]->record)->status_detail, STR("ready")));
	fake_answer_finish(&b);
}

static void test_limits(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	unsigned status;

	for (int i = 0; i < 3; i++) {
		char name[16];
		snprintf(name, sizeof name, "vm%d", i);
		assert_true(fake_vm_create(f, name, NULL));
	}
	struct msg_vm_create m = {.key_hash = fake_hash(f), .op = OP_VM_CREATE, .name = STR("x"), .egress_mode = 2,
				  .egress_inherit = true};
	fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	fake_assert_code(&a, 429, "quota_exceeded");
	assert_true(a.end.retry_after_s > 0);
	fake_answer_finish(&a);
	m.memory_mib = 512;
	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_create, &m, &a), 201);
	fake_answer_finish(&a);
	m.name = STR("y");
	fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	fake_assert_code(&a, 429, "quota_exceeded");
	assert_non_null(memmem(a.end.message.p, a.end.message.len, "max_vms_per_workspace", 21));
	fake_answer_finish(&a);
	f->disk_mib = 100;
	fake_stop_control(f);
	fake_start_control(f);
	fake_turn(f);
	assert_int_equal(fake_object(f, OP_VM_DELETE, fake_vm_create(f, "x", &status), 0, true), 404);
	assert_int_equal(status, 409);
	m.name = STR("z");
	uint64_t first = 0;
	struct map_slot *slot;
	size_t i = 0;
	while (map_next(&f->vms, &i, &slot))
		first = slot->key;
	assert_int_equal(fake_object(f, OP_VM_DELETE, first, 0, true), 204);
	fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	fake_assert_code(&a, 507, "no_room");
	fake_answer_finish(&a);
}

/* --- peers that repeat themselves, or come and go --- */

static void test_everything_is_said_twice(void **state)
{
	struct fake *f = *state;

	f->twice = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_assert_detail(f, vm, "running", "ready");
	assert_int_equal(fake_stop(f, vm), 200);
	fake_turn(f);
	fake_assert_detail(f, vm, "stopped", "stopped");
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_turn(f);
	fake_assert_detail(f, vm, "running", "ready");
	assert_int_equal(f->starts, 2);
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_FAILED);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	fake_until_state(f, vm, VM_DESTROYED);
	fake_turn(f);
	assert_int_equal(f->removes, 1);
}

static void test_news_of_what_is_gone(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	struct msg_vm_exited m = {.vm = vm, .generation = 1, .status = 9, .reason = STR("late")};

	fake_object(f, OP_VM_DELETE, vm, 0, true);
	fake_until_state(f, vm, VM_DESTROYED);
	ipc_notify(f->irond, MSG_TYPE_msg_vm_exited, &m, NULL, 0);
	m.vm = 4711;
	ipc_notify(f->irond, MSG_TYPE_msg_vm_exited, &m, NULL, 0);
	fake_turn(f);
	assert_int_equal(fake_state(f, vm), VM_DESTROYED);
}

static void test_a_kill_that_fails_is_tried_again(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->kill.code = -EBUSY;
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
	fake_turn(f);
	assert_int_equal(fake_state(f, vm), VM_DESTROYING);
	f->kill.code = 0;
	f->remove.code = -EBUSY;
	for (int i = 0; i < 200 && f->removes == 0; i++)
		fake_wait_ms(f, 20);
	f->remove.code = 0;
	fake_until_state(f, vm, VM_DESTROYED);
	assert_int_equal(f->kills, 2);
	assert_int_equal(f->removes, 2);
}

static void test_a_worker_dies_while_a_start_waits_for_it(void **state)
{
	struct fake *f = *state;

	f->commit.hold = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	struct fake_worker *w = fake_worker_get(f);
	fake_worker_kill(f, w->workspace);
	fake_turn(f);
	assert_int_equal(fake_state(f, vm), VM_STARTING);
	f->commit.hold = false;
	fake_worker_replace(f, w->workspace);
	fake_until_state(f, vm, VM_READY);
}

static void test_iron_vm_dies_while_the_guest_boots(void **state)
{
	struct fake *f = *state;

	f->silent_guest = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	f->silent_guest = false;
	fake_vm_replace(f, vm);
	fake_until_state(f, vm, VM_READY);
	fake_turn(f);
	fake_vm_replace(f, vm); /* and once more when it is ready: reached anew */
	fake_turn(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->contracts, 3);
	assert_int_equal(f->starts, 1);
}

static void test_iron_vm_dies_while_the_guest_stops(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->shutdown.hold = true;
	fake_stop(f, vm);
	f->shutdown.hold = false;
	fake_vm_replace(f, vm);
	fake_until_state(f, vm, VM_STOPPED);
	assert_int_equal(f->shutdowns, 2);
}

static void test_a_guest_that_cannot_be_asked_is_killed(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->shutdown.code = -ENOTCONN;
	assert_int_equal(fake_stop(f, vm), 200);
	fake_assert_detail(f, vm, "stopped", "stopped");
	assert_int_equal(f->kills, 1);
}

static void test_the_journal_goes_while_a_change_waits_for_it(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	struct msg_policy_put m = {.key_hash = fake_hash(f), .op = OP_POLICY_PUT, .mode = 1};

	f->journal.hold = true;
	fake_ask(f, MSG_TYPE_msg_policy_put, &m, &a);
	fake_turn(f);
	assert_false(a.done);
	ipc_peer_destroy(take_ptr(f->audit));
	fake_until(f, &a.done);
	fake_assert_code(&a, 503, "unavailable");
	fake_answer_finish(&a);
	fake_call(f, MSG_TYPE_msg_policy_put, &m, &a); /* there is none now */
	fake_assert_code(&a, 503, "unavailable");
	fake_answer_finish(&a);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_create_runs_to_ready),
		T(test_the_policy_is_committed_before_the_contract),
		T(test_create_is_checked),
		T(test_names_are_taken_and_free_again),
		T(test_stop_and_start),
		T(test_start_follows_the_stop),
		T(test_delete_while_stopping),
		T(test_delete_undoes_a_creation_that_is_under_way),
		T(test_a_start_that_fails_at_each_step_ends_in_failed),
		T(test_a_guest_that_fails_its_contract),
		T(test_a_guest_that_says_nothing),
		T(test_ends_that_nobody_asked_for),
		T(test_a_guest_that_reboots),
		T(test_wait),
		T(test_limits),
		T(test_everything_is_said_twice),
		T(test_news_of_what_is_gone),
		T(test_a_kill_that_fails_is_tried_again),
		T(test_a_worker_dies_while_a_start_waits_for_it),
		T(test_iron_vm_dies_while_the_guest_boots),
		T(test_iron_vm_dies_while_the_guest_stops),
		T(test_a_guest_that_cannot_be_asked_is_killed),
		T(test_the_journal_goes_while_a_change_waits_for_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
