#include "audit/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/server_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "codec/record.h"

#define WAITING_MAX 4096 /* durable batches of one client */
#define SWEEP_S 1

/* --- to iron-control --- */

static void send_head(struct client *c)
{
	struct msg_audit_head head;

	audit_journal_head(c->server->journal, &head);
	ipc_notify(c->peer, MSG_TYPE_msg_audit_head, &head, NULL, 0);
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
	struct audit_server *s = arg;

	for (struct client *c = s->clients, *next; c; c = next) {
		next = c->next; /* a full queue closes the channel */
		if (c->role == ROLE_CONTROL)
			send_head(c);
	}
}

/* Once, after all that this turn of the loop brought. */
void server_tell_head(struct audit_server *s)
{
	if (!event_pending(s->told, EV_TIMEOUT, NULL))
		event_add(s->told, &(struct timeval){0});
}

/* --- acknowledging --- */

static void ack(struct client *c, uint32_t txn, int code, uint64_t first_seq, uint32_t count)
{
	struct msg_audit_ack a = {.code = code, .first_seq = code ? 0 : first_seq, .count = code ? 0 : count};

	if (code == -EDQUOT)
		a.vm = c->over_budget;
	ipc_reply(c->peer, txn, MSG_TYPE_msg_audit_ack, &a, NULL, 0);
}

static void wait_for_disk(struct client *c, uint32_t txn, uint64_t first_seq, uint32_t count)
{
	struct audit_server *s = c->server;
	struct waiting *w = xcalloc(1, sizeof *w);

	*w = (struct waiting){.client = c, .txn = txn, .first_seq = first_seq, .count = count};
	*s->waiting_end = w;
	s->waiting_end = &w->next;
	c->waiting++;
	audit_journal_sync(s->journal);
}

/* Answers all whose last record is at most `up_to`. */
static void answer_waiting(struct audit_server *s, uint64_t up_to, int code)
{
	struct waiting *w;

	while ((w = s->waiting) && w->first_seq + w->count - 1 <= up_to) {
		s->waiting = w->next;
		if (!s->waiting)
			s->waiting_end = &s->waiting;
		if (w->client) {
			w->client->waiting--;
			ack(w->client, w->txn, code, w->first_seq, w->count);
		}
		free(w);
	}
}

static void on_disk(evutil_socket_t fd, short what, void *arg)
{
	struct audit_server *s = arg;
	uint64_t failed_seq, synced;

	audit_journal_wakeup(s->journal);
	int code = audit_journal_sync_failed(s->journal, &failed_seq);
	synced = audit_journal_synced_seq(s->journal);
	if (code) {
		log_error("the journal could not be synced", "code=%d up_to=%llu", code, (unsigned long long)failed_seq);
		answer_waiting(s, failed_seq, code);
	}
	answer_waiting(s, synced, 0);
	code = audit_journal_health(s->journal);
	if (code)
		log_limited(LOG_LEVEL_ERROR, 1, "the next segment of the journal cannot be made: nothing passes", "code=%d",
			    code);
}

/* --- a batch --- */

union any_record {
	struct record_open open;
	struct record_progress progress;
	struct record_close close;
	struct record_dns dns;
	struct record_drop drop;
	struct record_event event;
};

static bool may_write(const struct client *c, uint16_t type)
{
	return c->role == ROLE_CONTROL ? type == RECORD_EVENT : type >= RECORD_OPEN && type <= RECORD_DROP;
}

/* Whose journal budget a record is charged to; -EPERM: another workspace's. */
static int owner_of(const struct client *c, uint16_t type, const union any_record *u, uint64_t *ret_vm)
{
	uint64_t workspace = c->id;

	*ret_vm = 0;
	if (type == RECORD_OPEN) {
		*ret_vm = u->open.vm;
		workspace = u->open.workspace;
	} else if (type == RECORD_DNS) {
		*ret_vm = u->dns.vm;
		workspace = u->dns.workspace;
	} else if (type == RECORD_DROP) {
		*ret_vm = u->drop.vm;
		workspace = u->drop.workspace;
	}
	return c->role == ROLE_EGRESS && workspace != c->id ? -EPERM : 0;
}

/* open_seq is the first field of progress and close alike. */
static void disown(struct audit_server *s, struct audit_entry *entry)
{
	static const uint8_t zero[8];

	/* the buffer was reserved for a whole batch: it does not move */
	const uint8_t *at = s->rewritten.data + s->rewritten.len;
	buf_append(&s->rewritten, zero, sizeof zero);
	buf_append(&s->rewritten, entry->payload.p + 8, entry->payload.len - 8);
	entry->payload = str_make(at, entry->payload.len);
	log_limited(LOG_LEVEL_WARN, 1, "the end of an open that is not the writer's", NULL);
}

