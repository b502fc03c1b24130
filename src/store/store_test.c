#include "store/store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int exec_raw(const char *dir, const char *sql)
{
	_cleanup_free_ char *path = xasprintf("%s/iron.db", dir);
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	int r = sqlite3_exec(db, sql, NULL, NULL, NULL);
	sqlite3_close(db);
	return r;
}

/* --- opening --- */

static void test_first_start_and_again(void **state)
{
	struct world *w = *state;
	struct store_workspace ws;
	uint64_t first = w->workspace;

	world_reopen(w);
	assert_true(w->workspace == first);
	assert_int_equal(store_workspace_get(w->store, first, &w->arena, &ws), 0);
	assert_str(ws.name, "default");
	assert_int_equal(ws.mode, MODE_ENFORCE);
	assert_int_equal(store_workspace_get(w->store, first + 1, &w->arena, &ws), -ENOENT);
}

static void test_newer_is_refused(void **state)
{
	struct world *w = *state;
	struct error error = {0};

	store_close(take_ptr(w->store));
	assert_int_equal(exec_raw(w->dir, "INSERT INTO migrations VALUES (9999, 'later', 0)"), SQLITE_OK);
	assert_int_equal(store_open(w->dir, &w->store, &error), -EPROTONOSUPPORT);
	assert_non_null(strstr(error.text, "newer iron"));
}

/* A start that was killed between two steps, or within one, goes on from there: a step and its mark are one transaction. */
static void test_migration_is_all_or_nothing(void **state)
{
	struct world *w = *state;
	struct error error = {0};

	store_close(take_ptr(w->store));
	remove_files(w->dir);
	assert_int_equal(mkdir(w->dir, 0700), 0);
	/* a table that the first step wants to make is there already: the step fails, and leaves nothing */
	assert_int_equal(exec_raw(w->dir, "CREATE TABLE images (x)"), SQLITE_OK);
	assert_true(store_open(w->dir, &w->store, &error) < 0);
	assert_null(w->store);
	assert_int_equal(exec_raw(w->dir, "SELECT * FROM vms"), SQLITE_ERROR);
	assert_int_equal(exec_raw(w->dir, "DROP TABLE images"), SQLITE_OK);
	world_open(w);
}

static void damage(const char *dir, const char *name, off_t at, size_t n)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
	char junk[4096];

	memset(junk, 0x5a, sizeof junk);
	assert_true(fd >= 0 && n <= sizeof junk);
	assert_int_equal(pwrite(fd, junk, n, at), (ssize_t)n);
}

static void test_damage_is_seen(void **state)
{
	struct world *w = *state;
	struct error error = {0};

	store_close(take_ptr(w->store));
	damage(w->dir, "iron.db", 4096, 4096);
	assert_int_equal(store_open(w->dir, &w->store, &error), -EUCLEAN);
	assert_null(w->store);
}

static void test_damaged_index_is_thrown_away(void **state)
{
	struct world *w = *state;
	struct msg_audit_head head = {.segment = 3, .offset = 128, .seq = 7};
	struct record_open e = {.workspace = w->workspace, .protocol = PROTO_TLS, .verdict = VERDICT_ALLOWED};

	assert_int_equal(WRITE(w, put_open(w->store, 7, &e)), 0);
	assert_int_equal(WRITE(w, store_index_advance(w->store, &head)), 0);
	world_reopen(w);
	assert_int_equal(store_index_position(w->store, &head), 0);
	assert_int_equal(head.seq, 7);
	store_close(take_ptr(w->store));
	damage(w->dir, "index.db", 0, 4096);
	world_open(w);
	assert_int_equal(store_index_position(w->store, &head), 0);
	assert_int_equal(head.seq, 0);
}

