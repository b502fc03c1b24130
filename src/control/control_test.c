#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/journal.h"
#include "control/fake.h"
#include "model/scope.h"

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

/* The row of a VM as the API gives it. */
static unsigned show(struct fake *f, uint64_t vm, unsigned wait_ms, struct fake_answer *a)
{
	struct msg_object m = {.key_hash = fake_hash(f), .op = OP_VM_GET, .vm = vm, .wait_ms = wait_ms};
	return fake_call(f, MSG_TYPE_msg_object, &m, a);
}

static void assert_detail(struct fake *f, uint64_t vm, const char *status, const char *detail)
{
	struct fake_answer a;

	assert_int_equal(show(f, vm, 0, &a), 200);
	const struct row_vm *row = (void *)a.rows.v[0]->record;
	assert_true(str_eq(row->status, str_of(status)));
	assert_true(str_eq(row->status_detail, str_of(detail)));
	fake_answer_finish(&a);
}

static void assert_code(const struct fake_answer *a, unsigned status, const char *code)
{
	assert_int_equal(a->end.status, status);
	assert_true(str_eq(a->end.code, str_of(code)));
	assert_true(a->end.message.len > 0);
}

/* --- VMs --- */

static void test_create_runs_to_ready(void **state)
{
	struct fake *f = *state;
	unsigned status;
	uint64_t vm = fake_vm_create(f, "demo", &status);

	assert_int_equal(status, 201);
	assert_detail(f, vm, "running", "ready"); /* within the hold */
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
	assert_detail(f, vm, "pending", "starting");
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
		assert_code(&a, cases[i].status, cases[i].code);
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
	assert_detail(f, vm, "stopped", "stopped");
	assert_int_equal(f->shutdowns, 1);
	assert_int_equal(fake_stop(f, vm), 409);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 200);
	assert_detail(f, vm, "running", "ready");
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
	assert_detail(f, vm, "stopped", "stopping");
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
	assert_detail(f, vm, "pending", "starting");
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
		show(f, vm, 0, &a);
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
	show(f, vm, 0, &a);
	assert_true(str_eq(((struct row_vm *)(void *)a.rows.v[0]->record)->status_reason, STR("clock: it stands still")));
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
	assert_detail(f, vm, "pending", "starting");
	fake_report(f, vm, VM_REPORT_BOOTING, "kernel", "");
	fake_turn(f);
	show(f, vm, 0, &a); /* says what it waits for */
	assert_true(str_has_suffix(((struct row_vm *)(void *)a.rows.v[0]->record)->status_reason, STR("kernel")));
	fake_answer_finish(&a);
	fake_until_state(f, vm, VM_FAILED);
	show(f, vm, 0, &a);
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
		   &(struct msg_vm_exited){.vm = vm, .generation = fake_vm_get(f, vm)->generation - 1, .status = 9}, NULL, 0);
	fake_turn(f);
	assert_detail(f, vm, "running", "ready");
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
	assert_int_equal(show(f, vm, 100, &a), 200); /* the time is over */
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
	assert_code(&a, 429, "quota_exceeded");
	assert_true(a.end.retry_after_s > 0);
	fake_answer_finish(&a);
	m.memory_mib = 512;
	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_create, &m, &a), 201);
	fake_answer_finish(&a);
	m.name = STR("y");
	fake_call(f, MSG_TYPE_msg_vm_create, &m, &a);
	assert_code(&a, 429, "quota_exceeded");
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
	assert_code(&a, 507, "no_room");
	fake_answer_finish(&a);
}

/* --- exec --- */

static unsigned exec_open(struct fake *f, uint64_t vm, struct fake_answer *a)
{
	struct msg_exec_open m = {.key_hash = fake_hash(f), .op = OP_VM_EXEC, .vm = vm};
	return fake_call(f, MSG_TYPE_msg_exec_open, &m, a);
}

