/* iron-control dies at any moment: what a client was told stays true, and every job goes on or is undone. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
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

static void test_what_runs_runs_on(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL), rule;

	assert_int_equal(fake_rule_create(f, vm, "r", "example.com", &rule), 201);
	fake_restart_control(f);
	assert_int_equal(fake_state(f, vm), VM_READY); /* never anything else */
	fake_turn(f);
	assert_int_equal(f->starts, 1);
	assert_int_equal(fake_worker_get(f)->rules, 1); /* sent again */
	assert_int_equal(fake_object(f, OP_VM_RULE_DELETE, vm, rule, false), 204);
	assert_int_equal(fake_worker_get(f)->rules, 0);
	assert_int_equal(fake_stop(f, vm), 200);
	fake_until_state(f, vm, VM_STOPPED);
}

static void test_after_a_reboot_all_are_stopped(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_stop_control(f);
	fake_reboot(f);
	fake_start_control(f);
	assert_int_equal(fake_state(f, vm), VM_STOPPED);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->removes, 0);
}

static void test_irond_is_told_to_stop(void **state)
{
	struct fake *f = *state;
	uint64_t ready = fake_vm_create(f, "ready", NULL);

	f->silent_guest = true;
	uint64_t booting = fake_vm_create(f, "booting", NULL);
	fake_exit(f, ready, 9, "killed"); /* no failure of theirs */
	fake_exit(f, booting, 9, "killed");
	fake_until_state(f, ready, VM_STOPPED);
	fake_stop_control(f);
	fake_reboot(f);
	f->silent_guest = false;
	fake_start_control(f);
	assert_int_equal(fake_state(f, ready), VM_STOPPED);
	fake_until_state(f, booting, VM_READY); /* its 201 still holds */
}

static void test_an_end_that_was_missed(void **state)
{
	struct fake *f = *state;
	uint64_t one = fake_vm_create(f, "one", NULL), two = fake_vm_create(f, "two", NULL);

	fake_stop_control(f);
	fake_exit(f, one, 0, "powered off");
	fake_exit(f, two, 9, "killed by signal 9");
	fake_start_control(f);
	fake_until_state(f, one, VM_STOPPED);
	fake_until_state(f, two, VM_FAILED);
}

/* The creation is held at a step, iron-control dies there, and comes back. */
static void resume_from(struct fake *f, struct fault *fault, bool reboot)
{
	fault->hold = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	assert_true(vm != 0);
	fake_stop_control(f);
	fault->hold = false;
	if (reboot)
		fake_reboot(f);
	fake_start_control(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
	fake_until_state(f, vm, VM_DESTROYED);
	assert_false(fake_vm_get(f, vm)->prepared);
}

static void test_a_creation_goes_on_from_each_step(void **state)
{
	struct fake *f = *state;
	struct fault *faults[] = {&f->prepare, &f->start, &f->commit};

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		resume_from(f, faults[i], false);
		resume_from(f, faults[i], true);
	}
}

static void test_a_creation_goes_on_from_its_contract(void **state)
{
	struct fake *f = *state;

	f->silent_guest = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_stop_control(f);
	f->silent_guest = false;
	fake_start_control(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->starts, 1);
}

static void test_a_stop_goes_on(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->shutdown.hold = true;
	fake_stop(f, vm);
	fake_stop_control(f);
	f->shutdown.hold = false;
	fake_start_control(f);
	fake_until_state(f, vm, VM_STOPPED);
	assert_int_equal(f->shutdowns, 2);
	assert_true(fake_vm_get(f, vm)->prepared);
}

static void test_a_start_that_is_to_follow_still_follows(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	f->shutdown.hold = true;
	fake_stop(f, vm);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_stop_control(f);
	f->shutdown.hold = false;
	fake_start_control(f);
	fake_until_state(f, vm, VM_READY);
	assert_int_equal(f->starts, 2);
}

static void test_a_removal_goes_on(void **state)
{
	struct fake *f = *state;
	struct fault *faults[] = {&f->kill, &f->remove};

	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		uint64_t vm = fake_vm_create(f, "demo", NULL);
		faults[i]->hold = true;
		assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
		fake_stop_control(f);
		faults[i]->hold = false;
		fake_start_control(f);
		fake_until_state(f, vm, VM_DESTROYED);
		assert_false(fake_vm_get(f, vm)->prepared);
	}
}

static void test_an_undo_goes_on(void **state)
{
	struct fake *f = *state;

	f->guest_fails = true;
	f->kill.hold = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_until_state(f, vm, VM_FAILED);
	assert_true(fake_vm_get(f, vm)->running);
	fake_stop_control(f);
	f->kill.hold = f->guest_fails = false;
	fake_start_control(f);
	assert_int_equal(fake_state(f, vm), VM_FAILED);
	fake_turn(f);
	assert_false(fake_vm_get(f, vm)->running);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	fake_until_state(f, vm, VM_READY);
}

static void test_what_irond_has_and_the_store_calls_destroyed_is_removed(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
	fake_until_state(f, vm, VM_DESTROYED);
	fake_vm_get(f, vm)->prepared = true; /* an irond that died before its table was written */
	fake_restart_control(f);
	fake_turn(f);
	assert_false(fake_vm_get(f, vm)->prepared);
	assert_int_equal(fake_state(f, vm), VM_DESTROYED);
}