static void test_writing_needs_a_transaction(void **state)
{
	struct world *w = *state;
	struct store_tx tx = {0}, second = {0};

	assert_int_equal(store_workspace_set_mode(w->store, w->workspace, 1), -ECANCELED);
	assert_int_equal(store_rule_delete(w->store, w->workspace, 0, 1), -ECANCELED);
	assert_int_equal(store_begin(w->store, STORE_NORMAL, &tx), 0);
	assert_int_equal(store_begin(w->store, STORE_NORMAL, &second), -EALREADY);
	assert_int_equal(store_workspace_set_mode(w->store, w->workspace, 1), 0);
	store_tx_finish(&tx);
	struct store_workspace ws;
	assert_int_equal(store_workspace_get(w->store, w->workspace, &w->arena, &ws), 0);
	assert_int_equal(ws.mode, 0); /* rolled back */
	assert_int_equal(store_commit(&tx), -ECANCELED);
	assert_int_equal(WRITE(w, store_workspace_set_mode(w->store, w->workspace, 1)), 0);
	assert_int_equal(WRITE(w, store_workspace_set_mode(w->store, 12345, 1)), -ENOENT);
	assert_int_equal(WRITE(w, store_workspace_set_mode(w->store, w->workspace, 2)), -EINVAL);
}