/* One record of a batch: decoded, permitted, paid for. */
static int take_record(struct client *c, struct str item, struct audit_entry *ret, union any_record *ret_record)
{
	uint64_t vm;

	if (item.len < 2)
		return -EBADMSG;
	uint16_t type = (uint16_t)((uint8_t)item.p[0] | (uint8_t)item.p[1] << 8);
	struct str payload = str_make(item.p + 2, item.len - 2);
	const struct wire_type *wire = record_wire(type);
	if (!wire || !may_write(c, type) || wire_decode(wire, payload, ret_record))
		return -EBADMSG;
	int r = owner_of(c, type, ret_record, &vm);
	if (r == 0 && c->role == ROLE_EGRESS)
		r = budget_hold(&c->budget, vm, SEGMENT_FRAME_SIZE + payload.len, mono_ms());
	if (r == -EDQUOT)
		c->over_budget = vm;
	*ret = (struct audit_entry){.type = type, .payload = payload};
	if (r == 0 && type == RECORD_PROGRESS && !opens_find(c, ret_record->progress.open_seq))
		disown(c->server, ret);
	if (r == 0 && type == RECORD_CLOSE && !opens_find(c, ret_record->close.open_seq))
		disown(c->server, ret);
	return r;
}

/* Fills s->entries. *ret_opens: how many connections it opens. */
static int take_batch(struct client *c, struct str records, size_t *ret_n, size_t *ret_opens)
{
	struct audit_server *s = c->server;
	union any_record u;
	struct str item;
	size_t n = 0, opens = 0;
	int r = 0;

	buf_clear(&s->rewritten);
	buf_reserve(&s->rewritten, records.len);
	while (r == 0 && wire_list_next(&records, &item)) {
		if (n == AUDIT_BATCH_RECORDS_MAX)
			return -EMSGSIZE;
		r = take_record(c, item, &s->entries[n], &u);
		opens += s->entries[n++].type == RECORD_OPEN;
	}
	if (r)
		return r;
	*ret_n = n;
	*ret_opens = opens;
	return n ? 0 : -EBADMSG;
}

/* A worker is refused before the record is: what the disk has left is kept for the acts of people. */
static int may_append(struct client *c, size_t opens)
{
	if (c->open.n + opens > AUDIT_OPEN_MAX || c->server->nopen + opens > AUDIT_OPEN_TOTAL_MAX)
		return -EDQUOT;
	return c->role == ROLE_EGRESS ? audit_journal_health(c->server->journal) : 0;
}

/* What was written becomes part of what is open. */
static void track(struct client *c, size_t n, uint64_t first_seq)
{
	int64_t now = real_ms();
	union any_record u;

	for (size_t i = 0; i < n; i++) {
		const struct audit_entry *e = &c->server->entries[i];
		if (e->type > RECORD_CLOSE)
			continue;
		wire_decode(record_wire(e->type), e->payload, &u);
		if (e->type == RECORD_OPEN) {
			openset_put(&c->open,
				    &(struct open_entry){.seq = first_seq + i, .workspace = c->id, .opened_ms = now});
			c->server->nopen++;
		} else if (e->type == RECORD_PROGRESS) {
			struct open_entry *o = openset_find(&c->open, u.progress.open_seq);
			if (o) {
				o->sent = u.progress.bytes_sent;
				o->received = u.progress.bytes_received;
			}
		} else if (openset_remove(&c->open, u.close.open_seq, NULL)) {
			c->server->nopen--;
		}
	}
}

static int write_batch(struct client *c, struct str records, uint64_t *ret_first_seq, size_t *ret_n)
{
	size_t n = 0, opens = 0;

	c->over_budget = 0;
	int r = take_batch(c, records, &n, &opens);
	if (r == 0)
		r = may_append(c, opens);
	if (r == 0)
		r = audit_journal_append(c->server->journal, c->server->entries, n, ret_first_seq);
	budget_settle(&c->budget, r == 0);
	if (r)
		return r;
	track(c, n, *ret_first_seq);
	*ret_n = n;
	return 0;
}

static void on_batch(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct client *c = user;
	const struct msg_audit_batch *batch = IPC_RECORD(m, msg_audit_batch);
	uint64_t first_seq = 0;
	size_t n = 0;
	int r = batch->durable && c->waiting >= WAITING_MAX ? -EBUSY : write_batch(c, batch->records, &first_seq, &n);

	if (r) {
		log_limited(LOG_LEVEL_WARN, 2, "batch refused", "peer=%s code=%d", c->name, r);
		ack(c, m->txn, r, 0, 0);
		return;
	}
	server_tell_head(c->server);
	if (batch->durable)
		wait_for_disk(c, m->txn, first_seq, (uint32_t)n);
	else
		ack(c, m->txn, 0, first_seq, (uint32_t)n);
}

/* --- channels --- */

