#include "store/store_sqlite.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"

#define BUSY_TIMEOUT_MS 5000
#define STATEMENTS_MAX 256
/* A larger index is not read through at every start: what is damaged shows when it is used. */
#define INDEX_CHECK_BYTES ((off_t)64 << 20)

struct statement {
	sqlite3_stmt *st;
	bool busy, kept;
};

int store_error(struct store *s, int code)
{
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_CONSTRAINT:
		return code == SQLITE_CONSTRAINT_FOREIGNKEY ? -ENOENT :
		       code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY ? -EEXIST : -EINVAL;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_TOOBIG:
		return -EMSGSIZE;
	case SQLITE_IOERR:
		return s->db && sqlite3_system_errno(s->db) == ENOSPC ? -ENOSPC : -EIO;
	default:
		return -EIO;
	}
}

int store_exec(struct store *s, const char *sql)
{
	return store_error(s, sqlite3_exec(s->db, sql, NULL, NULL, NULL));
}

static void statement_free(struct statement *p)
{
	sqlite3_finalize(p->st);
	free(p);
}

static int statement_get(struct store *s, const char *sql, struct statement **ret)
{
	struct statement *p = map_get_str(&s->statements, str_of(sql));

	if (p && !p->busy) {
		*ret = p;
		return 0;
	}
	bool keep = !p && s->nstatements < STATEMENTS_MAX;
	p = xcalloc(1, sizeof *p);
	int r = sqlite3_prepare_v3(s->db, sql, -1, keep ? SQLITE_PREPARE_PERSISTENT : 0, &p->st, NULL);
	if (r != SQLITE_OK) {
		statement_free(p);
		return store_error(s, r);
	}
	p->kept = keep;
	if (keep) {
		map_put_str(&s->statements, str_of(sql), p);
		s->nstatements++;
	}
	*ret = p;
	return 0;
}

int query_begin(struct store *s, const char *sql, struct arena *a, struct query *ret)
{
	struct query q = {.s = s, .a = a};
	int r = statement_get(s, sql, &q.statement);

	if (r)
		return r;
	q.st = q.statement->st;
	q.statement->busy = true;
	*ret = q;
	return 0;
}

int query_begin_write(struct store *s, const char *sql, struct query *ret)
{
	return s->in_tx ? query_begin(s, sql, NULL, ret) : -ECANCELED;
}

void query_finish(struct query *q)
{
	if (!q->statement)
		return;
	sqlite3_reset(q->st);
	sqlite3_clear_bindings(q->st);
	q->statement->busy = false;
	if (!q->statement->kept)
		statement_free(q->statement);
	q->statement = NULL;
}

static void bound(struct query *q, int code)
{
	if (code != SQLITE_OK && !q->error)
		q->error = store_error(q->s, code);
}

void bind_i64(struct query *q, int64_t v)
{
	bound(q, sqlite3_bind_int64(q->st, ++q->bound, v));
}

void bind_str(struct query *q, struct str v)
{
	bound(q, sqlite3_bind_text64(q->st, ++q->bound, v.p ? v.p : "", v.len, SQLITE_TRANSIENT, SQLITE_UTF8));
}

void bind_blob(struct query *q, struct str v)
{
	bound(q, sqlite3_bind_blob64(q->st, ++q->bound, v.p ? v.p : "", v.len, SQLITE_TRANSIENT));
}

void bind_ref(struct query *q, uint64_t v)
{
	if (v)
		bind_u64(q, v);
	else
		bound(q, sqlite3_bind_null(q->st, ++q->bound));
}

int query_step(struct query *q)
{
	if (q->error)
		return q->error;
	q->column = 0;
	int r = sqlite3_step(q->st);
	return r == SQLITE_ROW ? 1 : store_error(q->s, r);
}

int query_run(struct query *q, unsigned *ret_changed)
{
	int r = query_step(q);

	if (r == 0 && ret_changed)
		*ret_changed = (unsigned)sqlite3_changes(q->s->db);
	return r < 0 ? r : 0;
}

int64_t column_i64(struct query *q)
{
	return sqlite3_column_int64(q->st, q->column++);
}

struct str column_str(struct query *q)
{
	const void *p = sqlite3_column_blob(q->st, q->column);
	int n = sqlite3_column_bytes(q->st, q->column++);

	if (n <= 0)
		return STR_NONE;
	struct str s = arena_str(q->a, str_make(p, (size_t)n));
	if (!s.p && !q->error)
		q->error = -ENOMEM;
	return s;
}

int store_begin(struct store *s, enum store_durability durability, struct store_tx *ret)
{
	if (s->in_tx)
		return -EALREADY;
	const char *how = durability == STORE_FULL ? "PRAGMA main.synchronous=FULL" : "PRAGMA main.synchronous=NORMAL";
	int r = store_exec(s, how);
	if (r == 0)
		r = store_exec(s, "BEGIN IMMEDIATE");
	if (r)
		return r;
	s->in_tx = true;
	ret->store = s;
	return 0;
}

int store_commit(struct store_tx *tx)
{
	if (!tx->store)
		return -ECANCELED;
	int r = store_exec(tx->store, "COMMIT");
	if (r == 0)
		take_ptr(tx->store)->in_tx = false;
	else
		store_tx_finish(tx);
	return r;
}