/* A process that is killed right after commit has lost nothing, whatever the durability; one before it, everything. */
static void test_kill_after_commit(void **state)
{
	struct world *w = *state;
	uint64_t version = 0;

	store_close(take_ptr(w->store));
	for (int committed = 0; committed < 2; committed++) {
		pid_t pid = fork();
		if (pid == 0) {
			struct store_tx tx = {0};
			world_open(w);
			store_begin(w->store, STORE_NORMAL, &tx);
			for (int i = 0; i < 5; i++)
				store_policy_version_next(w->store, &version);
			if (committed)
				store_commit(&tx);
			_exit(0); /* nothing of the library's runs */
		}
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	world_open(w);
	assert_int_equal(WRITE(w, store_policy_version_next(w->store, &version)), 0);
	assert_int_equal(version, 6);
}

/* SQLite's syncs come by here. */
static unsigned syncs;

int fdatasync(int fd)
{
	syncs++;
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	syncs++;
	return (int)syscall(SYS_fsync, fd);
}

/* Keys and policy are on the disk when commit returns; a job's step waits for no disk. */
static void test_durability_is_what_was_asked_for(void **state)
{
	struct world *w = *state;
	uint64_t version;

	for (int i = 0; i < 6; i++) {
		enum store_durability d = i % 2 ? STORE_FULL : STORE_NORMAL;
		struct store_tx tx = {0};
		assert_int_equal(store_begin(w->store, d, &tx), 0);
		assert_int_equal(store_policy_version_next(w->store, &version), 0);
		syncs = 0;
		assert_int_equal(store_commit(&tx), 0);
		assert_int_equal(syncs > 0, d == STORE_FULL);
	}
}

/* --- keys --- */

static struct store_key key_of(struct world *w, uint64_t id, const char *name)
{
	return (struct store_key){.workspace = w->workspace,
				  .row = {.id = id, .name = str_of(name), .hint = STR("iron_live_ab…"), .scopes = 5,
					  .created_at = (int64_t)(1000 + id / 3), .expires_at = 99}};
}

static void test_keys(void **state)
{
	struct world *w = *state;
	struct store_key a = key_of(w, 7, "ci"), got;
	uint8_t hash[32] = {1, 2, 3}, other[32] = {4};

	assert_int_equal(WRITE(w, store_key_create(w->store, &a, hash)), 0);
	assert_int_equal(WRITE(w, store_key_create(w->store, &a, other)), -EEXIST);
	a.row.id = 8;
	assert_int_equal(WRITE(w, store_key_create(w->store, &a, hash)), -EEXIST);
	a.workspace = 1;
	assert_int_equal(WRITE(w, store_key_create(w->store, &a, other)), -ENOENT);

	assert_int_equal(store_key_find(w->store, hash, &w->arena, &got), 0);
	assert_true(got.row.id == 7 && got.row.scopes == 5 && got.row.expires_at == 99 && got.workspace == w->workspace);
	assert_str(got.row.name, "ci");
	assert_str(got.row.hint, "iron_live_ab…");
	assert_int_equal(got.row.key.len, 0);
	assert_int_equal(store_key_find(w->store, other, &w->arena, &got), -ENOENT);
	assert_int_equal(WRITE(w, store_key_touch(w->store, 7, 500)), 0);
	assert_int_equal(WRITE(w, store_key_touch(w->store, 7, 400)), 0);
	assert_int_equal(store_key_get(w->store, w->workspace, 7, &w->arena, &got), 0);
	assert_int_equal(got.row.last_used_at, 500);
	assert_int_equal(store_key_get(w->store, w->workspace + 1, 7, &w->arena, &got), -ENOENT);

	assert_int_equal(WRITE(w, store_key_revoke(w->store, w->workspace + 1, 7, 600)), -ENOENT);
	assert_int_equal(WRITE(w, store_key_revoke(w->store, w->workspace, 7, 600)), 0);
	assert_int_equal(WRITE(w, store_key_revoke(w->store, w->workspace, 7, 600)), -ENOENT);
	assert_int_equal(store_key_find(w->store, hash, &w->arena, &got), -ENOENT);
	assert_int_equal(store_key_find_any(w->store, hash, &w->arena, &got), 0);
	assert_true(got.row.id == 7 && got.workspace == w->workspace);
	assert_int_equal(store_key_find_any(w->store, other, &w->arena, &got), -ENOENT);
}

static void test_keys_pages(void **state)
{
	struct world *w = *state;
	struct msg_page q = {.limit = 3};
	struct store_keys page;
	size_t seen = 0;
	uint64_t last = UINT64_MAX;

	for (uint64_t i = 1; i <= 10; i++) {
		struct store_key k = key_of(w, i, "k");
		uint8_t hash[32] = {(uint8_t)i};
		assert_int_equal(WRITE(w, store_key_create(w->store, &k, hash)), 0);
	}
	do {
		assert_int_equal(store_keys_list(w->store, w->workspace, &q, &w->arena, &page), 0);
		for (size_t i = 0; i < page.n; i++, seen++) {
			assert_true(page.v[i].row.id < last); /* equal times: by id */
			last = page.v[i].row.id;
		}
		assert_int_equal(page.page.has_more, page.page.cursor.len > 0);
		q.cursor = page.page.cursor;
	} while (page.page.has_more);
	assert_int_equal(seen, 10);
}

/* --- VMs --- */

static struct store_vm vm_of(struct world *w, uint64_t id, const char *name)
{
	return (struct store_vm){.workspace = w->workspace, .state = VM_QUEUED, .public_key = STR("ssh-ed25519 AAAA me"),
				 .image = 3, .egress_mode = 2, .egress_inherit = true, .job = 1,
				 .row = {.id = id, .name = str_of(name), .image = STR("base"), .vcpus = 2, .memory_mib = 512,
					 .disk_gib = 10, .created_at = 100, .updated_at = 100}};
}

static void set_state(struct world *w, uint64_t id, enum vm_state to)
{
	struct store_vm vm;

	assert_int_equal(store_vm_lookup(w->store, id, &w->arena, &vm), 0);
	vm.state = to;
	assert_int_equal(WRITE(w, store_vm_update(w->store, &vm)), 0);
}

static void test_vm(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf labels = {0};
	struct store_vm vm = vm_of(w, 1, "demo"), got;
	struct str list, item;

	wire_list_add_z(&labels, "team=red=x");
	wire_list_add_z(&labels, "a=");
	vm.row.labels = buf_str(&labels);
	assert_int_equal(WRITE(w, store_vm_create(w->store, &vm)), 0);
	assert_int_equal(store_vm_get(w->store, w->workspace, 1, &w->arena, &got), 0);
	assert_int_equal(store_vm_get(w->store, w->workspace + 1, 1, &w->arena, &got), -ENOENT);
	assert_str(got.row.status, "pending");
	assert_str(got.row.status_detail, "queued");
	assert_str(got.public_key, "ssh-ed25519 AAAA me");
	assert_true(got.egress_inherit && got.egress_mode == 2 && got.job == 1 && got.image == 3);
	list = got.row.labels;
	assert_true(wire_list_next(&list, &item) && str_eq(item, STR("a=")));
	assert_true(wire_list_next(&list, &item) && str_eq(item, STR("team=red=x")));
	assert_false(wire_list_next(&list, &item));

	got.state = VM_FAILED;
	got.row.status_reason = STR("no room");
	got.row.generation = 4;
	got.row.updated_at = 200;
	got.egress_mode = 1;
	got.egress_inherit = false;
	assert_int_equal(WRITE(w, store_vm_update(w->store, &got)), 0);
	assert_int_equal(WRITE(w, store_vm_set_job(w->store, 1, 2, 9)), 0);
	assert_int_equal(WRITE(w, store_vm_set_labels(w->store, 1, STR_NONE)), 0);
	world_reopen(w);
	assert_int_equal(store_vm_lookup(w->store, 1, &w->arena, &got), 0);
	assert_str(got.row.status, "failed");
	assert_str(got.row.status_reason, "no room");
	assert_true(got.row.generation == 4 && got.row.updated_at == 200 && got.egress_mode == 1 && !got.egress_inherit);
	assert_true(got.job == 2 && got.job_step == 9 && got.row.labels.len == 0);
	vm.row.id = 77;
	assert_int_equal(WRITE(w, store_vm_update(w->store, &vm)), -ENOENT);
}

static void test_vm_names(void **state)
{
	struct world *w = *state;
	struct store_vm a = vm_of(w, 1, "demo"), b = vm_of(w, 2, "demo");

	assert_int_equal(WRITE(w, store_vm_create(w->store, &a)), 0);
	assert_int_equal(WRITE(w, store_vm_create(w->store, &b)), -EEXIST);
	set_state(w, 1, VM_DESTROYING); /* the name is free, and the VM is not found by accident */
	assert_int_equal(WRITE(w, store_vm_create(w->store, &b)), 0);
	struct store_vm got;
	assert_int_equal(store_vm_lookup(w->store, 1, &w->arena, &got), 0);
	got.state = VM_FAILED; /* and a gone one cannot come back to it */
	assert_int_equal(WRITE(w, store_vm_update(w->store, &got)), -EEXIST);
}

/* Walks all pages with `q`, making a VM between any two of them; returns how many came, and checks that none came twice. */
static size_t walk_vms(struct world *w, struct msg_vm_list *q, bool *seen, size_t nseen, bool concurrent)
{
	struct store_vms page;
	size_t n = 0;
	static uint64_t more = 100000;

	q->cursor = STR_NONE;
	do {
		assert_int_equal(store_vms_list(w->store, w->workspace, q, &w->arena, &page), 0);
		assert_true(page.n <= q->limit);
		for (size_t i = 0; i < page.n; i++) {
			uint64_t id = page.v[i].row.id;
			if (id >= nseen)
				continue;
			assert_false(seen[id]);
			seen[id] = true;
			n++;
		}
		q->cursor = page.page.cursor;
		if (concurrent) {
			char name[32];
			snprintf(name, sizeof name, "new%llu", (unsigned long long)more);
			struct store_vm vm = vm_of(w, more++, name);
			vm.row.created_at = 100 + (int64_t)(more % 40);
			assert_int_equal(WRITE(w, store_vm_create(w->store, &vm)), 0);
		}
	} while (page.page.has_more);
	return n;
}

#define MANY 60
static void make_many(struct world *w)
{
	for (uint64_t i = 1; i < MANY; i++) {
		char name[32];
		snprintf(name, sizeof name, "vm-%03llu", (unsigned long long)(i * 37 % MANY));
		struct store_vm vm = vm_of(w, i, name);
		vm.row.created_at = 100 + (int64_t)(i * 7 % 20); /* many alike */
		vm.row.updated_at = 100 + (int64_t)(i * 11 % 9);
		vm.state = (enum vm_state)(i % (VM_STATE_END - 1) + 1);
		assert_int_equal(WRITE(w, store_vm_create(w->store, &vm)), 0);
	}
}

static void test_vm_pages(void **state)
{
	struct world *w = *state;
	size_t expected = 0;

	make_many(w);
	for (uint64_t i = 1; i < MANY; i++)
		expected += !(VM_STATE_BIT(i % (VM_STATE_END - 1) + 1) & VM_STATES_GONE);
	for (uint8_t sort = 0; sort <= 3; sort++) {
		for (uint8_t order = 0; order <= 2; order++) {
			for (uint32_t limit = 1; limit <= 100; limit += 11) {
				bool seen[MANY] = {0};
				struct msg_vm_list q = {.sort = sort, .order = order, .limit = limit};
				assert_int_equal(walk_vms(w, &q, seen, MANY, limit > 1), expected);
			}
		}
	}
}

static int position_of(const struct store_vms *page, uint64_t id)
{
	for (size_t i = 0; i < page->n; i++)
		if (page->v[i].row.id == id)
			return (int)i;
	return -1;
}

static void test_vm_filters_and_order(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf labels = {0};
	struct msg_vm_list q = {.limit = 100};
	struct store_vms page;

	wire_list_add_z(&labels, "team=red");
	for (uint64_t i = 1; i <= 4; i++) {
		char name[8];
		snprintf(name, sizeof name, "v%llu", (unsigned long long)(5 - i));
		struct store_vm vm = vm_of(w, i, name);
		vm.row.created_at = (int64_t)i;
		vm.row.labels = i == 2 ? buf_str(&labels) : STR_NONE;
		vm.state = i == 4 ? VM_FAILED : i == 1 ? VM_DESTROYED : VM_READY;
		assert_int_equal(WRITE(w, store_vm_create(w->store, &vm)), 0);
	}
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	assert_int_equal(page.n, 3); /* without the destroyed one; alive first, newest first */
	assert_true(position_of(&page, 3) == 0 && position_of(&page, 2) == 1 && position_of(&page, 4) == 2);
	q = (struct msg_vm_list){.sort = 3, .limit = 100};
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	assert_true(position_of(&page, 4) == 0 && position_of(&page, 2) == 2);
	q = (struct msg_vm_list){.status = STR("destroyed")};
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	assert_true(page.n == 1 && page.v[0].row.id == 1);
	q = (struct msg_vm_list){.name = STR("v4")};
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	assert_true(page.n == 1 && page.v[0].row.id == 1);
	q = (struct msg_vm_list){.label_key = STR("team"), .label_value = STR("red")};
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	assert_true(page.n == 1 && page.v[0].row.id == 2);
	q = (struct msg_vm_list){.status = STR("running"), .status_detail = STR("failed")};
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	assert_int_equal(page.n, 0);
	q = (struct msg_vm_list){.status = STR("nonsense")};
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), -EINVAL);
	assert_int_equal(store_vms_in_states(w->store, VM_STATE_BIT(VM_READY) | VM_STATE_BIT(VM_DESTROYED), &w->arena, &page), 0);
	assert_int_equal(page.n, 3);

	struct store_usage usage;
	assert_int_equal(store_vm_usage(w->store, 0, VM_STATES_HOLDING_MEMORY, &usage), 0);
	assert_true(usage.vms == 2 && usage.vcpus == 4 && usage.memory_mib == 1024);
	assert_int_equal(store_vm_usage(w->store, w->workspace + 1, VM_STATES_HOLDING_MEMORY, &usage), 0);
	assert_int_equal(usage.vms, 0);
}

