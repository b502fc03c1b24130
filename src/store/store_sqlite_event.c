/* The index of the journal: egress events and general events, keyed by the sequence of the record that began them.
 *
 * A list of events is read in windows of sequence numbers, in journal order, until the page is full or the call has looked
 * long enough: so a filter that matches little cannot hold iron-control up, and the cursor is always the place in the
 * journal that was reached. */
#include <stdio.h>

#include "base/clock.h"
#include "store/store_sqlite.h"

#define EVENTS_DEFAULT 50
#define WINDOW ((uint64_t)1 << 20)
#define LOOK_MS 100
#define EVENT_COLUMNS                                                                                                  \
	"SELECT seq, time, vm, host, cidr, address, port, protocol, method, path, closed, status, bytes_sent,"         \
	" bytes_received, duration_ms, verdict, mode, rule, secrets, reason FROM ix.events WHERE seq > ?"
#define EVENT_INSERT                                                                                                   \
	"INSERT OR IGNORE INTO ix.events (seq, time, workspace, vm, host, cidr, address, port, protocol, method, path,"\
	" closed, status, bytes_sent, bytes_received, duration_ms, outcome, verdict, mode, rule, secrets, reason)"     \
	" VALUES (?,?,?,?,?,?,?,?,?,?,?,?,0,0,0,0,0,?,?,?,?,?)"
#define ORDER_ASC 1
#define ORDER_DESC 2

int store_index_position(struct store *s, struct msg_audit_head *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT segment, offset, seq FROM ix.position", NULL, &q);

	if (r == 0)
		r = query_step(&q);
	if (r <= 0)
		return r ? r : -EUCLEAN;
	uint64_t segment = column_u64(&q), offset = column_u64(&q);
	*ret = (struct msg_audit_head){.segment = segment, .offset = offset, .seq = column_u64(&q)};
	return 0;
}

int store_index_advance(struct store *s, const struct msg_audit_head *position)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "UPDATE ix.position SET segment = ?, offset = ?, seq = ?", &q);

	if (r)
		return r;
	bind_u64(&q, position->segment);
	bind_u64(&q, position->offset);
	bind_u64(&q, position->seq);
	return query_run(&q, NULL);
}

int store_index_reset(struct store *s)
{
	if (!s->in_tx)
		return -ECANCELED;
	return store_exec(s, "DELETE FROM ix.events; DELETE FROM ix.generals;"
			     "UPDATE ix.position SET segment = 0, offset = 0, seq = 0");
}

/* An event as it stands when it is judged; `closed` for what has no end of its own. */
static int put_event(struct store *s, uint64_t seq, int64_t time_ms, const struct record_open *e, bool closed)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, EVENT_INSERT, &q);

	if (r)
		return r;
	bind_u64(&q, seq);
	bind_i64(&q, time_ms);
	bind_u64(&q, e->workspace);
	bind_u64(&q, e->vm);
	bind_str(&q, e->host);
	bind_str(&q, e->cidr);
	bind_str(&q, e->address);
	bind_i64(&q, e->port);
	bind_i64(&q, e->protocol);
	bind_str(&q, e->method);
	bind_str(&q, e->path);
	bind_i64(&q, closed);
	bind_i64(&q, e->verdict);
	bind_i64(&q, e->mode);
	bind_u64(&q, e->rule);
	bind_blob(&q, e->secrets);
	bind_str(&q, e->reason);
	return query_run(&q, NULL);
}

static int put_progress(struct store *s, const struct record_progress *p)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "UPDATE ix.events SET bytes_sent = max(bytes_sent, ?), bytes_received ="
				  " max(bytes_received, ?) WHERE seq = ? AND closed = 0",
				  &q);

	if (r)
		return r;
	bind_u64(&q, p->bytes_sent);
	bind_u64(&q, p->bytes_received);
	bind_u64(&q, p->open_seq);
	return query_run(&q, NULL);
}

