/* What belongs to another workspace is not there: every operation, with every id of its. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/fake.h"
#include "control/request.h"

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

static bool on_key(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	char *key = arg;

	assert_non_null(m);
	snprintf(key, 64, "%s%.*s", IPC_RECORD(m, msg_result)->code ? "!" : "", STR_ARG(IPC_RECORD(m, msg_result)->reason));
	return true;
}

/* A key of the workspace, or "!" and why not. */
static void root_key(struct fake *f, const char *workspace, char ret[64])
{
	struct msg_root_key_create m = {.name = STR("root's"), .workspace = str_of(workspace)};

	ret[0] = '\0';
	assert_int_equal(ipc_call(f->irond, MSG_TYPE_msg_root_key_create, &m, NULL, 0, 0, on_key, ret), 0);
	for (int i = 0; i < 100 && !ret[0]; i++)
		fake_wait_ms(f, 20);
	assert_true(ret[0]);
}

static uint64_t my_key_id(struct fake *f)
{
	struct msg_page m = {.key_hash = fake_hash(f), .op = OP_ME};
	struct fake_answer a;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &m, &a), 200);
	uint64_t id = ((struct row_me *)(void *)a.rows.v[0]->record)->key;
	fake_answer_finish(&a);
	return id;
}

static void set_u64(const struct wire_type *t, void *record, const char *member, uint64_t value)
{
	for (size_t i = 0; i < t->n; i++)
		if (strcmp(t->fields[i].name, member) == 0 && t->fields[i].kind == WIRE_u64)
			memcpy((char *)record + t->fields[i].offset, &value, sizeof value);
}

/* Asks with ids of another workspace: the status. */
static unsigned ask(struct fake *f, const struct op_entry *entry, uint64_t vm, uint64_t id, struct fake_answer *a)
{
	_Alignas(16) char record[MSG_RECORD_MAX] = {0};
	const struct msg_info *info = msg_info_find((uint16_t)entry->type);
	struct msg_req *who = (void *)record;

	who->key_hash = fake_hash(f);
	who->op = (uint16_t)entry->op;
	set_u64(info->wire, record, "vm", vm);
	set_u64(info->wire, record, "id", id);
	return fake_call(f, entry->type, record, a);
}

static void test_no_operation_reaches_over(void **state)
{
	struct fake *f = *state;
	char mine[64], theirs[64];
	uint64_t rule, vm_rule;
	unsigned tried = 0;

	str_copy(str_of(f->key), mine, sizeof mine);
	uint64_t vm = fake_vm_create(f, "demo", NULL), key = my_key_id(f);
	assert_int_equal(fake_rule_create(f, 0, "w", "a.example", &rule), 201);
	assert_int_equal(fake_rule_create(f, vm, "v", "b.example", &vm_rule), 201);
	root_key(f, "team-b", theirs);
	fake_key_use(f, theirs);
	unsigned streams = f->streams, starts = f->starts, shutdowns = f->shutdowns;
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_entry *entry = op_entry_find(op);
		const char *path = op_info_get(op)->path;
		struct fake_answer a;
		if (!entry || (!strstr(path, "/:id") && !strstr(path, "/:rule") && !strstr(path, "/:key")))
			continue;
		uint64_t id = strstr(path, "/:key") ? key : strstr(path, "/:id") ? vm_rule : rule;
		unsigned status = ask(f, entry, strstr(path, "/:id") ? vm : 0, id, &a);
		if (status != 404)
			fail_msg("%s answered %u %.*s", op_info_get(op)->name, status, STR_ARG(a.end.message));
		assert_int_equal(a.rows.n, 0);
		fake_answer_finish(&a);
		tried++;
	}
	assert_true(tried > 15);
	assert_true(f->streams == streams && f->starts == starts && f->shutdowns == shutdowns);
	fake_key_use(f, mine);
	fake_assert_detail(f, vm, "running", "ready");
	assert_int_equal(fake_object(f, OP_VM_RULE_DELETE, vm, vm_rule, false), 204);
	assert_int_equal(fake_object(f, OP_RULE_DELETE, 0, rule, false), 204);
}

/* Lists that take no id hold nothing of another's, but for images and presets, which are everyone's. */
static void test_no_list_shows_it(void **state)
{
	struct fake *f = *state;
	char theirs[64];
	uint64_t vm = fake_vm_create(f, "demo", NULL);

	fake_rule_create(f, 0, "w", "a.example", NULL);
	root_key(f, "team-b", theirs);
	fake_key_use(f, theirs);
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_entry *entry = op_entry_find(op);
		const struct op_info *info = op_info_get(op);
		bool open = op == OP_IMAGE_LIST || op == OP_HOST || op == OP_ME || op == OP_KEY_LIST ||
			    op == OP_PRESET_LIST;
		struct fake_answer a;
		if (!entry || entry->open_to_all || open || strcmp(info->method, "GET") != 0 || strchr(info->path, ':'))
			continue;
		unsigned status = ask(f, entry, vm, 0, &a);
		if (status != 404 && (status != 200 || (a.rows.n && a.rows.v[0]->type != MSG_TYPE_row_policy)))
			fail_msg("%s answered %u with %zu rows", info->name, status, a.rows.n);
		fake_answer_finish(&a);
	}
}

