/* Workspaces, the counter of policies, and keys. */
#include "store/store_sqlite.h"

#define KEYS_DEFAULT 50
#define KEY_COLUMNS_ANY                                                                                                \
	"SELECT id, workspace, name, hint, scopes, created_at, expires_at, last_used_at FROM keys WHERE "
#define KEY_COLUMNS KEY_COLUMNS_ANY "revoked_at = 0"

static int workspace_row(struct query *q, struct store_workspace *ret)
{
	int r = query_step(q);

	if (r <= 0)
		return r ? r : -ENOENT;
	struct store_workspace w = {
		.id = column_u64(q),
		.name = column_str(q),
		.mode = column_u8(q),
		.created_at = column_i64(q),
	};
	if (q->error)
		return q->error;
	*ret = w;
	return 0;
}

int store_workspace_default(struct store *s, struct arena *a, struct store_workspace *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT id, name, mode, created_at FROM workspaces ORDER BY created_at, id LIMIT 1", a, &q);

	return r ? r : workspace_row(&q, ret);
}

int store_workspace_get(struct store *s, uint64_t id, struct arena *a, struct store_workspace *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT id, name, mode, created_at FROM workspaces WHERE id = ?", a, &q);

	if (r)
		return r;
	bind_u64(&q, id);
	return workspace_row(&q, ret);
}

int store_workspace_find(struct store *s, struct str name, struct arena *a, struct store_workspace *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT id, name, mode, created_at FROM workspaces WHERE name = ?", a, &q);

	if (r)
		return r;
	bind_str(&q, name);
	return workspace_row(&q, ret);
}

int store_workspaces_all(struct store *s, struct arena *a, struct store_workspaces *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	struct store_workspaces all = {0};
	size_t cap = 0;
	int r = query_begin(s,
			    "SELECT id, name,"
			    " (SELECT count(*) FROM vms WHERE workspace = w.id AND state NOT IN (9, 10)),"
			    " (SELECT count(*) FROM vms WHERE workspace = w.id AND state IN (4, 5)),"
			    " (SELECT count(*) FROM keys WHERE workspace = w.id AND revoked_at = 0)"
			    " FROM workspaces w ORDER BY created_at, id",
			    a, &q);

	while (r == 0 && (r = query_step(&q)) > 0) {
		struct msg_root_workspace *w = rows_push(a, (void **)&all.v, &all.n, &cap, sizeof *w);
		if (!w)
			return -ENOMEM;
		*w = (struct msg_root_workspace){.id = column_u64(&q), .name = column_str(&q)};
		w->vms = column_u64(&q);
		w->running = column_u64(&q);
		w->keys = column_u64(&q);
		r = q.error;
	}
	if (r < 0)
		return r;
	*ret = all;
	return 0;
}

int store_workspace_create(struct store *s, const struct store_workspace *w)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "INSERT INTO workspaces (id, name, mode, created_at) VALUES (?, ?, ?, ?)", &q);

	if (r)
		return r;
	bind_u64(&q, w->id);
	bind_str(&q, w->name);
	bind_i64(&q, w->mode);
	bind_i64(&q, w->created_at);
	return query_run(&q, NULL);
}

int store_workspace_set_mode(struct store *s, uint64_t id, uint8_t mode)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s, "UPDATE workspaces SET mode = ? WHERE id = ?", &q);

	if (r)
		return r;
	bind_i64(&q, mode);
	bind_u64(&q, id);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_policy_version_next(struct store *s, uint64_t *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(
		s, "UPDATE counters SET value = value + 1 WHERE name = 'policy_version' RETURNING value", &q);

	if (r == 0)
		r = query_step(&q);
	if (r <= 0)
		return r ? r : -EUCLEAN;
	*ret = column_u64(&q);
	r = query_step(&q); /* the change holds when the statement has run to its end */
	return r < 0 ? r : 0;
}

int store_key_create(struct store *s, const struct store_key *key, const uint8_t hash[STORE_KEY_HASH_SIZE])
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "INSERT INTO keys (id, workspace, hash, name, hint, scopes, created_at, expires_at,"
				  " last_used_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
				  &q);

	if (r)
		return r;
	bind_u64(&q, key->row.id);
	bind_u64(&q, key->workspace);
	bind_blob(&q, str_make(hash, STORE_KEY_HASH_SIZE));
	bind_str(&q, key->row.name);
	bind_str(&q, key->row.hint);
	bind_i64(&q, key->row.scopes);
	bind_i64(&q, key->row.created_at);
	bind_i64(&q, key->row.expires_at);
	bind_i64(&q, key->row.last_used_at);
	return query_run(&q, NULL);
}