/* A worker that was thought dead may close after all: its word replaces the assumption (8: CLOSE_ABORTED). */
static int put_close(struct store *s, const struct record_close *c)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "UPDATE ix.events SET closed = 1, bytes_sent = ?, bytes_received = ?, duration_ms = ?,"
				  " status = ?, outcome = ?, address = iif(? <> '', ?, address),"
				  " reason = iif(? <> '', ?, reason)"
				  " WHERE seq = ? AND (closed = 0 OR outcome = 8)",
				  &q);

	if (r)
		return r;
	bind_u64(&q, c->bytes_sent);
	bind_u64(&q, c->bytes_received);
	bind_i64(&q, c->duration_ms);
	bind_i64(&q, c->status);
	bind_i64(&q, c->outcome);
	bind_str(&q, c->address);
	bind_str(&q, c->address);
	bind_str(&q, c->reason);
	bind_str(&q, c->reason);
	bind_u64(&q, c->open_seq);
	return query_run(&q, NULL);
}

/* "A example.com: nxdomain, 3 times". */
static int put_dns(struct store *s, uint64_t seq, int64_t time_ms, const struct record_dns *d)
{
	char reason[128];
	bool refused = str_eq(d->answer, STR("refused")) || str_eq(d->answer, STR("nxdomain"));
	int n = snprintf(reason, sizeof reason, "type %u: %.*s, %u time%s", d->qtype, STR_ARG(d->answer), d->count,
			 d->count == 1 ? "" : "s");
	struct record_open e = {.vm = d->vm, .workspace = d->workspace, .host = d->name, .port = 53, .protocol = PROTO_DNS,
				.verdict = refused ? VERDICT_DENIED : VERDICT_ALLOWED,
				.reason = str_make(reason, n > 0 ? (size_t)n : 0)};

	return put_event(s, seq, time_ms, &e, true);
}

static int put_drop(struct store *s, uint64_t seq, int64_t time_ms, const struct record_drop *d)
{
	char reason[128];
	int n = snprintf(reason, sizeof reason, "%u packet%s dropped: %.*s", d->count, d->count == 1 ? "" : "s",
			 STR_ARG(d->reason));
	struct record_open e = {.vm = d->vm, .workspace = d->workspace, .host = d->address, .address = STR_NONE,
				.port = d->port, .protocol = d->protocol, .verdict = VERDICT_DENIED,
				.reason = str_make(reason, n > 0 ? MIN((size_t)n, sizeof reason - 1) : 0)};

	return put_event(s, seq, time_ms, &e, true);
}

static int put_general(struct store *s, uint64_t seq, int64_t time_ms, const struct record_event *e)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "INSERT OR IGNORE INTO ix.generals (seq, time, workspace, vm, key, kind, action, address,"
				  " outcome, detail) VALUES (?,?,?,?,?,?,?,?,?,?)",
				  &q);

	if (r)
		return r;
	bind_u64(&q, seq);
	bind_i64(&q, time_ms);
	bind_u64(&q, e->workspace);
	bind_u64(&q, e->vm);
	bind_u64(&q, e->key);
	bind_str(&q, e->kind);
	bind_str(&q, e->action);
	bind_str(&q, e->address);
	bind_str(&q, e->outcome);
	bind_str(&q, e->detail);
	return query_run(&q, NULL);
}

int store_index_put(struct store *s, uint64_t seq, int64_t time_ms, uint16_t type, const void *record)
{
	switch (type) {
	case RECORD_OPEN:
		return put_event(s, seq, time_ms, record, false);
	case RECORD_PROGRESS:
		return put_progress(s, record);
	case RECORD_CLOSE:
		return put_close(s, record);
	case RECORD_DNS:
		return put_dns(s, seq, time_ms, record);
	case RECORD_DROP:
		return put_drop(s, seq, time_ms, record);
	case RECORD_EVENT:
		return put_general(s, seq, time_ms, record);
	default:
		return 0;
	}
}

static int trim(struct store *s, const char *sql, int64_t before_ms, unsigned most, uint64_t *total)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s, sql, &q);

	if (r)
		return r;
	bind_i64(&q, before_ms);
	bind_i64(&q, most);
	r = query_run(&q, &changed);
	*total += changed;
	return r;
}

int store_index_trim(struct store *s, int64_t before_ms, unsigned most, uint64_t *ret_n)
{
	uint64_t n = 0;
	int r = trim(s,
		     "DELETE FROM ix.events WHERE seq IN"
		     " (SELECT seq FROM ix.events WHERE time < ? ORDER BY time LIMIT ?)",
		     before_ms, most, &n);

	if (r == 0 && n < most)
		r = trim(s,
			 "DELETE FROM ix.generals WHERE seq IN"
			 " (SELECT seq FROM ix.generals WHERE time < ? ORDER BY time LIMIT ?)",
			 before_ms, most - (unsigned)n, &n);
	if (r == 0)
		*ret_n = n;
	return r;
}

