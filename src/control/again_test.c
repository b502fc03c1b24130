/* restart: always starts a VM again after every end that nobody asked iron for, within its limit; and nothing else does. */
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

static unsigned patch_restart(struct fake *f, uint64_t vm, enum vm_restart to)
{
	struct msg_vm_patch m = {.key_hash = fake_hash(f), .op = OP_VM_PATCH, .vm = vm, .restart = (uint8_t)(1 + to)};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_vm_patch, &m, &a);

	fake_answer_finish(&a);
	return status;
}

static void assert_reason(struct fake *f, uint64_t vm, const char *says)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm row;

	assert_int_equal(store_vm_lookup(f->store, vm, &a, &row), 0);
	if (!says[0]) {
		assert_int_equal(row.row.status_reason.len, 0);
		return;
	}
	if (!memmem(row.row.status_reason.p, row.row.status_reason.len, says, strlen(says)))
		fail_msg("\"%.*s\" does not say \"%s\"", STR_ARG(row.row.status_reason), says);
}

static void until_starts(struct fake *f, unsigned n)
{
	for (int i = 0; i < 400 && f->starts < n; i++)
		fake_wait_ms(f, 20);
	assert_int_equal(f->starts, n);
}

static uint64_t always(struct fake *f)
{
	f->restart_always = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	f->restart_always = false;
	fake_until_state(f, vm, VM_READY);
	return vm;
}

static void test_a_dead_machine_is_started_again(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	f->kill.hold = true;
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_turn(f);
	assert_int_equal(fake_state(f, vm), VM_STARTING);
	assert_reason(f, vm, "killed by signal 9; it is started again");
	f->kill.hold = false;
	fake_release(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->starts, 2);
	fake_exit(f, vm, 0, "powered off"); /* from within is no stop of iron's either */
	until_starts(f, 3);
	fake_until_state(f, vm, VM_READY);
	assert_reason(f, vm, "");
}

static void test_never_is_never(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_FAILED);
	fake_wait_ms(f, 200);
	assert_int_equal(f->starts, 1);
}

static void test_a_stop_stays(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	assert_int_equal(fake_stop(f, vm), 200);
	fake_until_state(f, vm, VM_STOPPED);
	fake_wait_ms(f, 200);
	fake_stop_control(f);
	fake_reboot(f);
	fake_start_control(f);
	fake_wait_ms(f, 200);
	assert_int_equal(fake_state(f, vm), VM_STOPPED);
	assert_int_equal(f->starts, 1);
}

static void test_a_stop_calls_the_restart_off(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	for (int pausing = 0; pausing < 2; pausing++) {
		fake_stop_control(f);
		f->config.restart_pause_ms = pausing ? 60000 : 10;
		fake_start_control(f);
		f->kill.hold = !pausing;
		unsigned starts = f->starts, kills = f->kills;
		fake_exit(f, vm, 9, "killed by signal 9");
		for (int i = 0; i < 100 && f->kills == kills; i++)
			fake_wait_ms(f, 20);
		fake_turn(f);
		assert_int_equal(fake_state(f, vm), VM_STARTING);
		assert_int_equal(fake_stop(f, vm), 200);
		assert_int_equal(fake_state(f, vm), VM_STOPPED);
		assert_int_equal(fake_stop(f, vm), 409);
		f->kill.hold = false;
		fake_release(f);
		fake_restart_control(f);
		fake_wait_ms(f, 200);
		assert_int_equal(fake_state(f, vm), VM_STOPPED);
		assert_int_equal(f->starts, starts);
		assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
		fake_until_state(f, vm, VM_READY);
	}
}

static void test_never_calls_the_restart_off(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	f->kill.hold = true;
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_turn(f);
	assert_int_equal(patch_restart(f, vm, VM_RESTART_NEVER), 200);
	assert_int_equal(fake_state(f, vm), VM_STOPPED);
	f->kill.hold = false;
	fake_release(f);
	fake_wait_ms(f, 200);
	assert_int_equal(f->starts, 1);
	assert_int_equal(patch_restart(f, vm, VM_RESTART_ALWAYS), 200); /* is no start */
	fake_wait_ms(f, 200);
	assert_int_equal(fake_state(f, vm), VM_STOPPED);
}

static void test_destroyed_while_it_waits(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	fake_stop_control(f);
	f->config.restart_pause_ms = 60000;
	fake_start_control(f);
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_STARTING);
	fake_turn(f);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, false), 204);
	fake_until_state(f, vm, VM_DESTROYED);
	assert_int_equal(f->starts, 1);
}