static int key_columns(struct query *q, struct store_key *ret)
{
	struct store_key k = {0};

	k.row.id = column_u64(q);
	k.workspace = column_u64(q);
	k.row.name = column_str(q);
	k.row.hint = column_str(q);
	k.row.scopes = column_u32(q);
	k.row.created_at = column_i64(q);
	k.row.expires_at = column_i64(q);
	k.row.last_used_at = column_i64(q);
	if (q->error)
		return q->error;
	*ret = k;
	return 0;
}

static int key_row(struct query *q, struct store_key *ret)
{
	int r = query_step(q);

	return r <= 0 ? (r ? r : -ENOENT) : key_columns(q, ret);
}

static int find_by_hash(struct store *s, const char *sql, const uint8_t *hash, struct arena *a, struct store_key *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, sql, a, &q);

	if (r)
		return r;
	bind_blob(&q, str_make(hash, STORE_KEY_HASH_SIZE));
	return key_row(&q, ret);
}

int store_key_find(struct store *s, const uint8_t hash[STORE_KEY_HASH_SIZE], struct arena *a, struct store_key *ret)
{
	return find_by_hash(s, KEY_COLUMNS " AND hash = ?", hash, a, ret);
}

int store_key_find_any(struct store *s, const uint8_t hash[STORE_KEY_HASH_SIZE], struct arena *a, struct store_key *ret)
{
	return find_by_hash(s, KEY_COLUMNS_ANY "hash = ?", hash, a, ret);
}

int store_key_get(struct store *s, uint64_t workspace, uint64_t id, struct arena *a, struct store_key *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, KEY_COLUMNS " AND workspace = ? AND id = ?", a, &q);

	if (r)
		return r;
	bind_u64(&q, workspace);
	bind_u64(&q, id);
	return key_row(&q, ret);
}

int store_key_touch(struct store *s, uint64_t id, int64_t now)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s, "UPDATE keys SET last_used_at = max(last_used_at, ?) WHERE id = ?", &q);

	if (r)
		return r;
	bind_i64(&q, now);
	bind_u64(&q, id);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_key_revoke(struct store *s, uint64_t workspace, uint64_t id, int64_t now)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s, "UPDATE keys SET revoked_at = ? WHERE workspace = ? AND id = ? AND revoked_at = 0", &q);

	if (r)
		return r;
	bind_i64(&q, now);
	bind_u64(&q, workspace);
	bind_u64(&q, id);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

static int keys_page(struct query *q, size_t limit, struct store_keys *ret)
{
	struct store_keys keys = {.v = arena_alloc(q->a, limit * sizeof *keys.v)};
	int r = 0;

	if (!keys.v)
		return -ENOMEM;
	while (r == 0 && (r = query_step(q)) > 0) {
		keys.page.has_more = keys.n == limit;
		if (keys.page.has_more)
			break;
		r = key_columns(q, &keys.v[keys.n]);
		keys.n += r == 0;
	}
	if (r < 0)
		return r;
	if (keys.page.has_more) {
		const struct row_key *last = &keys.v[keys.n - 1].row;
		struct cursor c = {.list = CURSOR_KEYS, .number = last->created_at, .id = last->id};
		r = cursor_format(&c, q->a, &keys.page.cursor);
		if (r)
			return r;
	}
	*ret = keys;
	return 0;
}

int store_keys_list(struct store *s, uint64_t workspace, const struct msg_page *page, struct arena *a,
		    struct store_keys *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	size_t limit = page->limit ? page->limit : KEYS_DEFAULT;
	struct cursor c;
	bool given;

	int r = cursor_parse(page->cursor, CURSOR_KEYS, 0, 0, a, &c, &given);
	if (r)
		return r;
	select_i64(&sel, KEY_COLUMNS " AND workspace = ?", (int64_t)workspace);
	if (page->name.len)
		select_str(&sel, " AND name = ?", page->name);
	if (given) {
		select_i64(&sel, " AND (created_at, id) < (?", c.number);
		select_i64(&sel, ", ?)", (int64_t)c.id);
	}
	select_i64(&sel, " ORDER BY created_at DESC, id DESC LIMIT ?", (int64_t)limit + 1);
	r = query_begin_select(s, &sel, a, &q);
	return r ? r : keys_page(&q, limit, ret);
}