static void test_cursors_are_checked(void **state)
{
	struct world *w = *state;
	struct msg_vm_list q = {.limit = 1, .sort = 1};
	struct msg_rule_list rules = {.limit = 1};
	struct store_vms page;
	struct store_rules none;

	make_many(w);
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	struct str cursor = page.page.cursor;
	q.cursor = cursor;
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), 0);
	q.sort = 2; /* of another order */
	assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), -EINVAL);
	rules.cursor = cursor; /* of another list */
	assert_int_equal(store_rules_list(w->store, w->workspace, &rules, &w->arena, &none), -EINVAL);
	q.sort = 1;
	for (size_t i = 0; i < cursor.len; i++) { /* cut, and with every digit made none */
		_cleanup_free_ char *bad = str_dup(cursor);
		q.cursor = str_make(bad, i);
		assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), i == 0 ? 0 : -EINVAL);
		bad[i] = 'x';
		q.cursor = str_make(bad, cursor.len);
		assert_int_equal(store_vms_list(w->store, w->workspace, &q, &w->arena, &page), -EINVAL);
	}
}

/* --- rules, images --- */

static struct rec_rule rule_of(uint64_t id, const char *name, const char *host)
{
	return (struct rec_rule){.id = id, .name = str_of(name), .host = str_of(host), .created_at = (int64_t)(id / 4)};
}

