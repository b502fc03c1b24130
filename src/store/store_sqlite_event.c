/* The index of the journal, read: egress events, and everything else (general events). */
#include <stdio.h>

#include "store/store_sqlite.h"

#define EVENT_COLUMNS                                                                                                  \
	"SELECT seq, time, vm, host, cidr, address, port, protocol, method, path, closed, status, bytes_sent,"         \
	" bytes_received, duration_ms, verdict, mode, rule, secrets, reason FROM ix.events WHERE seq > ?"
/* What is in a general event's detail was written by iron itself; of a damaged one the rest is shown. */
#define GENERAL_COLUMNS                                                                                                \
	"SELECT seq, time, kind, action, vm, key,"                                                                     \
	" coalesce((SELECT k.name FROM main.keys k WHERE k.id = generals.key), ''), address,"                                         \
	" iif(json_valid(detail), coalesce(json_extract(detail, '$.client'), ''), ''), outcome,"                       \
	" iif(json_valid(detail), json_remove(detail, '$.client'), '{}') FROM ix.generals WHERE seq > ?"

/* --- egress --- */

struct event_scan {
	uint64_t workspace;
	const struct msg_events_list *list;
	struct store_events found;
	size_t cap;
};

static void add_host(struct select *sel, struct str host)
{
	char length[32];

	if (!str_has_prefix(host, STR("*.")) || host.len == 2) {
		select_str(sel, " AND host = ?", host);
		return;
	}
	struct str suffix = str_make(host.p + 1, host.len - 1), name = str_make(host.p + 2, host.len - 2);
	snprintf(length, sizeof length, "(host, -%zu)", suffix.len);
	select_str(sel, " AND (host = ? OR substr", name);
	select_add(sel, length);
	select_str(sel, " = ?)", suffix);
}

/* The filters of GET /audit/egress and of its summary; see enum egress_verdict. */
static void add_filters(struct select *sel, const struct msg_events_list *l)
{
	static const char *const verdicts[] = {"", " AND verdict = 1", " AND verdict IN (2, 3)", " AND verdict = 3",
					       " AND verdict = 2"};
	static const char *const allowed[] = {"", " AND verdict = 2", " AND verdict <> 2"};

	if (l->vm)
		select_i64(sel, " AND vm = ?", (int64_t)l->vm);
	select_add(sel, verdicts[l->verdict]);
	select_add(sel, allowed[l->allowed]);
	if (l->mode)
		select_i64(sel, " AND mode = ?", l->mode - 1);
	if (l->protocol)
		select_i64(sel, " AND protocol = ?", l->protocol);
	else
		select_i64(sel, " AND protocol <> ?", PROTO_DNS);
	if (l->host.len)
		add_host(sel, l->host);
	if (l->cidr.len)
		select_str(sel, " AND cidr = ?", l->cidr);
	if (l->since)
		select_i64(sel, " AND time >= ?", l->since);
	if (l->until)
		select_i64(sel, " AND time <= ?", l->until);
}

static int event_columns(struct query *q, struct row_event *ret)
{
	struct row_event e = {0};

	e.seq = column_u64(q);
	e.timestamp = column_i64(q);
	e.vm = column_u64(q);
	e.host = column_str(q);
	e.cidr = column_str(q);
	e.address = column_str(q);
	e.port = (uint16_t)column_i64(q);
	e.protocol = column_u8(q);
	e.method = column_str(q);
	e.path = column_str(q);
	e.closed = column_i64(q);
	e.status = (uint16_t)column_i64(q);
	e.bytes_sent = column_u64(q);
	e.bytes_received = column_u64(q);
	e.duration_ms = column_u32(q);
	e.verdict = column_u8(q);
	e.mode = column_u8(q);
	e.rule = column_u64(q);
	e.secrets = column_str(q);
	e.reason = column_str(q);
	if (q->error)
		return q->error;
	*ret = e;
	return 0;
}