void store_tx_finish(struct store_tx *tx)
{
	struct store *s = take_ptr(tx->store);

	if (!s)
		return;
	/* SQLite rolls back by itself after some errors; then there is nothing left to end */
	if (!sqlite3_get_autocommit(s->db))
		store_exec(s, "ROLLBACK");
	s->in_tx = false;
}

static int check(struct store *s, const char *pragma)
{
	sqlite3_stmt *st = NULL;
	int r = sqlite3_prepare_v2(s->db, pragma, -1, &st, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_step(st);
	bool ok = r == SQLITE_ROW && str_eq(str_of((const char *)sqlite3_column_text(st, 0)), STR("ok"));
	sqlite3_finalize(st);
	return ok ? 0 : r == SQLITE_ROW ? -EUCLEAN : store_error(s, r);
}

static int configure(struct store *s)
{
	int r = sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);

	if (r == SQLITE_OK)
		r = sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	if (r == SQLITE_OK)
		r = sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
	sqlite3_extended_result_codes(s->db, 1);
	return r != SQLITE_OK ? store_error(s, r) :
				store_exec(s, "PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON; PRAGMA cell_size_check=ON;"
					      "PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=67108864;");
}

static int index_attach(struct store *s, const char *path)
{
	struct query q = {0};
	int r = query_begin(s, "ATTACH ? AS ix", NULL, &q);

	if (r == 0)
		bind_str(&q, str_of(path));
	if (r == 0)
		r = query_run(&q, NULL);
	query_finish(&q);
	if (r)
		return r;
	struct stat st;
	bool small = stat(path, &st) < 0 || st.st_size < INDEX_CHECK_BYTES;
	r = store_exec(s, "PRAGMA ix.journal_mode=WAL; PRAGMA ix.synchronous=NORMAL; PRAGMA ix.cache_size=-16384");
	if (r == 0 && small)
		r = check(s, "PRAGMA ix.quick_check(1)");
	return r ? r : schema_index(s);
}

static int index_unlink(const char *path)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};

	for (unsigned i = 0; i < ARRAY_SIZE(suffixes); i++) {
		_cleanup_free_ char *file = xasprintf("%s%s", path, suffixes[i]);
		if (unlink(file) < 0 && errno != ENOENT)
			return -errno;
	}
	return 0;
}

/* What the index holds can be had again from the journal; so one that cannot be used is thrown away. */
static int index_open(struct store *s, const char *location, struct error *reterr)
{
	s->index_path = xasprintf("%s/index.db", location);
	int r = index_attach(s, s->index_path);

	if (r == -EUCLEAN) {
		store_exec(s, "DETACH ix"); /* it may not have come so far */
		r = index_unlink(s->index_path);
		if (r == 0)
			r = index_attach(s, s->index_path);
	}
	return r ? error_set(reterr, r, "%s: %s", s->index_path, sqlite3_errmsg(s->db)) : 0;
}

/* A statement that was prepared keeps the database from being detached. -EBUSY: one runs. */
static int statements_drop(struct store *s)
{
	struct map_slot *slot;

	for (size_t i = 0; map_next(&s->statements, &i, &slot);)
		if (((const struct statement *)slot->value)->busy)
			return -EBUSY;
	for (size_t i = 0; map_next(&s->statements, &i, &slot);)
		statement_free(slot->value);
	map_finish(&s->statements);
	s->nstatements = 0;
	return 0;
}

int store_index_reset(struct store *s)
{
	int r = s->in_tx ? -EALREADY : statements_drop(s);

	if (r)
		return r;
	store_exec(s, "DETACH ix"); /* an earlier try may have ended after it */
	r = index_unlink(s->index_path);
	return r ? r : index_attach(s, s->index_path);
}

static int make_default_workspace(struct store *s)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store_workspace w;

	int r = store_workspace_default(s, &a, &w);
	if (r != -ENOENT)
		return r;
	w = (struct store_workspace){.id = id_random(), .name = STR("default"), .created_at = real_ms()};
	r = store_begin(s, STORE_FULL, &tx);
	if (r == 0)
		r = store_workspace_create(s, &w);
	return r ? r : store_commit(&tx);
}

static int open_main(struct store *s, const char *location, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/iron.db", location);
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
	int r = store_error(s, sqlite3_open_v2(path, &s->db, flags, NULL));

	if (r == 0)
		r = configure(s);
	if (r == 0)
		r = check(s, "PRAGMA main.integrity_check(1)");
	if (r)
		return error_set(reterr, r, "%s: %s", path,
				 r == -EUCLEAN ? "the database is damaged; restore it from a backup" :
				 s->db	       ? sqlite3_errmsg(s->db) :
						 "cannot be opened");
	return 0;
}

int store_open(const char *location, struct store **ret, struct error *reterr)
{
	struct store *s = xcalloc(1, sizeof *s);
	int r = open_main(s, location, reterr);

	if (r == 0)
		r = schema_migrate(s, reterr);
	if (r == 0)
		r = index_open(s, location, reterr);
	if (r == 0) {
		r = make_default_workspace(s);
		if (r)
			error_set(reterr, r, "the first workspace: %s", sqlite3_errmsg(s->db));
	}
	if (r) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	struct map_slot *slot;
	for (size_t i = 0; map_next(&s->statements, &i, &slot);)
		statement_free(slot->value);
	map_finish(&s->statements);
	sqlite3_close(s->db);
	free(s->index_path);
	free(s);
}
