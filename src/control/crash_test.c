/* Every step of every job × everyone who may die in it: the job goes on or is undone, and what the store says is so.
 *
 * A step is caught by ordering its request held. Either it was done and its answer is lost, or (lose) it never was. */
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

#define FAULT(member) offsetof(struct fake, member)
#define NO_FAULT 0

enum way { TO_READY, TO_STOPPED, TO_DESTROYED, TO_FAILED };

/* step: whose request is held. prepare_fault/code: so that the job comes there. */
struct point {
	const char *name;
	enum way way;
	size_t step;
	bool can_lose, contract;
	size_t other;
	int other_code;
	bool guest_fails, exits;
};
static const struct point points[] = {
	{"start: prepare", TO_READY, FAULT(prepare), .can_lose = true},
	{"start: start", TO_READY, FAULT(start), .can_lose = true},
	{"start: policy", TO_READY, FAULT(commit)},
	{"start: contract", TO_READY, NO_FAULT, .contract = true},
	{"stop: shutdown", TO_STOPPED, FAULT(shutdown)},
	{"stop: kill", TO_STOPPED, FAULT(kill), .other = FAULT(shutdown), .other_code = -ENOTCONN},
	{"remove: kill", TO_DESTROYED, FAULT(kill)},
	{"remove: remove", TO_DESTROYED, FAULT(remove), .can_lose = true},
	{"clean: kill", TO_FAILED, FAULT(kill), .exits = true},
	{"undo: kill", TO_FAILED, FAULT(kill), .guest_fails = true},
	{"undo: remove", TO_FAILED, FAULT(remove), .can_lose = true, .guest_fails = true},
};

enum crash { CONTROL, CONTROL_AND_HOST, IRON_VM, WORKER, MACHINE, CRASHES };
static const char *const crash_names[] = {"iron-control", "iron-control and the host", "iron-vm", "iron-egress", "QEMU"};

static struct fault *fault_at(struct fake *f, size_t offset)
{
	return offset == NO_FAULT ? NULL : (struct fault *)(void *)((char *)f + offset);
}

/* A VM in the job, caught at the point. */
static uint64_t bring_to(struct fake *f, const struct point *p, bool lose)
{
	struct fault *step = fault_at(f, p->step), *other = fault_at(f, p->other);
	bool creates = p->way == TO_READY || p->guest_fails;
	uint64_t vm = creates ? 0 : fake_vm_create(f, "demo", NULL);

	if (step)
		*step = (struct fault){.hold = true, .lose = lose};
	if (other)
		other->code = p->other_code;
	f->silent_guest = p->contract;
	f->guest_fails = p->guest_fails;
	if (creates)
		vm = fake_vm_create(f, "demo", NULL);
	else if (p->exits)
		fake_exit(f, vm, 9, "killed by signal 9");
	else if (p->way == TO_STOPPED)
		assert_int_equal(fake_stop(f, vm), 200);
	else
		assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
	assert_true(vm != 0);
	fake_turn(f);
	return vm;
}

static void mend(struct fake *f, const struct point *p)
{
	struct fault *step = fault_at(f, p->step), *other = fault_at(f, p->other);

	if (step)
		*step = (struct fault){0};
	if (other)
		*other = (struct fault){0};
	f->silent_guest = f->guest_fails = false;
}

static void crash(struct fake *f, const struct point *p, enum crash who, uint64_t vm)
{
	struct fake_vm *v = fake_vm_get(f, vm);
	struct fake_worker *w = fake_worker_get(f);
	bool runs = v && v->running;

	if (who == CONTROL || who == CONTROL_AND_HOST) {
		fake_stop_control(f);
		if (who == CONTROL_AND_HOST)
			fake_reboot(f);
		mend(f, p);
		fake_start_control(f);
		return;
	}
	if (who == IRON_VM && runs)
		fake_vm_replace(f, vm);
	if (who == WORKER && w) {
		fake_worker_kill(f, w->workspace);
		fake_turn(f);
		fake_worker_replace(f, w->workspace);
	}
	if (who == MACHINE && runs)
		fake_exit(f, vm, 9, "killed by signal 9");
	mend(f, p);
	fake_turn(f);
	fake_release(f);
	if (p->contract && v && v->running && who == WORKER)
		fake_report(f, vm, VM_REPORT_READY, "", "");
}

static bool at_rest(struct fake *f, uint64_t vm)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm row;

	assert_int_equal(store_vm_lookup(f->store, vm, &a, &row), 0);
	return row.job == 0 && !(VM_STATES_PENDING & VM_STATE_BIT(row.state)) && row.state != VM_STOPPING &&
	       row.state != VM_DESTROYING;
}

static void until_at_rest(struct fake *f, uint64_t vm)
{
	for (int i = 0; i < 400 && !at_rest(f, vm); i++)
		fake_wait_ms(f, 20);
	assert_true(at_rest(f, vm));
}