static void test_rules(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf ports = {0}, paths = {0};
	struct rec_rule rule = rule_of(1, "api", "api.example.com"), got;
	struct store_vm vm = vm_of(w, 50, "demo");
	struct store_rules all;
	uint64_t n = 0;

	wire_list_add_u64(&ports, 443);
	wire_list_add_z(&paths, "/v1/*");
	rule.ports = buf_str(&ports);
	rule.paths = buf_str(&paths);
	rule.action = 1;
	rule.comment = STR("it's for the build");
	assert_int_equal(WRITE(w, store_vm_create(w->store, &vm)), 0);
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 0, &rule)), 0);
	assert_int_equal(store_rule_get(w->store, w->workspace, 0, 1, &w->arena, &got), 0);
	assert_true(str_eq(got.ports, rule.ports) && str_eq(got.paths, rule.paths) && got.action == 1 && got.workspace_wide);
	assert_str(got.comment, "it's for the build");
	rule.id = 2;
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 0, &rule)), -EEXIST);
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 50, &rule)), 0); /* a VM's names are its own */
	rule = rule_of(3, "", "a");
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 0, &rule)), 0);
	rule.id = 4; /* no name is not a name */
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 0, &rule)), 0);
	rule.id = 5;
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 51, &rule)), -ENOENT);
	assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace + 1, 50, &rule)), -ENOENT);
	assert_int_equal(store_rule_get(w->store, w->workspace, 0, 2, &w->arena, &got), -ENOENT);
	assert_int_equal(store_rule_get(w->store, w->workspace, 50, 2, &w->arena, &got), 0);
	assert_false(got.workspace_wide);

	assert_int_equal(store_rules_all(w->store, w->workspace, 0, &w->arena, &all), 0);
	assert_true(all.n == 3 && all.v[0].id == 1 && all.v[2].id == 4);
	assert_int_equal(store_rule_count(w->store, w->workspace, 50, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(WRITE(w, store_rule_delete(w->store, w->workspace, 0, 2)), -ENOENT);
	assert_int_equal(WRITE(w, store_rule_delete(w->store, w->workspace, 0, 1)), 0);
	assert_int_equal(WRITE(w, store_rules_delete_vm(w->store, 50)), 0);
	assert_int_equal(store_rule_count(w->store, w->workspace, 50, &n), 0);
	assert_int_equal(n, 0);
}

static void test_rules_pages(void **state)
{
	struct world *w = *state;

	for (uint64_t i = 1; i <= 30; i++) {
		char name[16];
		snprintf(name, sizeof name, "r%02llu", (unsigned long long)(i * 7 % 31));
		struct rec_rule rule = rule_of(i, name, i % 2 ? "a.example" : "b.example");
		assert_int_equal(WRITE(w, store_rule_create(w->store, w->workspace, 0, &rule)), 0);
	}
	for (uint8_t sort = 0; sort <= 2; sort++) {
		for (uint8_t order = 0; order <= 2; order++) {
			struct msg_rule_list q = {.limit = 4, .sort = sort, .order = order, .host = STR("a.example")};
			struct store_rules page;
			uint32_t seen = 0;
			do {
				assert_int_equal(store_rules_list(w->store, w->workspace, &q, &w->arena, &page), 0);
				for (size_t i = 0; i < page.n; i++) {
					assert_false(seen & (1U << page.v[i].id));
					seen |= 1U << page.v[i].id;
				}
				q.cursor = page.page.cursor;
			} while (page.page.has_more);
			assert_int_equal(__builtin_popcount(seen), 15);
		}
	}
	struct msg_rule_list by_name = {.limit = 2, .sort = 2};
	struct store_rules page;
	assert_int_equal(store_rules_list(w->store, w->workspace, &by_name, &w->arena, &page), 0);
	assert_true(page.n == 2 && str_eq(page.v[0].name, STR("r01")) && str_eq(page.v[1].name, STR("r02")));
}

static void test_images(void **state)
{
	struct world *w = *state;
	struct msg_image base = {.id = 1, .name = STR("base"), .hash = STR("aa"), .size_bytes = 5};
	struct msg_image mini = {.id = 2, .name = STR("mini")};
	struct msg_page q = {.limit = 1};
	struct store_images page;
	struct row_image got;
	uint64_t keep[] = {3};

	assert_int_equal(WRITE(w, store_image_put(w->store, &mini)), 0);
	assert_int_equal(WRITE(w, store_image_put(w->store, &base)), 0);
	assert_int_equal(store_images_list(w->store, &q, &w->arena, &page), 0);
	assert_true(page.n == 1 && page.page.has_more && page.v[0].id == 1);
	q.cursor = page.page.cursor;
	assert_int_equal(store_images_list(w->store, &q, &w->arena, &page), 0);
	assert_true(page.n == 1 && !page.page.has_more && page.v[0].id == 2);
	base.id = 3; /* built anew */
	base.hash = STR("bb");
	base.created_at = 7;
	assert_int_equal(WRITE(w, store_image_put(w->store, &base)), 0);
	struct msg_image old = {.id = 1, .name = STR("base"), .hash = STR("aa"), .size_bytes = 5, .created_at = 6};
	assert_int_equal(WRITE(w, store_image_put(w->store, &old)), 0); /* told after the new one */
	assert_int_equal(store_image_find(w->store, STR("base"), &w->arena, &got), 0);
	assert_true(got.id == 3 && str_eq(got.hash, STR("bb")));
	assert_int_equal(store_image_get(w->store, 1, &w->arena, &got), 0);
	q.cursor = STR_NONE;
	q.limit = 10;
	assert_int_equal(store_images_list(w->store, &q, &w->arena, &page), 0);
	assert_true(page.n == 2 && page.v[0].id == 3);
	assert_int_equal(WRITE(w, store_images_retain(w->store, (uint64_t[]){1, 2}, 2)), 0);
	assert_int_equal(store_image_find(w->store, STR("base"), &w->arena, &got), 0);
	assert_true(got.id == 1);
	assert_int_equal(WRITE(w, store_image_put(w->store, &base)), 0);
	assert_int_equal(WRITE(w, store_images_retain(w->store, keep, 1)), 0);
	assert_int_equal(store_image_find(w->store, STR("mini"), &w->arena, &got), -ENOENT);
	assert_int_equal(WRITE(w, store_image_put(w->store, &mini)), 0);
	assert_int_equal(store_image_find(w->store, STR("mini"), &w->arena, &got), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_first_start_and_again),
		WORLD_TEST(test_newer_is_refused),
		WORLD_TEST(test_migration_is_all_or_nothing),
		WORLD_TEST(test_damage_is_seen),
		WORLD_TEST(test_damaged_index_is_thrown_away),
		WORLD_TEST(test_writing_needs_a_transaction),
		WORLD_TEST(test_kill_after_commit),
		WORLD_TEST(test_durability_is_what_was_asked_for),
		WORLD_TEST(test_keys),
		WORLD_TEST(test_keys_pages),
		WORLD_TEST(test_vm),
		WORLD_TEST(test_vm_names),
		WORLD_TEST(test_vm_pages),
		WORLD_TEST(test_vm_filters_and_order),
		WORLD_TEST(test_cursors_are_checked),
		WORLD_TEST(test_rules),
		WORLD_TEST(test_rules_pages),
		WORLD_TEST(test_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
