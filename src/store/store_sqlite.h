#pragma once
/* Inside the SQLite backend: the connection, statements, lists. Nothing outside src/store includes this.
 *
 * Two files: iron.db, whose every byte matters, and index.db (attached as `ix`), which can be built anew from the journal and
 * is when it is damaged. Statements are prepared once and kept by their text, of which there is a bounded number. */
#include <errno.h>
#include <sqlite3.h>

#include "base/map.h"
#include "store/store.h"

struct store {
	sqlite3 *db;
	bool in_tx;
	struct map statements; /* text → struct statement */
	unsigned nstatements;
	char *index_path;
};

/* SQLite's result as an errno. */
int store_error(struct store *s, int code);

/* --- one statement's run --- */

struct query {
	struct store *s;
	struct statement *statement;
	sqlite3_stmt *st;
	struct arena *a; /* where columns are copied to */
	int bound, column;
	int error; /* the first: binding or copying */
};

/* Begins a run; finish it in any case. */
int query_begin(struct store *s, const char *sql, struct arena *a, struct query *ret);
/* The same for a change: -ECANCELED outside of a transaction. */
int query_begin_write(struct store *s, const char *sql, struct query *ret);
void query_finish(struct query *q);

/* In the order of the question marks. */
void bind_i64(struct query *q, int64_t v);
void bind_str(struct query *q, struct str v);
void bind_blob(struct query *q, struct str v);
static inline void bind_u64(struct query *q, uint64_t v)
{
	bind_i64(q, (int64_t)v);
}
/* 0 becomes NULL. */
void bind_ref(struct query *q, uint64_t v);

/* 1: a row; 0: the end; -errno. */
int query_step(struct query *q);
/* For a statement without rows; ret_changed may be NULL. */
int query_run(struct query *q, unsigned *ret_changed);

/* The next column of the row. */
int64_t column_i64(struct query *q);
struct str column_str(struct query *q); /* text or blob, copied */
static inline uint64_t column_u64(struct query *q)
{
	return (uint64_t)column_i64(q);
}
static inline uint32_t column_u32(struct query *q)
{
	return (uint32_t)column_i64(q);
}
static inline uint8_t column_u8(struct query *q)
{
	return (uint8_t)column_i64(q);
}

/* --- a SELECT with filters --- */

#define SELECT_BINDS_MAX 24
struct select {
	struct buf text;
	struct {
		bool is_text;
		int64_t number;
		struct str text;
	} binds[SELECT_BINDS_MAX];
	unsigned n;
};
void select_finish(struct select *q);
void select_add(struct select *q, const char *text);
/* text with one question mark. The string is borrowed until query_begin_select. */
void select_i64(struct select *q, const char *text, int64_t v);
void select_str(struct select *q, const char *text, struct str v);
int query_begin_select(struct store *s, const struct select *q, struct arena *a, struct query *ret);

/* --- cursors: where a list goes on, bound to that list and its order --- */

enum cursor_list { CURSOR_KEYS = 1, CURSOR_VMS, CURSOR_RULES, CURSOR_IMAGES, CURSOR_EVENTS, CURSOR_GENERALS,
		   CURSOR_SESSIONS };
#define CURSOR_FIELDS(F, T)                                                                                            \
	F(T, u8, list, 0)                                                                                              \
	F(T, u8, sort, 0)                                                                                              \
	F(T, u8, order, 0)                                                                                             \
	F(T, u8, rank, 0)                                                                                              \
	F(T, i64, number, 0)                                                                                           \
	F(T, str, text, 63)                                                                                            \
	F(T, u64, id, 0)
WIRE_DECLARE(cursor, CURSOR_FIELDS);

/* Text of at most 255 bytes in the arena. -ENOMEM. */
int cursor_format(const struct cursor *c, struct arena *a, struct str *ret);
/* -EINVAL unless it is a cursor of this list, sort and order. An empty text: *ret_given is false. ret->text borrows from a. */
int cursor_parse(struct str text, enum cursor_list list, uint8_t sort, uint8_t order, struct arena *a,
		 struct cursor *ret, bool *ret_given);

/* An array in the arena that grows. Returns room for one more element of `size`, NULL when the arena is full. */
void *rows_push(struct arena *a, void **v, size_t *n, size_t *cap, size_t size);

/* --- store_sqlite_scan.c: a part of the journal's index, in the journal's order --- */

enum scan_table_id { SCAN_EVENTS, SCAN_GENERALS };
struct scan {
	struct store *s;
	struct arena *a;
	enum scan_table_id table;
	size_t limit;
	uint8_t order; /* 1 asc, 2 desc; 0: desc, or asc with a since */
	int64_t since, until;
	/* Puts what the filters leave of after < seq <= to among what is found: scan_select, then for each row scan_has_room and
	 * scan_found. */
	int (*window)(struct scan *x, uint64_t after, uint64_t to, void *user);
	void *user;
	/* asc: what comes after `from` is still to be looked at, up to `to`; desc: up to `to`, down to `from` */
	uint64_t from, to;
	size_t n;
	uint64_t last;
	bool full; /* and there is one more */
};

/* What part of the journal the times leave, into from and to. The clock that stamped it may have been stepped: the bounds
 * are those of the first and last event in the order of time, which is what a reader by time can see. */
int scan_bounds(struct scan *x);
/* The next window that holds a row at all, by from, to and order. 1, or 0 at the end. */
int scan_next(struct scan *x, uint64_t *ret_after, uint64_t *ret_to);
/* sel, ordered and limited to what there is room for, and one more. */
int scan_select(struct scan *x, struct select *sel, struct query *ret);
bool scan_has_room(struct scan *x);
void scan_found(struct scan *x, uint64_t seq);
/* A page, from a cursor on (empty: the beginning). -EINVAL: the cursor. */
int scan_run(struct scan *x, struct str cursor, struct store_page *ret);

/* --- store_sqlite_schema.c --- */

int schema_migrate(struct store *s, struct error *reterr);
/* The index's tables, made when they are not there; -EUCLEAN when what is there is not theirs. */
int schema_index(struct store *s);

/* Several statements without parameters. */
int store_exec(struct store *s, const char *sql);