/* Each time it ends; an iron-control that dies in between counts on. */
static void test_five_times_then_it_is_left(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	for (unsigned i = 0; i < 5; i++) {
		fake_exit(f, vm, 9, "killed by signal 9");
		until_starts(f, 2 + i);
		fake_until_state(f, vm, VM_READY);
		fake_restart_control(f);
		assert_int_equal(fake_state(f, vm), VM_READY);
	}
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_FAILED);
	fake_wait_ms(f, 300);
	assert_reason(f, vm, "restart: always started it 5 times in 10 minutes");
	assert_int_equal(f->starts, 6);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200); /* by hand it goes */
	fake_until_state(f, vm, VM_READY);
}

static void test_a_start_of_its_own_that_fails_is_tried_again(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	f->start.code = -EIO;
	fake_exit(f, vm, 9, "killed by signal 9");
	until_starts(f, 3);
	fake_turn(f);
	assert_int_equal(fake_state(f, vm), VM_STARTING);
	f->start.code = 0;
	fake_until_state(f, vm, VM_READY);
	f->start.code = -EIO;
	fake_exit(f, vm, 9, "killed by signal 9");
	fake_until_state(f, vm, VM_FAILED); /* the limit */
	assert_reason(f, vm, "as ordered; restart: always started it 5 times");
	f->start.code = 0;
}

static void test_a_start_that_was_asked_for_fails_at_once(void **state)
{
	struct fake *f = *state;

	f->restart_always = true;
	f->start.code = -EIO;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_until_state(f, vm, VM_FAILED);
	fake_wait_ms(f, 200);
	assert_int_equal(f->starts, 1);
	assert_int_equal(fake_state(f, vm), VM_FAILED);
}

static void test_after_a_reboot(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	for (int i = 0; i < 7; i++) { /* the host's fault, not the VM's: not counted */
		fake_stop_control(f);
		fake_reboot(f);
		fake_start_control(f);
		until_starts(f, 2 + (unsigned)i);
		fake_until_state(f, vm, VM_READY);
	}
	assert_int_equal(f->removes, 0);
}

/* Ended by an irond that is told to stop: the next one starts it. */
static void test_after_irond_was_stopped(void **state)
{
	struct fake *f = *state;
	uint64_t vm = always(f);

	fake_exit(f, vm, 9, "killed");
	fake_turn(f);
	fake_wait_ms(f, 100);
	assert_int_equal(f->starts, 1);
	fake_stop_control(f);
	fake_reboot(f);
	fake_start_control(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->starts, 2);
}

/* The same, gently: the guest powers off since irond asked it to. Starts that fall into that time are not failures. */
static void test_while_irond_stops(void **state)
{
	struct fake *f = *state;
	uint64_t gently = always(f);

	fake_exit(f, gently, 0, "killed");
	fake_turn(f);
	assert_reason(f, gently, "iron was stopped");
	f->start.code = -ESHUTDOWN;
	f->restart_always = true;
	uint64_t late = fake_vm_create(f, "late", NULL);
	fake_wait_ms(f, 300);
	assert_int_equal(fake_state(f, late), VM_STARTING);
	fake_stop_control(f);
	fake_reboot(f);
	f->start.code = 0;
	fake_start_control(f);
	fake_until_state(f, gently, VM_READY);
	fake_until_state(f, late, VM_READY);
}

/* iron-control dies at each step of a restart. */
static void test_a_restart_goes_on_from_each_step(void **state)
{
	struct fake *f = *state;
	struct fault *faults[] = {&f->kill, NULL, &f->start, &f->commit};

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		for (int reboot = 0; reboot < 2; reboot++) {
			f->config.restart_pause_ms = 10;
			uint64_t vm = always(f);
			if (faults[i])
				faults[i]->hold = true;
			fake_exit(f, vm, 9, "killed by signal 9");
			fake_turn(f);
			fake_wait_ms(f, 60);
			assert_int_equal(faults[i] ? fake_state(f, vm) : VM_STARTING, VM_STARTING);
			fake_stop_control(f);
			if (faults[i])
				faults[i]->hold = false;
			if (reboot)
				fake_reboot(f);
			fake_start_control(f);
			fake_until_state(f, vm, VM_READY);
			assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
			fake_until_state(f, vm, VM_DESTROYED);
		}
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_dead_machine_is_started_again),
		T(test_never_is_never),
		T(test_a_stop_stays),
		T(test_a_stop_calls_the_restart_off),
		T(test_never_calls_the_restart_off),
		T(test_destroyed_while_it_waits),
		T(test_five_times_then_it_is_left),
		T(test_a_start_of_its_own_that_fails_is_tried_again),
		T(test_a_start_that_was_asked_for_fails_at_once),
		T(test_after_a_reboot),
		T(test_after_irond_was_stopped),
		T(test_while_irond_stops),
		T(test_a_restart_goes_on_from_each_step),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