static unsigned preset(struct fake *f, enum api_op op)
{
	struct msg_preset m = {.key_hash = fake_hash(f), .op = (uint16_t)op, .name = STR("npm")};
	struct fake_answer a;

	unsigned status = fake_call(f, MSG_TYPE_msg_preset, &m, &a);
	fake_answer_finish(&a);
	return status;
}

static size_t presets_added(struct fake *f)
{
	struct msg_page m = {.key_hash = fake_hash(f), .op = OP_PRESET_LIST};
	struct fake_answer a;
	size_t n = 0;

	assert_int_equal(fake_call(f, MSG_TYPE_msg_page, &m, &a), 200);
	for (size_t i = 0; i < a.rows.n; i++)
		n += ((const struct row_preset *)(void *)a.rows.v[i]->record)->added;
	fake_answer_finish(&a);
	return n;
}

static void test_what_presets_add_is_the_workspaces_own(void **state)
{
	struct fake *f = *state;
	char mine[64], theirs[64];

	str_copy(str_of(f->key), mine, sizeof mine);
	assert_int_equal(preset(f, OP_PRESET_ADD), 200);
	root_key(f, "team-b", theirs);
	fake_key_use(f, theirs);
	assert_int_equal(presets_added(f), 0);
	assert_int_equal(preset(f, OP_PRESET_REMOVE), 404);
	assert_int_equal(preset(f, OP_PRESET_ADD), 200);
	assert_int_equal(preset(f, OP_PRESET_REMOVE), 204);
	fake_key_use(f, mine);
	assert_int_equal(presets_added(f), 1);
}

static void test_names_of_workspaces(void **state)
{
	struct fake *f = *state;
	char first[64], again[64], bad[64];
	uint64_t mine = fake_vm_create(f, "demo", NULL);

	root_key(f, "team-b", first);
	root_key(f, "team-b", again);
	root_key(f, "no such-Name", bad);
	assert_int_equal(bad[0], '!');
	root_key(f, "default", bad); /* the one there is */
	fake_key_use(f, bad);
	fake_assert_detail(f, mine, "running", "ready");
	fake_key_use(f, first);
	uint64_t vm = fake_vm_create(f, "demo", NULL); /* a name is a workspace's own */
	assert_true(vm != 0 && vm != mine);
	fake_key_use(f, again);
	fake_assert_detail(f, vm, "running", "ready");
	fake_stop_control(f);
	fake_start_control(f);
	fake_assert_detail(f, vm, "running", "ready");
}

/* Each in a window of its own (store_sqlite_scan.c), of which a turn's 10 ms hold a small part. */
#define SUMMED 30000
#define APART ((uint64_t)1 << 14)

static void fill_index(struct fake *f)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	char host[32];

	assert_int_equal(store_begin(f->store, STORE_NORMAL, &tx), 0);
	for (uint64_t seq = 1; seq <= SUMMED; seq++) {
		snprintf(host, sizeof host, "h%u.example.com", (unsigned)seq);
		struct record_open e = {.workspace = 1, .vm = 1, .host = str_of(host), .protocol = 2};
		assert_int_equal(store_index_put(f->store, seq * APART, (int64_t)seq, RECORD_OPEN, &e), 0);
	}
	assert_int_equal(store_index_advance(f->store, &(struct msg_audit_head){1, 1, SUMMED * APART}), 0);
	assert_int_equal(store_commit(&tx), 0);
}

static void ask_summary(struct fake *f, struct fake_answer *ret)
{
	struct msg_summary_get m = {.key_hash = fake_hash(f), .op = OP_AUDIT_SUMMARY};

	fake_ask(f, MSG_TYPE_msg_summary_get, &m, ret);
}

static void assert_limited(struct fake *f, struct fake_answer *a, const char *message)
{
	fake_until(f, &a->done);
	fake_assert_code(a, 429, "rate_limited");
	assert_true(str_eq(a->end.message, str_of(message)));
	assert_true(a->end.retry_after_s > 0);
	fake_answer_finish(a);
}

/* One of a workspace and four in all are counted at once. */
static void test_summaries_are_few(void **state)
{
	struct fake *f = *state;
	struct fake_answer a[5], more;
	char keys[5][64], name[16];

	fill_index(f);
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof name, "team-%d", i);
		root_key(f, name, keys[i]);
	}
	/* all are there before the loop turns */
	for (int i = 0; i < 5; i++) {
		fake_key_use(f, keys[i]);
		ask_summary(f, &a[i]);
	}
	fake_key_use(f, keys[0]);
	ask_summary(f, &more);
	assert_limited(f, &a[4], "a summary is being counted for too many others; try again when it is through");
	assert_limited(f, &more, "a summary is being counted for this workspace already; try again when it is through");
	for (int i = 0; i < 4; i++) {
		fake_until(f, &a[i].done);
		assert_int_equal(a[i].end.status, 200);
		fake_answer_finish(&a[i]);
	}
	ask_summary(f, &more);
	fake_until(f, &more.done);
	assert_int_equal(more.end.status, 200);
	fake_answer_finish(&more);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_no_operation_reaches_over),
		T(test_no_list_shows_it),
		T(test_what_presets_add_is_the_workspaces_own),
		T(test_names_of_workspaces),
		T(test_summaries_are_few),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