static int event_window(struct scan *x, uint64_t after, uint64_t to, void *user)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	struct event_scan *e = user;

	select_i64(&sel, EVENT_COLUMNS, (int64_t)after);
	select_i64(&sel, " AND seq <= ?", (int64_t)to);
	select_i64(&sel, " AND workspace = ?", (int64_t)e->workspace);
	add_filters(&sel, e->list);
	int r = scan_select(x, &sel, &q);
	while (r == 0 && (r = query_step(&q)) > 0 && scan_has_room(x)) {
		struct row_event *row = rows_push(x->a, (void **)&e->found.v, &e->found.n, &e->cap, sizeof *row);
		r = row ? event_columns(&q, row) : -ENOMEM;
		if (r == 0)
			scan_found(x, row->seq);
	}
	return r < 0 ? r : 0;
}

int store_events_list(struct store *s, uint64_t workspace, const struct msg_events_list *list, struct arena *a,
		      struct store_events *ret)
{
	struct event_scan e = {.workspace = workspace, .list = list};
	struct scan x = {.s = s, .a = a, .table = SCAN_EVENTS, .limit = list->limit, .order = list->order,
			 .since = list->since, .until = list->until, .window = event_window, .user = &e};

	if (list->verdict > 4 || list->allowed > 2 || list->mode > 2)
		return -EINVAL;
	int r = scan_run(&x, list->cursor, &e.found.page);
	if (r == 0)
		*ret = e.found;
	return r;
}

/* --- everything else --- */

struct general_scan {
	uint64_t workspace;
	bool daemons;
	const struct msg_generals_list *list;
	struct store_generals found;
	size_t cap;
};

static int general_columns(struct query *q, struct row_general *ret)
{
	struct row_general g = {0};

	g.seq = column_u64(q);
	g.timestamp = column_i64(q);
	g.kind = column_str(q);
	g.action = column_str(q);
	g.vm = column_u64(q);
	g.key = column_u64(q);
	g.key_name = column_str(q);
	g.address = column_str(q);
	g.client = column_str(q);
	g.outcome = column_str(q);
	g.detail = column_str(q);
	if (q->error)
		return q->error;
	*ret = g;
	return 0;
}

static void add_general_filters(struct select *sel, const struct msg_generals_list *g)
{
	if (g->kind.len)
		select_str(sel, " AND kind = ?", g->kind);
	if (g->vm)
		select_i64(sel, " AND vm = ?", (int64_t)g->vm);
	if (g->key)
		select_i64(sel, " AND key = ?", (int64_t)g->key);
	if (g->since)
		select_i64(sel, " AND time >= ?", g->since);
	if (g->until)
		select_i64(sel, " AND time <= ?", g->until);
}

static int general_window(struct scan *x, uint64_t after, uint64_t to, void *user)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	struct general_scan *g = user;

	select_i64(&sel, GENERAL_COLUMNS, (int64_t)after);
	select_i64(&sel, " AND seq <= ?", (int64_t)to);
	select_i64(&sel, g->daemons ? " AND workspace IN (?, 0)" : " AND workspace = ?", (int64_t)g->workspace);
	add_general_filters(&sel, g->list);
	int r = scan_select(x, &sel, &q);
	while (r == 0 && (r = query_step(&q)) > 0 && scan_has_room(x)) {
		struct row_general *row = rows_push(x->a, (void **)&g->found.v, &g->found.n, &g->cap, sizeof *row);
		r = row ? general_columns(&q, row) : -ENOMEM;
		if (r == 0)
			scan_found(x, row->seq);
	}
	return r < 0 ? r : 0;
}

int store_generals_list(struct store *s, uint64_t workspace, bool daemons, const struct msg_generals_list *list,
			struct arena *a, struct store_generals *ret)
{
	struct general_scan g = {.workspace = workspace, .daemons = daemons, .list = list};
	struct scan x = {.s = s, .a = a, .table = SCAN_GENERALS, .limit = list->limit, .order = list->order,
			 .since = list->since, .until = list->until, .window = general_window, .user = &g};

	int r = scan_run(&x, list->cursor, &g.found.page);
	if (r == 0)
		*ret = g.found;
	return r;
}