static void test_exec(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	unsigned events = f->events;

	assert_int_equal(exec_open(f, vm, &a), 200);
	assert_true(a.end.value != 0);
	assert_true(f->events > events);
	fake_answer_finish(&a);
	f->stream.code = -ECONNREFUSED;
	exec_open(f, vm, &a);
	assert_code(&a, 503, "unavailable");
	fake_answer_finish(&a);
	fake_stop(f, vm);
	exec_open(f, vm, &a);
	assert_code(&a, 409, "vm_not_running");
	fake_answer_finish(&a);
	exec_open(f, 12345, &a);
	assert_code(&a, 404, "vm_not_found");
	fake_answer_finish(&a);
	assert_int_equal(f->streams, 2);
}

/* --- keys --- */

static unsigned key_create(struct fake *f, uint32_t scopes, int64_t expires_at, char ret_key[64], uint64_t *ret_id)
{
	struct msg_key_create m = {.key_hash = fake_hash(f), .op = OP_KEY_CREATE, .name = STR("ci"), .scopes = scopes,
				   .expires_at = expires_at};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_key_create, &m, &a);

	if (status == 201) {
		const struct row_key *row = (void *)a.rows.v[0]->record;
		str_copy(row->key, ret_key, 64);
		*ret_id = row->id;
	}
	fake_answer_finish(&a);
	return status;
}

static void test_keys(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	char key[64], first[64], weak[64];
	uint64_t id, ignored;

	memcpy(first, f->key, sizeof first);
	assert_true(str_has_prefix(str_of(first), STR("iron_live_")));
	assert_int_equal(strlen(first), 42);
	assert_int_equal(key_create(f, SCOPE_VM_READ | SCOPE_KEYS, 0, key, &id), 201);
	assert_int_equal(key_create(f, 0, 0, weak, &ignored), 422);
	assert_int_equal(key_create(f, SCOPE_VM_READ, 1, weak, &ignored), 422);
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_key_use(f, key);
	assert_int_equal(show(f, vm, 0, &a), 200);
	fake_answer_finish(&a);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 403);
	assert_int_equal(key_create(f, SCOPE_VM_ADMIN, 0, weak, &ignored), 403); /* no stronger than itself */
	assert_int_equal(key_create(f, SCOPE_VM_READ, 0, weak, &ignored), 201);
	fake_key_use(f, first);
	assert_int_equal(fake_object(f, OP_KEY_DELETE, 0, id, false), 204);
	assert_int_equal(fake_object(f, OP_KEY_DELETE, 0, id, false), 404);
	fake_key_use(f, key);
	show(f, vm, 0, &a);
	assert_code(&a, 401, "unauthorized");
	fake_answer_finish(&a);
	fake_key_use(f, "");
	assert_int_equal(show(f, vm, 0, &a), 401);
	fake_answer_finish(&a);
	fake_key_use(f, first);
}

static void test_nothing_is_done_that_is_not_on_record(void **state)
{
	struct fake *f = *state;
	unsigned status;
	char key[64];
	uint64_t id;

	f->journal.code = -ENOSPC;
	assert_int_equal(fake_vm_create(f, "demo", &status), 0);
	assert_int_equal(status, 503);
	assert_int_equal(fake_rule_create(f, 0, "r", "example.com", NULL), 503);
	assert_int_equal(key_create(f, SCOPE_VM_READ, 0, key, &id), 503);
	f->journal.code = 0;
	assert_int_equal(f->prepares, 0);
	assert_int_equal(fake_rule_create(f, 0, "r", "example.com", NULL), 201); /* the name is free */
}

/* --- egress --- */

static unsigned put_mode(struct fake *f, uint64_t vm, uint8_t mode)
{
	struct msg_policy_put m = {.key_hash = fake_hash(f), .op = vm ? OP_VM_POLICY_PUT : OP_POLICY_PUT, .vm = vm, .mode = mode};
	struct fake_answer a;
	unsigned status = fake_call(f, MSG_TYPE_msg_policy_put, &m, &a);

	fake_answer_finish(&a);
	return status;
}

