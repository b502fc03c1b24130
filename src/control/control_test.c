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
#include "audit/segment.h"
#include "base/clock.h"
#include "control/fake.h"
#include "model/scope.h"
#include "os/fdutil.h"

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

/* --- exec --- */

static unsigned exec_open(struct fake *f, uint64_t vm, struct fake_answer *a)
{
	struct msg_vm_open m = {.key_hash = fake_hash(f), .op = OP_VM_EXEC, .vm = vm};
	return fake_call(f, MSG_TYPE_msg_vm_open, &m, a);
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
	fake_assert_code(&a, 503, "unavailable");
	fake_answer_finish(&a);
	fake_stop(f, vm);
	exec_open(f, vm, &a);
	fake_assert_code(&a, 409, "vm_not_running");
	fake_answer_finish(&a);
	exec_open(f, 12345, &a);
	fake_assert_code(&a, 404, "vm_not_found");
	fake_answer_finish(&a);
	assert_int_equal(f->streams, 2);
}

static unsigned vm_open(struct fake *f, enum api_op op, uint64_t vm, struct fake_answer *a)
{
	struct msg_vm_open m = {.key_hash = fake_hash(f), .op = (uint16_t)op, .vm = vm, .path = STR("/etc/motd"), .exec = 77};
	return fake_call(f, MSG_TYPE_msg_vm_open, &m, a);
}

static void assert_opened(struct fake *f, enum api_op op, uint64_t vm, const char *event)
{
	struct fake_answer a;

	snprintf(f->last_soon, sizeof f->last_soon, "none");
	assert_int_equal(vm_open(f, op, vm, &a), 200);
	assert_true(a.end.value != 0);
	fake_answer_finish(&a);
	assert_string_equal(f->last_soon, event);
}

/* What changes something or shows content is on record before it is done; looks are not. */
static void test_channels_and_their_record(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	assert_opened(f, OP_VM_FILE_GET, vm, "files read accepted");
	assert_opened(f, OP_VM_FILE_PUT, vm, "files write accepted");
	assert_opened(f, OP_VM_FILE_MOVE, vm, "files move accepted");
	assert_opened(f, OP_VM_ARCHIVE_PUT, vm, "files unpack accepted");
	assert_opened(f, OP_VM_EXEC_GET, vm, "exec attach accepted");
	assert_opened(f, OP_VM_EXEC_SIGNAL, vm, "exec signal accepted");
	assert_opened(f, OP_VM_EXEC_DELETE, vm, "exec remove accepted");
	assert_opened(f, OP_VM_EXEC_LIST, vm, "none");
	assert_opened(f, OP_VM_CONSOLE, vm, "none");
	f->stream.code = -EAGAIN;
	vm_open(f, OP_VM_FILE_GET, vm, &a);
	fake_assert_code(&a, 429, "rate_limited");
	fake_answer_finish(&a);
	f->stream.code = -ENOTCONN;
	vm_open(f, OP_VM_CONSOLE, vm, &a);
	fake_assert_code(&a, 409, "vm_not_running");
	fake_answer_finish(&a);
	f->stream.code = 0;
	fake_stop(f, vm);
	vm_open(f, OP_VM_CONSOLE, vm, &a);
	fake_assert_code(&a, 409, "vm_not_running");
	fake_answer_finish(&a);
}