static void client_destroy(struct client *c)
{
	struct audit_server *s = c->server;

	for (struct waiting *w = s->waiting; w; w = w->next)
		if (w->client == c)
			w->client = NULL;
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	ipc_peer_destroy(c->peer);
	opens_abandon(c);
	budget_finish(&c->budget);
	free(c);
}

static void on_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct client *c = user;

	log_info("writer gone", "peer=%s reason=%s open=%zu", c->name, log_quote(reason), c->open.n);
	client_destroy(c);
}

int audit_server_peer(struct audit_server *s, enum role role, uint64_t id, int fd)
{
	static const struct ipc_rule rules[] = {{MSG_TYPE_msg_audit_batch, 0, IPC_REQUEST, on_batch}};

	if (role != ROLE_EGRESS && role != ROLE_CONTROL) {
		close(fd);
		return -EINVAL;
	}
	for (struct client *c = s->clients, *next; c; c = next) {
		next = c->next;
		if (c->role == role && c->id == id)
			client_destroy(c);
	}
	struct client *c = xcalloc(1, sizeof *c);
	*c = (struct client){.server = s, .role = role, .id = id, .budget = s->budget, .next = s->clients,
			     .prev = &s->clients};
	snprintf(c->name, sizeof c->name, "%s.%llu", role == ROLE_EGRESS ? "egress" : "control", (unsigned long long)id);
	c->peer = ipc_peer_create(s->base, fd, c->name, rules, ARRAY_SIZE(rules), on_closed, c);
	if (!c->peer) {
		free(c);
		return -ENOMEM;
	}
	if (c->next)
		c->next->prev = &c->next;
	s->clients = c;
	if (role == ROLE_CONTROL)
		send_head(c);
	return 0;
}

/* --- beginning and end --- */

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	opens_sweep(arg);
}

/* That the journal was opened is itself on record, and what was found behind its last record. */
static int record_start(struct audit_server *s, const struct audit_recovery *recovery)
{
	_cleanup_(buf_finish) struct buf payload = {0};
	char detail[128];
	uint64_t seq;

	snprintf(detail, sizeof detail, "{\"last_seq\":%llu,\"segment\":%llu,\"cut_bytes\":%llu}",
		 (unsigned long long)recovery->last_seq, (unsigned long long)recovery->segment,
		 (unsigned long long)recovery->cut_bytes);
	struct record_event e = {.kind = STR(EVENT_DAEMON), .action = STR("journal_opened"),
				 .outcome = recovery->cut_bytes ? STR("recovered") : STR("ok"), .detail = str_of(detail)};
	int r = wire_encode(&record_event_wire, &e, &payload);
	struct audit_entry entry = {RECORD_EVENT, buf_str(&payload)};
	return r ? r : audit_journal_append(s->journal, &entry, 1, &seq);
}

static int events_create(struct audit_server *s)
{
	s->disk = event_new(s->base, audit_journal_fd(s->journal), EV_READ | EV_PERSIST, on_disk, s);
	s->told = evtimer_new(s->base, on_tell, s);
	s->sweep = event_new(s->base, -1, EV_PERSIST, on_sweep, s);
	if (!s->disk || !s->told || !s->sweep)
		return -ENOMEM;
	event_add(s->disk, NULL);
	event_add(s->sweep, &(struct timeval){.tv_sec = SWEEP_S});
	return 0;
}

int audit_server_create(struct event_base *base, int dirfd, const struct audit_server_options *options,
			struct audit_server **ret, struct audit_recovery *ret_recovery, struct error *reterr)
{
	struct audit_server *s = xcalloc(1, sizeof *s);

	s->base = base;
	s->waiting_end = &s->waiting;
	s->rewritten = BUF_MAX(MSG_MAX);
	s->orphans_until_ms = mono_ms() + (options->orphan_ms ? options->orphan_ms : AUDIT_ORPHAN_MS);
	s->budget = BUDGET_DEFAULT;
	if (options->budget_burst_bytes)
		s->budget.burst_bytes = options->budget_burst_bytes;
	if (options->budget_bytes_per_s)
		s->budget.bytes_per_s = options->budget_bytes_per_s;
	int r = audit_journal_open(dirfd, &options->journal, opens_replay, s, &s->journal, ret_recovery, reterr);
	if (r == 0) {
		r = events_create(s);
		if (r == 0)
			r = record_start(s, ret_recovery);
		if (r)
			error_set(reterr, r, "journal: %s", strerror(-r));
	}
	if (r) {
		audit_server_destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}

void audit_server_destroy(struct audit_server *s)
{
	if (!s)
		return;
	s->ending = true;
	while (s->clients)
		client_destroy(s->clients);
	answer_waiting(s, UINT64_MAX, -EPIPE);
	struct event *const events[] = {s->disk, s->told, s->sweep};
	for (unsigned i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	audit_journal_close(s->journal);
	openset_finish(&s->orphans);
	openset_finish(&s->ended);
	buf_finish(&s->rewritten);
	free(s);
}