static void assert_as_it_should_be(struct fake *f, const struct point *p, enum crash who, uint64_t vm)
{
	static const enum vm_state ends[] = {
		[TO_READY] = VM_READY, [TO_STOPPED] = VM_STOPPED, [TO_DESTROYED] = VM_DESTROYED, [TO_FAILED] = VM_FAILED};
	enum vm_state is = fake_state(f, vm);
	const struct fake_vm *v = fake_vm_get(f, vm);
	bool allowed = is == ends[p->way] || (p->way == TO_READY && who == MACHINE && is == VM_FAILED);
	_cleanup_(arena_finish) struct arena a = {0};
	struct row_session last = {.ended_at = 1};
	struct store_vm row;

	if (!allowed)
		fail_msg("it is %s", vm_state_detail(is));
	assert_int_equal(v->running, is == VM_READY);
	assert_true(is != VM_DESTROYED || !v->prepared);
	assert_int_equal(store_vm_lookup(f->store, vm, &a, &row), 0);
	assert_true(is != VM_FAILED || row.row.status_reason.len > 0);
	assert_true(is != VM_READY || row.row.generation == v->generation);
	int r = store_session_last(f->store, vm, &a, &last);
	assert_true(r == 0 || r == -ENOENT);
	assert_int_equal(last.ended_at == 0, is == VM_READY);
}

static void try_one(const struct point *p, enum crash who, bool lose)
{
	struct fake *f = fake_create();

	print_message("%s, %s dies%s\n", p->name, crash_names[who], lose ? " before it is done" : "");
	uint64_t vm = bring_to(f, p, lose);
	crash(f, p, who, vm);
	until_at_rest(f, vm);
	assert_as_it_should_be(f, p, who, vm);
	fake_stop_control(f); /* and it stays so */
	fake_start_control(f);
	until_at_rest(f, vm);
	assert_as_it_should_be(f, p, who, vm);
	if (p->way != TO_DESTROYED) {
		if (fake_state(f, vm) != VM_READY)
			assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
		fake_until_state(f, vm, VM_READY);
		assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 204);
		fake_until_state(f, vm, VM_DESTROYED);
	}
	assert_false(fake_vm_get(f, vm)->prepared);
	fake_destroy(f);
}

static void test_each_step_and_each_death(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(points); i++)
		for (unsigned who = 0; who < CRASHES; who++) {
			try_one(&points[i], (enum crash)who, false);
			/* who asked is the one that lives: what irond lost without dying is answered by its own deadlines */
			if (points[i].can_lose && (who == CONTROL || who == CONTROL_AND_HOST))
				try_one(&points[i], (enum crash)who, true);
		}
}

/* --- irond's table and the store's disagree --- */

static void test_another_generation_runs(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_stop_control(f);
	fake_vm_get(f, vm)->generation += 5; /* the store was restored from a backup */
	fake_start_control(f);
	fake_until_state(f, vm, VM_STOPPED);
	until_at_rest(f, vm);
	assert_false(fake_vm_get(f, vm)->running);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200); /* the fake wants a generation that is new */
	fake_until_state(f, vm, VM_READY);
}

static void test_what_is_at_rest_runs(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	assert_int_equal(fake_stop(f, vm), 200);
	fake_until_state(f, vm, VM_STOPPED);
	fake_stop_control(f);
	fake_vm_get(f, vm)->running = true;
	fake_start_control(f);
	until_at_rest(f, vm);
	assert_false(fake_vm_get(f, vm)->running);
	assert_int_equal(fake_state(f, vm), VM_STOPPED);
}

static void test_what_nobody_knows_runs(void **state)
{
	struct fake *f = *state;
	struct fake_vm *v = xcalloc(1, sizeof *v);

	fake_stop_control(f);
	*v = (struct fake_vm){.fake = f, .id = 4711, .workspace = 1, .generation = 1, .prepared = true, .running = true};
	map_put(&f->vms, v->id, v);
	fake_start_control(f);
	for (int i = 0; i < 200 && v->running; i++)
		fake_wait_ms(f, 20);
	assert_false(v->running);
	assert_true(v->prepared); /* a disk that the database does not know is an operator's to judge */
}

/* irond goes on with a start that the iron-control which asked for it did not see the end of. */
static void test_a_start_is_under_way_in_irond(void **state)
{
	struct fake *f = *state;

	f->start = (struct fault){.hold = true};
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_stop_control(f);
	fake_vm_get(f, vm)->running = false; /* not yet */
	f->start = (struct fault){0};
	unsigned kills = f->kills;
	fake_start_control(f);
	fake_until_state(f, vm, VM_READY);
	assert_true(f->kills > kills); /* before the next */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_step_and_each_death),
		T(test_another_generation_runs),
		T(test_what_is_at_rest_runs),
		T(test_what_nobody_knows_runs),
		T(test_a_start_is_under_way_in_irond),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
