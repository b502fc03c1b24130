/* The index of the journal, written: egress events and general events, keyed by the sequence of the record that began
 * them. */
#include <stdio.h>

#include "store/store_sqlite.h"

#define EVENT_INSERT                                                                                                   \
	"INSERT OR IGNORE INTO ix.events (seq, time, workspace, vm, host, cidr, address, port, protocol, method, path,"\
	" closed, status, bytes_sent, bytes_received, duration_ms, outcome, verdict, mode, rule, secrets, reason)"     \
	" VALUES (?,?,?,?,?,?,?,?,?,?,?,?,0,0,0,0,0,?,?,?,?,?)"

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

static int position_number(struct store *s, const char *sql, int64_t *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, sql, NULL, &q);

	if (r == 0)
		r = query_step(&q);
	if (r <= 0)
		return r ? r : -EUCLEAN;
	*ret = column_i64(&q);
	return 0;
}

static int set_position_number(struct store *s, const char *sql, int64_t v)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, sql, &q);

	if (r)
		return r;
	bind_i64(&q, v);
	return query_run(&q, NULL);
}

int store_index_segment(struct store *s, int64_t *ret_created_ns)
{
	return position_number(s, "SELECT created FROM ix.position", ret_created_ns);
}

int store_index_set_segment(struct store *s, int64_t created_ns)
{
	return set_position_number(s, "UPDATE ix.position SET created = ?", created_ns);
}

int store_index_target(struct store *s, uint64_t *ret)
{
	int64_t target;
	int r = position_number(s, "SELECT target FROM ix.position", &target);

	if (r == 0)
		*ret = (uint64_t)target;
	return r;
}

int store_index_set_target(struct store *s, uint64_t seq)
{
	return set_position_number(s, "UPDATE ix.position SET target = ?", (int64_t)seq);
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