static void test_the_end_of_a_channel_is_on_record(void **state)
{
	struct fake *f = *state;
	uint64_t vm = fake_vm_create(f, "demo", NULL);
	unsigned before = f->events;
	struct msg_vm_closed m = {.key_hash = fake_hash(f), .op = OP_VM_FILE_GET, .vm = vm, .path = STR("/x"), .outcome = STR("done"), .received = 5};

	ipc_notify(f->api, MSG_TYPE_msg_vm_closed, &m, NULL, 0);
	for (int i = 0; i < 200 && f->events == before; i++)
		fake_wait_ms(f, 10);
	assert_string_equal(f->last_soon, "files read done");
	before = f->events;
	m.op = OP_VM_EXEC;
	m.exec = 77;
	m.outcome = STR("0");
	ipc_notify(f->api, MSG_TYPE_msg_vm_closed, &m, NULL, 0);
	for (int i = 0; i < 200 && f->events == before; i++)
		fake_wait_ms(f, 10);
	assert_string_equal(f->last_soon, "exec close 0");
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
	assert_int_equal(fake_show(f, vm, 0, &a), 200);
	fake_answer_finish(&a);
	assert_int_equal(fake_object(f, OP_VM_DELETE, vm, 0, true), 403);
	assert_int_equal(key_create(f, SCOPE_VM_ADMIN, 0, weak, &ignored), 403); /* no stronger than itself */
	assert_int_equal(key_create(f, SCOPE_VM_READ, 0, weak, &ignored), 201);
	fake_key_use(f, first);
	assert_int_equal(fake_object(f, OP_KEY_DELETE, 0, id, false), 204);
	assert_int_equal(fake_object(f, OP_KEY_DELETE, 0, id, false), 404);
	fake_key_use(f, key);
	fake_show(f, vm, 0, &a);
	fake_assert_code(&a, 401, "unauthorized");
	fake_answer_finish(&a);
	fake_key_use(f, "");
	assert_int_equal(fake_show(f, vm, 0, &a), 401);
	fake_answer_finish(&a);
	fake_key_use(f, first);
}

/* It was revoked while its file was on the way: the end is its workspace's all the same, and nobody else's. */
static void test_the_end_of_a_revoked_keys_channel_is_its_own(void **state)
{
	struct fake *f = *state;
	char key[64], first[64];
	uint64_t id, vm = fake_vm_create(f, "demo", NULL), workspace = f->last_workspace;

	memcpy(first, f->key, sizeof first);
	assert_int_equal(key_create(f, SCOPE_VM_RUN, 0, key, &id), 201);
	assert_int_equal(fake_object(f, OP_KEY_DELETE, 0, id, false), 204);
	fake_key_use(f, key);
	struct msg_vm_closed m = {.key_hash = fake_hash(f), .op = OP_VM_FILE_GET, .vm = vm, .path = STR("/x"), .outcome = STR("done")};
	struct msg_api_record call = {.key_hash = fake_hash(f), .op = OP_VM_FILE_GET, .status = 200, .method = STR("GET"), .path = STR("/x")};
	for (int i = 0; i < 2; i++) {
		unsigned before = f->events;
		f->last_workspace = f->last_key = 0;
		if (i == 0)
			ipc_notify(f->api, MSG_TYPE_msg_vm_closed, &m, NULL, 0);
		else
			ipc_notify(f->api, MSG_TYPE_msg_api_record, &call, NULL, 0);
		for (int k = 0; k < 200 && f->events == before; k++)
			fake_wait_ms(f, 10);
		assert_string_equal(f->last_soon, i == 0 ? "files read done" : "api VM_FILE_GET 200");
		assert_true(workspace != 0 && f->last_workspace == workspace);
		assert_int_equal(f->last_key, id);
	}
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
	struct msg_policy_put m = {
	        .key_hash = fake_hash(f), .op = vm ? OP_VM_POLICY_PUT : OP_POLICY_PUT, .vm = vm, .mode = mode};
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

static unsigned create_with_policy(struct fake *f, const char *name, const struct rec_rule *rule, struct fake_answer *a)
{
	_cleanup_(buf_finish) struct buf rules = {0};
	struct msg_vm_create m = {.key_hash = fake_hash(f), .op = OP_VM_CREATE, .name = str_of(name), .memory_mib = 512,
				  .egress_mode = 1};

	assert_int_equal(wire_list_add_record(&rules, &rec_rule_wire, rule), 0);
	m.rules = buf_str(&rules);
	return fake_call(f, MSG_TYPE_msg_vm_create, &m, a);
}

static void test_a_vm_is_born_with_its_policy(void **state)
{
	struct fake *f = *state;
	struct rec_rule rule = {.name = STR("own"), .host = STR("API.Example.com.")};
	struct rec_rule deny = {.host = STR("bad.example.com"), .action = 1},
	                bad = {.host = STR("x"), .cidr = STR("10.0.0.0/8")};
	_cleanup_(buf_finish) struct buf b = {0};
	struct fake_answer a;
	char key[64];
	uint64_t id;

	assert_int_equal(wire_encode(&rec_rule_wire, &deny, &b), 0);
	assert_int_equal(fake_rule_create(f, 0, "allowed", "example.org", NULL), 201);
	struct msg_rule_create m = {.key_hash = fake_hash(f), .op = OP_RULE_CREATE, .rule = buf_str(&b)};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_rule_create, &m, &a), 201);
	fake_answer_finish(&a);
	assert_int_equal(create_with_policy(f, "demo", &rule, &a), 201);
	fake_answer_finish(&a);
	fake_turn(f);
	/* it does not inherit: its own rule, and the workspace's deny */
	assert_int_equal(fake_worker_get(f)->rules, 2);
	assert_int_equal(fake_worker_get(f)->mode, 1);
	create_with_policy(f, "other", &bad, &a);
	fake_assert_code(&a, 422, "validation_error");
	assert_true(str_has_prefix(a.end.message, STR("egress.rules[0]")));
	fake_answer_finish(&a);
	/* who may not loosen egress may not do so by making a VM */
	assert_int_equal(key_create(f, SCOPE_VM_ADMIN, 0, key, &id), 201);
	fake_key_use(f, key);
	create_with_policy(f, "third", &rule, &a);
	fake_assert_code(&a, 403, "scope_missing");
	fake_answer_finish(&a);
	assert_true(fake_vm_create(f, "third", NULL) != 0);
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