static void test_rules_reach_the_worker_before_the_answer(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL), own, wide;
	struct fake_worker *w = fake_worker_get(f);

	assert_int_equal(w->rules, 0);
	assert_int_equal(fake_rule_create(f, vm, "own", "api.example.com", &own), 201);
	assert_int_equal(w->rules, 1);
	assert_int_equal(fake_rule_create(f, 0, "wide", "*.example.com", &wide), 201);
	assert_int_equal(w->rules, 2);
	assert_int_equal(fake_rule_create(f, 0, "wide", "example.org", NULL), 409);
	assert_int_equal(fake_rule_create(f, vm, "wide", "example.org", NULL), 201); /* another owner's name */
	assert_int_equal(fake_rule_create(f, 0, "", "bad host", NULL), 422);
	assert_int_equal(fake_rule_create(f, 0, "egr_x", "example.org", NULL), 422);
	assert_int_equal(fake_object(f, OP_VM_RULE_DELETE, vm, wide, false), 404); /* not the VM's */
	assert_int_equal(fake_object(f, OP_RULE_DELETE, 0, wide, false), 204);
	assert_int_equal(w->rules, 2);
	assert_int_equal(put_mode(f, 0, 1), 200);
	assert_int_equal(w->mode, 1);
	assert_int_equal(put_mode(f, vm, 0), 200);
	assert_int_equal(w->mode, 0);
	assert_int_equal(put_mode(f, vm, 255), 422);
	assert_int_equal(fake_object(f, OP_VM_POLICY_DELETE, vm, 0, false), 204);
	assert_int_equal(w->mode, 1);
}

static void test_the_answer_waits_for_the_worker(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	(void)vm;
	f->commit.hold = true;
	struct msg_policy_put m = {.key_hash = fake_hash(f), .op = OP_POLICY_PUT, .mode = 1};
	fake_ask(f, MSG_TYPE_msg_policy_put, &m, &a);
	fake_turn(f);
	assert_false(a.done);
	f->commit.hold = false;
	fake_release(f);
	fake_until(f, &a.done);
	assert_int_equal(a.end.status, 200);
	fake_answer_finish(&a);
}

static void test_a_worker_that_refuses_is_replaced(void **state)
{
	struct fake *f = *state;

	fake_vm_create(f, "demo", NULL);
	f->commit.code = -EPROTO;
	assert_int_equal(put_mode(f, 0, 1), 200); /* nothing passes until the successor has it */
	assert_int_equal(f->restarts, 1);
	fake_turn(f);
	assert_int_equal(fake_worker_get(f)->mode, 1);
}

static void test_a_worker_that_is_silent_is_replaced(void **state)
{
	struct fake *f = *state;

	fake_vm_create(f, "demo", NULL);
	f->commit.hold = true;
	assert_int_equal(put_mode(f, 0, 1), 200);
	assert_int_equal(f->restarts, 1);
	fake_turn(f);
	assert_int_equal(fake_worker_get(f)->mode, 1);
}

static void test_a_worker_that_died_gets_the_policy_again(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	struct fake_worker *w = fake_worker_get(f);

	fake_rule_create(f, vm, "own", "example.com", NULL);
	unsigned commits = w->commits;
	fake_worker_kill(f, w->workspace);
	fake_turn(f);
	struct msg_policy_put m = {.key_hash = fake_hash(f), .op = OP_POLICY_PUT, .mode = 1};
	fake_ask(f, MSG_TYPE_msg_policy_put, &m, &a);
	fake_turn(f);
	assert_false(a.done);
	fake_worker_replace(f, w->workspace);
	fake_until(f, &a.done);
	assert_int_equal(a.end.status, 200);
	assert_true(w->commits > commits);
	assert_int_equal(w->rules, 1);
	fake_answer_finish(&a);
}

/* --- lists, host, health --- */

