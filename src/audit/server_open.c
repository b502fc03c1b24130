#include <errno.h>
#include <string.h>

#include "audit/server_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "codec/record.h"

#define SWEEP_BATCH 512

void opens_replay(const struct segment_record *record, void *server)
{
	struct audit_server *s = server;
	union {
		struct record_open open;
		struct record_progress progress;
		struct record_close close;
	} u;
	const struct wire_type *type = record_wire(record->type);

	if (record->type > RECORD_CLOSE || !type || wire_decode(type, record->payload, &u))
		return;
	if (record->type == RECORD_CLOSE) {
		openset_remove(&s->orphans, u.close.open_seq, NULL);
		return;
	}
	struct open_entry e = {.seq = record->seq};
	if (record->type == RECORD_OPEN) {
		e.workspace = u.open.workspace;
		e.opened_ms = record->time_ns / 1000000;
	} else {
		struct open_entry *known = openset_find(&s->orphans, u.progress.open_seq);
		if (known)
			e = *known;
		e.seq = u.progress.open_seq;
		e.sent = u.progress.bytes_sent;
		e.received = u.progress.bytes_received;
	}
	if (e.seq && s->orphans.n < AUDIT_OPEN_TOTAL_MAX)
		openset_put(&s->orphans, &e);
}

struct open_entry *opens_find(struct client *c, uint64_t seq)
{
	struct open_entry *e = openset_find(&c->open, seq);

	if (e || c->role != ROLE_EGRESS)
		return e;
	e = openset_find(&c->server->orphans, seq);
	if (!e || e->workspace != c->id)
		return NULL;
	struct open_entry adopted = *e;
	openset_remove(&c->server->orphans, seq, NULL);
	openset_put(&c->open, &adopted);
	c->server->nopen++;
	return openset_find(&c->open, seq);
}

static void move_all(struct openset *from, struct openset *to)
{
	struct open_entry *e;

	for (size_t i = 0; (e = openset_next(from, &i));)
		openset_put(to, e);
	openset_finish(from);
}

void opens_abandon(struct client *c)
{
	c->server->nopen -= c->open.n;
	if (c->server->ending) {
		openset_finish(&c->open);
		return;
	}
	move_all(&c->open, &c->server->ended);
	opens_sweep(c->server);
}

/* Appends the encoding of an aborted close. */
static int encode_aborted(const struct open_entry *e, int64_t now_ms, struct buf *out)
{
	int64_t ms = e->opened_ms && now_ms > e->opened_ms ? now_ms - e->opened_ms : 0;
	struct record_close close = {
		.open_seq = e->seq,
		.bytes_sent = e->sent,
		.bytes_received = e->received,
		.duration_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms,
		.outcome = CLOSE_ABORTED,
		.reason = STR("the worker that served it ended"),
	};

	return wire_encode(&record_close_wire, &close, out);
}

/* Up to SWEEP_BATCH of them. */
static int close_some(struct audit_server *s)
{
	_cleanup_(buf_finish) struct buf bytes = {0};
	struct audit_entry entries[SWEEP_BATCH];
	uint64_t seqs[SWEEP_BATCH], first;
	size_t ends[SWEEP_BATCH], n = 0, from = 0;
	struct open_entry *e;

	for (size_t i = 0; n < SWEEP_BATCH && (e = openset_next(&s->ended, &i)); n++) {
		encode_aborted(e, real_ms(), &bytes);
		seqs[n] = e->seq;
		ends[n] = bytes.len;
	}
	for (size_t i = 0; i < n; from = ends[i++])
		entries[i] = (struct audit_entry){RECORD_CLOSE, str_make(bytes.data + from, ends[i] - from)};
	int r = n ? audit_journal_append(s->journal, entries, n, &first) : 0;
	for (size_t i = 0; r == 0 && i < n; i++)
		openset_remove(&s->ended, seqs[i], NULL);
	return r;
}

void opens_sweep(struct audit_server *s)
{
	int r = 0;

	if (s->orphans.n && mono_ms() >= s->orphans_until_ms)
		move_all(&s->orphans, &s->ended);
	if (s->ended.n == 0)
		return;
	while (r == 0 && s->ended.n)
		r = close_some(s);
	if (r)
		log_limited(LOG_LEVEL_WARN, 1, "aborted connections are not on record yet", "code=%d left=%zu", r,
			    s->ended.n);
	server_tell_head(s);
}