/* --- the property --- */

enum { NAMES = 3, ROUNDS = 50 };

struct believed {
	uint64_t vm, rule;
	bool destroyed, started, stopped; /* what a client was told last, and so may rely on */
};

static void check_beliefs(struct fake *f, const struct believed *b, uint8_t mode)
{
	for (size_t i = 0; i < NAMES; i++) {
		if (!b[i].vm)
			continue;
		enum vm_state s = fake_state(f, b[i].vm);
		if (b[i].destroyed)
			assert_true(VM_STATES_GONE & VM_STATE_BIT(s));
		else
			assert_false(VM_STATES_GONE & VM_STATE_BIT(s));
		if (b[i].started)
			assert_true((VM_STATES_RUNNING | VM_STATES_PENDING) & VM_STATE_BIT(s));
		if (b[i].stopped)
			assert_true(s == VM_STOPPED || s == VM_STOPPING);
		if (b[i].rule && !b[i].destroyed) {
			_cleanup_(arena_finish) struct arena a = {0};
			struct store_vm row;
			struct rec_rule rule;
			assert_int_equal(store_vm_lookup(f->store, b[i].vm, &a, &row), 0);
			assert_int_equal(store_rule_get(f->store, row.workspace, b[i].vm, b[i].rule, &a, &rule), 0);
		}
	}
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_workspace w;
	assert_int_equal(store_workspace_default(f->store, &a, &w), 0);
	assert_int_equal(w.mode, mode);
}

static void act_on_vm(struct fake *f, struct believed *b, const char *name, long what)
{
	if (!b->vm || b->destroyed) {
		uint64_t vm = fake_vm_create(f, name, NULL);
		if (vm)
			*b = (struct believed){.vm = vm, .started = true};
		return;
	}
	switch (what % 4) {
	case 0:
		if (fake_object(f, OP_VM_DELETE, b->vm, 0, true) == 204)
			*b = (struct believed){.vm = b->vm, .destroyed = true};
		break;
	case 1:
		if (fake_stop(f, b->vm) == 200)
			b->stopped = true, b->started = false;
		break;
	case 2:
		if (fake_object(f, OP_VM_START, b->vm, 0, false) == 200)
			b->started = true, b->stopped = false;
		break;
	default:
		fake_rule_create(f, b->vm, "", "example.com", &b->rule);
		break;
	}
}

static uint8_t flip_mode(struct fake *f, uint8_t mode)
{
	struct msg_policy_put m = {.key_hash = fake_hash(f), .op = OP_POLICY_PUT, .mode = !mode};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_policy_put, &m, &a);

	fake_answer_finish(&a);
	return status == 200 ? !mode : mode;
}

/* A client acts at random, and iron-control dies at random, often with the last change still under way. Nothing that
 * was answered with 200, 201 or 204 is ever seen undone. */
static void test_what_was_answered_stays(void **state)
{
	static const char *const names[NAMES] = {"one", "two", "three"};
	struct believed believed[NAMES] = {0};
	struct fake *f = *state;
	uint8_t mode = 0;
	const char *seed = getenv("IRON_TEST_SEED");

	srandom(seed ? (unsigned)strtoul(seed, NULL, 10) : 20);
	struct fault *faults[] = {&f->prepare, &f->start, &f->commit, &f->shutdown, &f->kill, &f->remove};

	for (int round = 0; round < ROUNDS; round++) {
		size_t i = (size_t)random() % NAMES, k = (size_t)random() % (4 * ARRAY_SIZE(faults));
		bool dies = random() % 4 == 0 || k < ARRAY_SIZE(faults);
		if (k < ARRAY_SIZE(faults)) /* somebody does not answer any more, then iron-control dies */
			faults[k]->hold = true;
		if (k != 2 && random() % 8 == 0)
			mode = flip_mode(f, mode);
		else
			act_on_vm(f, &believed[i], names[i], random());
		check_beliefs(f, believed, mode);
		if (!dies)
			continue;
		fake_stop_control(f);
		if (k < ARRAY_SIZE(faults))
			faults[k]->hold = false;
		fake_start_control(f);
		check_beliefs(f, believed, mode);
	}
	for (size_t i = 0; i < NAMES; i++) {
		if (believed[i].started)
			fake_until_state(f, believed[i].vm, VM_READY);
		if (believed[i].stopped)
			fake_until_state(f, believed[i].vm, VM_STOPPED);
		if (believed[i].destroyed)
			fake_until_state(f, believed[i].vm, VM_DESTROYED);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_what_runs_runs_on),
		T(test_after_a_reboot_all_are_stopped),
		T(test_irond_is_told_to_stop),
		T(test_an_end_that_was_missed),
		T(test_a_creation_goes_on_from_each_step),
		T(test_a_creation_goes_on_from_its_contract),
		T(test_a_stop_goes_on),
		T(test_a_start_that_is_to_follow_still_follows),
		T(test_a_removal_goes_on),
		T(test_an_undo_goes_on),
		T(test_what_irond_has_and_the_store_calls_destroyed_is_removed),
		T(test_what_was_answered_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