static void test_lists_and_host(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;

	uint64_t first = fake_vm_create(f, "one", NULL), second = fake_vm_create(f, "two", NULL);
	fake_object(f, OP_VM_DELETE, first, 0, true);
	struct msg_vm_list q = {.key_hash = fake_hash(f), .op = OP_VM_LIST};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_list, &q, &a), 200);
	assert_int_equal(a.rows.n, 1);
	assert_int_equal(((struct row_vm *)(void *)a.rows.v[0]->record)->id, second);
	fake_answer_finish(&a);
	q.status = STR("runing");
	fake_call(f, MSG_TYPE_msg_vm_list, &q, &a);
	assert_code(&a, 422, "validation_error");
	fake_answer_finish(&a);
	struct msg_page page = {.key_hash = fake_hash(f), .op = OP_HOST};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 200);
	assert_int_equal(a.rows.n, 3);
	assert_int_equal(((struct row_host *)(void *)a.rows.v[0]->record)->vms_running, 1);
	fake_answer_finish(&a);
	page = (struct msg_page){.op = OP_READYZ};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 200);
	fake_answer_finish(&a);
	page = (struct msg_page){.key_hash = fake_hash(f), .op = OP_IMAGE_LIST};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 200);
	assert_int_equal(a.rows.n, 1);
	fake_answer_finish(&a);
	page.op = OP_ME;
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 200);
	assert_true(str_eq(((struct row_me *)(void *)a.rows.v[0]->record)->key_name, STR("first")));
	fake_answer_finish(&a);
	page.op = OP_VM_LIST; /* an op in another record */
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 500);
	fake_answer_finish(&a);
}

/* --- the journal's index --- */

static void append(struct audit_journal *j, uint16_t type, const void *record)
{
	_cleanup_(buf_finish) struct buf b = {0};
	uint64_t seq;

	assert_int_equal(wire_encode(record_wire(type), record, &b), 0);
	struct audit_entry e = {type, buf_str(&b)};
	assert_int_equal(audit_journal_append(j, &e, 1, &seq), 0);
}

static uint64_t ask_workspace(struct fake *f)
{
	struct msg_page m = {.key_hash = fake_hash(f), .op = OP_ME};
	struct fake_answer a;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &m, &a), 200);
	uint64_t id = ((struct row_me *)(void *)a.rows.v[0]->record)->workspace;
	fake_answer_finish(&a);
	return id;
}

static size_t count_events(struct fake *f)
{
	struct msg_events_list q = {.key_hash = fake_hash(f), .op = OP_AUDIT_EGRESS};
	struct fake_answer a;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_events_list, &q, &a), 200);
	size_t n = a.rows.n;
	if (n)
		assert_true(str_eq(((struct row_event *)(void *)a.rows.v[0]->record)->host, STR("denied.example")));
	fake_answer_finish(&a);
	return n;
}

static void test_the_journal_is_followed_into_the_index(void **state)
{
	struct fake *f = *state;
	struct audit_journal_options options = {.segment_bytes = 256 << 10, .sync_interval_ms = 50};
	struct record_open record = {.vm = 5, .workspace = ask_workspace(f), .host = STR("denied.example"), .port = 443,
				   .protocol = PROTO_TLS, .verdict = VERDICT_DENIED, .reason = STR("no rule")};
	struct audit_journal *j;
	struct audit_recovery recovery;
	struct msg_audit_head head;
	struct error e = {0};
	char path[80];

	snprintf(path, sizeof path, "%s/journal", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	f->segments = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(audit_journal_open(f->segments, &options, NULL, NULL, &j, &recovery, &e), 0);
	append(j, RECORD_OPEN, &record);
	audit_journal_head(j, &head);
	ipc_notify(f->audit, MSG_TYPE_msg_audit_head, &head, NULL, 0);
	for (int i = 0; i < 100 && count_events(f) == 0; i++)
		fake_turn(f);
	assert_int_equal(count_events(f), 1);
	fake_stop_control(f);
	fake_start_control(f);
	append(j, RECORD_OPEN, &record);
	audit_journal_head(j, &head);
	ipc_notify(f->audit, MSG_TYPE_msg_audit_head, &head, NULL, 0);
	for (int i = 0; i < 100 && count_events(f) == 1; i++)
		fake_turn(f);
	assert_int_equal(count_events(f), 2); /* from where it was */
	audit_journal_close(j);
	close(f->segments);
}

/* --- whose things they are --- */

/* A key with every scope in a workspace of its own; the fake uses it from now on. */
static void become_stranger(struct fake *f)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store_workspace w = {.id = 999, .name = STR("other"), .created_at = INT64_MAX};
	struct store_key key = {.workspace = 999, .row = {.id = 998, .name = STR("x"), .scopes = SCOPE_ALL}};
	uint8_t hash[32] = {1};

	assert_int_equal(store_begin(f->store, STORE_NORMAL, &tx), 0);
	assert_int_equal(store_workspace_create(f->store, &w), 0);
	assert_int_equal(store_key_create(f->store, &key, hash), 0);
	assert_int_equal(store_commit(&tx), 0);
	memcpy(f->key_hash, hash, sizeof hash);
}