/* --- lists --- */

struct scan {
	struct store *s;
	uint64_t workspace;
	const struct msg_events_list *list;
	struct arena *a;
	size_t limit;
	bool asc;
	/* asc: events after `from` are still to be looked at, up to `to`; desc: those up to `to`, down to `from`. */
	uint64_t from, to;
	struct store_events found;
	size_t cap;
};

static int sequence(struct store *s, const char *sql, int64_t v, uint64_t otherwise, uint64_t *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, sql, NULL, &q);

	if (r)
		return r;
	bind_i64(&q, v);
	r = query_step(&q);
	if (r >= 0)
		*ret = r ? column_u64(&q) : otherwise;
	return r < 0 ? r : 0;
}

/* What part of the journal the times leave. The clock that stamped it may have been stepped: the bounds are those of the
 * first and last event in the order of time, which is what a reader by time can see. */
static int scan_bounds(struct scan *x)
{
	struct msg_audit_head position;
	uint64_t first = 1;
	int r = store_index_position(x->s, &position);

	x->from = 0;
	x->to = position.seq;
	if (r == 0 && x->list->since) {
		r = sequence(x->s, "SELECT seq FROM ix.events WHERE time >= ? ORDER BY time, seq LIMIT 1", x->list->since,
			     x->to + 1, &first);
		x->from = first - 1;
	}
	if (r == 0 && x->list->until && !x->asc)
		r = sequence(x->s, "SELECT seq FROM ix.events WHERE time <= ? ORDER BY time DESC, seq DESC LIMIT 1",
			     x->list->until, 0, &x->to);
	return r;
}

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

/* The filters that API.md names; see enum egress_verdict. */
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

/* The events of one window, one more than there is room for at most: then has_more is set. */
static int scan_window(struct scan *x, uint64_t after, uint64_t to)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_i64(&sel, EVENT_COLUMNS, (int64_t)after);
	select_i64(&sel, " AND seq <= ?", (int64_t)to);
	select_i64(&sel, " AND workspace = ?", (int64_t)x->workspace);
	add_filters(&sel, x->list);
	select_i64(&sel, x->asc ? " ORDER BY seq LIMIT ?" : " ORDER BY seq DESC LIMIT ?",
		   (int64_t)(x->limit - x->found.n + 1));
	int r = query_begin_select(x->s, &sel, x->a, &q);
	while (r == 0 && (r = query_step(&q)) > 0) {
		x->found.page.has_more = x->found.n == x->limit;
		if (x->found.page.has_more)
			break;
		struct row_event *e = rows_push(x->a, (void **)&x->found.v, &x->found.n, &x->cap, sizeof *e);
		r = e ? event_columns(&q, e) : -ENOMEM;
	}
	return r < 0 ? r : 0;
}

/* *ret_at: the place reached. */
static int scan_run(struct scan *x, uint64_t *ret_at)
{
	uint64_t started = mono_ms();
	int r = 0;

	while (r == 0 && x->from < x->to && !x->found.page.has_more) {
		if (mono_ms() - started > LOOK_MS) {
			x->found.page.has_more = true;
			*ret_at = x->asc ? x->from : x->to + 1;
			return 0;
		}
		uint64_t step = MIN(WINDOW, x->to - x->from);
		r = x->asc ? scan_window(x, x->from, x->from + step) : scan_window(x, x->to - step, x->to);
		if (x->asc)
			x->from += step;
		else
			x->to -= step;
	}
	/* full: the place is the last event; else everything was looked at */
	*ret_at = x->found.page.has_more ? x->found.v[x->found.n - 1].seq : x->asc ? x->to : 0;
	return r;
}

int store_events_list(struct store *s, uint64_t workspace, const struct msg_events_list *list, struct arena *a,
		      struct store_events *ret)
{
	uint8_t order = list->order ? list->order : list->since ? ORDER_ASC : ORDER_DESC;
	struct scan x = {.s = s, .workspace = workspace, .list = list, .a = a, .asc = order == ORDER_ASC,
			 .limit = list->limit ? list->limit : EVENTS_DEFAULT};
	struct cursor c;
	bool given = false;
	uint64_t at = 0;