static void add_large_rule(struct fake *f, unsigned i)
{
	_cleanup_(buf_finish) struct buf paths = {0}, b = {0};
	char path[1001], name[16];
	struct fake_answer a;

	for (unsigned k = 0; k < 30; k++) {
		snprintf(path, sizeof path, "/%03u/%0990u", k, i);
		wire_list_add_z(&paths, path);
	}
	snprintf(name, sizeof name, "large%u", i);
	struct rec_rule rule = {.name = str_of(name), .host = STR("example.com"), .paths = buf_str(&paths)};
	assert_int_equal(wire_encode(&rec_rule_wire, &rule, &b), 0);
	struct msg_rule_create m = {.key_hash = fake_hash(f), .op = OP_RULE_CREATE, .rule = buf_str(&b)};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_rule_create, &m, &a), 201);
	fake_answer_finish(&a);
}

/* More bytes of policy than a channel holds unsent: the doors take turns, and no worker is taken for dead. */
static void test_many_doors_and_large_policies(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	char name[16];

	for (unsigned i = 0; i < 160; i++)
		add_large_rule(f, i);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "vm%u", i);
		struct msg_vm_create m = {.key_hash = fake_hash(f), .op = OP_VM_CREATE, .name = str_of(name),
					  .memory_mib = 512, .egress_mode = 2, .egress_inherit = true};
		assert_int_equal(fake_call(f, MSG_TYPE_msg_vm_create, &m, &a), 201);
		fake_until_state(f, ((struct row_vm *)(void *)a.rows.v[0]->record)->id, VM_READY);
		fake_answer_finish(&a);
	}
	unsigned commits = fake_worker_get(f)->commits;
	assert_int_equal(put_mode(f, 0, 1), 200);
	assert_int_equal(fake_worker_get(f)->commits, commits + 4);
	assert_int_equal(fake_worker_get(f)->rules, 160);
	assert_int_equal(f->restarts, 0);
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
	fake_assert_code(&a, 422, "validation_error");
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

static void test_ready_names_who_is_silent(void **state)
{
	struct fake *f = *state;
	struct msg_page page = {.op = OP_READYZ}; /* without a key */
	struct fake_answer a;

	f->role_silent = true;
	fake_call(f, MSG_TYPE_msg_page, &page, &a);
	fake_assert_code(&a, 503, "unavailable");
	assert_true(str_eq(a.end.message, STR("iron-audit does not answer")));
	assert_int_equal(a.rows.n, 2);
	fake_answer_finish(&a);
	page.op = OP_HEALTHZ;
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 200);
	fake_answer_finish(&a);
	page.op = OP_HOST;
	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &page, &a), 401);
	fake_answer_finish(&a);
}