static void test_another_workspace_is_as_if_it_were_not_there(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL), rule;
	struct fake_answer a;

	assert_int_equal(fake_rule_create(f, 0, "r", "example.com", &rule), 201);
	become_stranger(f);
	assert_int_equal(fake_object(f, OP_VM_GET, vm, 0, false), 404);
	assert_int_equal(fake_object(f, OP_VM_START, vm, 0, false), 404);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 404);
	assert_int_equal(fake_object(f, OP_VM_POLICY_GET, vm, 0, false), 404);
	assert_int_equal(fake_object(f, OP_VM_POLICY_DELETE, vm, 0, false), 404);
	assert_int_equal(fake_object(f, OP_RULE_DELETE, 0, rule, false), 404);
	assert_int_equal(fake_rule_create(f, vm, "own", "example.com", NULL), 404);
	assert_int_equal(fake_stop(f, vm), 404);
	assert_int_equal(put_mode(f, vm, 1), 404);
	assert_int_equal(exec_open(f, vm, &a), 404);
	fake_answer_finish(&a);
	assert_int_equal(put_mode(f, 0, 1), 200); /* its own */
	assert_int_equal(fake_worker_get(f)->mode, 0);
	assert_int_equal(fake_rule_create(f, 0, "r", "example.org", NULL), 201); /* names are its own, too */
	assert_int_equal(fake_worker_get(f)->rules, 1);
	assert_true(fake_vm_create(f, "demo", NULL) != 0);
	assert_int_equal(fake_state(f, vm), VM_READY);
}

/* --- the end of a peer while something waits --- */

static void test_the_api_dies_while_it_waits(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;

	f->silent_guest = true;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	fake_ask(f, MSG_TYPE_msg_object,
		 &(struct msg_object){.key_hash = fake_hash(f), .op = OP_VM_GET, .vm = vm, .wait_ms = 25000}, &a);
	fake_turn(f);
	ipc_peer_destroy(take_ptr(f->api));
	fake_turn(f);
	assert_true(a.done);
	fake_answer_finish(&a);
	fake_report(f, vm, VM_REPORT_READY, "", "");
	fake_until_state(f, vm, VM_READY);
}

static void test_irond_goes(void **state)
{
	struct fake *f = *state;

	fake_vm_create(f, "demo", NULL);
	ipc_peer_destroy(take_ptr(f->irond));
	fake_until(f, &f->ended);
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
		T(test_exec),
		T(test_keys),
		T(test_nothing_is_done_that_is_not_on_record),
		T(test_rules_reach_the_worker_before_the_answer),
		T(test_the_answer_waits_for_the_worker),
		T(test_a_worker_that_refuses_is_replaced),
		T(test_a_worker_that_is_silent_is_replaced),
		T(test_a_worker_that_died_gets_the_policy_again),
		T(test_lists_and_host),
		T(test_the_journal_is_followed_into_the_index),
		T(test_another_workspace_is_as_if_it_were_not_there),
		T(test_the_api_dies_while_it_waits),
		T(test_irond_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