	int r = list->verdict > 4 || list->allowed > 2 || list->mode > 2 || order > ORDER_DESC ? -EINVAL : 0;
	if (r == 0)
		r = cursor_parse(list->cursor, CURSOR_EVENTS, 0, order, a, &c, &given);
	if (r == 0 && given && (c.id == 0 || c.id > INT64_MAX) && !(x.asc && c.id == 0))
		r = -EINVAL;
	if (r == 0)
		r = scan_bounds(&x);
	if (r)
		return r;
	if (given && x.asc)
		x.from = MAX(x.from, c.id);
	else if (given)
		x.to = MIN(x.to, c.id - 1);
	/* nothing new: the cursor stays where it is, also when it is past what is indexed */
	uint64_t stay = x.asc && x.from > x.to ? (given ? c.id : x.to) : 0;
	r = scan_run(&x, &at);
	if (r)
		return r;
	if (x.asc || x.found.page.has_more) {
		c = (struct cursor){.list = CURSOR_EVENTS, .order = order, .id = stay ? stay : at};
		r = cursor_format(&c, a, &x.found.page.cursor);
	}
	if (r == 0)
		*ret = x.found;
	return r;
}

static int general_columns(struct query *q, struct store_general *ret)
{
	struct store_general g = {0};

	g.seq = column_u64(q);
	g.timestamp = column_i64(q);
	g.event.workspace = column_u64(q);
	g.event.vm = column_u64(q);
	g.event.key = column_u64(q);
	g.event.kind = column_str(q);
	g.event.action = column_str(q);
	g.event.address = column_str(q);
	g.event.outcome = column_str(q);
	g.event.detail = column_str(q);
	if (q->error)
		return q->error;
	*ret = g;
	return 0;
}

static void add_general_filters(struct select *sel, const struct store_generals_query *g)
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

static int generals_read(struct query *q, size_t limit, struct store_generals *ret)
{
	struct store_generals found = {0};
	size_t cap = 0;
	int r = 0;

	while (r == 0 && (r = query_step(q)) > 0) {
		found.page.has_more = found.n == limit;
		if (found.page.has_more)
			break;
		struct store_general *g = rows_push(q->a, (void **)&found.v, &found.n, &cap, sizeof *g);
		r = g ? general_columns(q, g) : -ENOMEM;
	}
	if (r == 0 || found.page.has_more)
		*ret = found;
	return r < 0 ? r : 0;
}

int store_generals_list(struct store *s, uint64_t workspace, const struct store_generals_query *g, struct arena *a,
			struct store_generals *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	uint8_t order = g->order ? g->order : g->since ? ORDER_ASC : ORDER_DESC;
	bool asc = order == ORDER_ASC, given = false;
	size_t limit = g->limit ? g->limit : EVENTS_DEFAULT;
	struct store_generals found = {0};
	struct msg_audit_head position;
	struct cursor c = {0};

	int r = cursor_parse(g->cursor, CURSOR_GENERALS, 0, order, a, &c, &given);
	if (r == 0)
		r = store_index_position(s, &position);
	if (r)
		return r;
	select_i64(&sel,
		   "SELECT seq, time, workspace, vm, key, kind, action, address, outcome, detail FROM ix.generals"
		   " WHERE workspace = ?",
		   (int64_t)workspace);
	add_general_filters(&sel, g);
	if (given)
		select_i64(&sel, asc ? " AND seq > ?" : " AND seq < ?", (int64_t)c.id);
	select_i64(&sel, asc ? " ORDER BY seq LIMIT ?" : " ORDER BY seq DESC LIMIT ?", (int64_t)limit + 1);
	r = query_begin_select(s, &sel, a, &q);
	if (r == 0)
		r = generals_read(&q, limit, &found);
	if (r == 0 && (asc || found.page.has_more)) {
		uint64_t at = found.page.has_more ? found.v[found.n - 1].seq : MAX(position.seq, c.id);
		c = (struct cursor){.list = CURSOR_GENERALS, .order = order, .id = at};
		r = cursor_format(&c, a, &found.page.cursor);
	}
	if (r == 0)
		*ret = found;
	return r;
}