/* Without a key: no client of the API can send it. */
static void test_metrics(void **state)
{
	struct fake *f = *state;
	struct fake_answer a;
	unsigned states = 0, hosts = 0, roles = 0, indexes = 0;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_metrics_get, &(struct msg_metrics_get){}, &a), 200);
	for (size_t i = 0; i < a.rows.n; i++) {
		const struct row_vm_count *vms = (void *)a.rows.v[i]->record;
		const enum msg_type type = a.rows.v[i]->type;
		assert_false(type == MSG_TYPE_row_vm_count && VM_STATE_BIT(vms->state) & VM_STATES_GONE);
		states += type == MSG_TYPE_row_vm_count;
		hosts += type == MSG_TYPE_row_host;
		indexes += type == MSG_TYPE_row_index;
		roles += type == MSG_TYPE_row_role;
	}
	assert_int_equal(a.rows.n, states + hosts + indexes + roles);
	assert_int_equal(states, VM_STATE_END - 1 - 2);
	assert_int_equal(hosts, 1);
	assert_int_equal(indexes, 1);
	assert_int_equal(roles, 2);
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

/* The journal keeps what the index forgets: what is old is not indexed, and what has become old goes. */
static void test_the_index_forgets(void **state)
{
	struct fake *f = *state;
	uint64_t workspace = ask_workspace(f);
	const struct record_open open_record = {.workspace = workspace, .host = STR("denied.example"), .protocol = PROTO_TLS,
						.verdict = VERDICT_DENIED};
	_cleanup_(buf_finish) struct buf payload = {0}, segment = {0};
	uint8_t header[SEGMENT_HEADER_SIZE];
	struct store_tx tx = {0};
	char path[80];

	fake_stop_control(f);
	assert_int_equal(store_begin(f->store, STORE_NORMAL, &tx), 0);
	assert_int_equal(store_index_put(f->store, 1, real_ms() - 2 * 86400000LL, RECORD_OPEN, &open_record), 0);
	assert_int_equal(store_index_advance(f->store, &(struct msg_audit_head){1, SEGMENT_HEADER_SIZE, 1}), 0);
	assert_int_equal(store_commit(&tx), 0);
	wire_encode(&record_open_wire, &open_record, &payload);
	segment_header_encode(&(struct segment_header){.number = 1, .first_seq = 2, .created_ns = 7}, header);
	buf_append(&segment, header, sizeof header);
	for (uint64_t i = 0; i < 2; i++) {
		struct segment_record r = {.seq = 2 + i, .time_ns = (real_ms() - (i ? 0 : 2 * 86400000LL)) * 1000000,
					   .type = RECORD_OPEN, .payload = buf_str(&payload)};
		assert_int_equal(segment_record_encode(&r, &segment), 0);
	}
	snprintf(path, sizeof path, "%s/journal", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(file_replace(path, "00000000000000000001.seg", buf_str(&segment), 0600), 0);
	f->segments = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->config.index_days = 1;
	fake_start_control(f);
	ipc_notify(f->audit, MSG_TYPE_msg_audit_head, &(struct msg_audit_head){1, segment.len, 3}, NULL, 0);
	struct msg_audit_head at = {0};
	for (int i = 0; i < 1000 && at.seq < 3; i++) {
		fake_turn(f);
		assert_int_equal(store_index_position(f->store, &at), 0);
	}
	for (uint64_t end = mono_ms() + 8000; count_events(f) != 1 && mono_ms() < end;)
		fake_turn(f);
	assert_int_equal(count_events(f), 1);
	close(f->segments);
	f->segments = -1;
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
		T(test_exec),
		T(test_channels_and_their_record),
		T(test_the_end_of_a_channel_is_on_record),
		T(test_the_end_of_a_revoked_keys_channel_is_its_own),
		T(test_keys),
		T(test_nothing_is_done_that_is_not_on_record),
		T(test_rules_reach_the_worker_before_the_answer),
		T(test_a_vm_is_born_with_its_policy),
		T(test_the_answer_waits_for_the_worker),
		T(test_a_worker_that_refuses_is_replaced),
		T(test_a_worker_that_is_silent_is_replaced),
		T(test_a_worker_that_died_gets_the_policy_again),
		T(test_many_doors_and_large_policies),
		T(test_lists_and_host),
		T(test_ready_names_who_is_silent),
		T(test_metrics),
		T(test_the_journal_is_followed_into_the_index),
		T(test_the_index_forgets),
		T(test_the_index_forgets),
		T(test_another_workspace_is_as_if_it_were_not_there),
		T(test_the_api_dies_while_it_waits),
		T(test_irond_goes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
