#include "egress/journal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/vec.h"

#define BATCH_BYTES 120000 /* below msg_audit_batch's bound, with room for one largest record */
#define BATCH_RECORDS 2048
#define ACK_TIMEOUT_MS 10000
#define REFUSED_MS 1000
#define UNANSWERED_BYTES ((size_t)4 << 20) /* of records: past them no connection is opened, whoever floods */
#define KEPT_CLOSES 4096
#define RETRIED_CLOSES 512 /* kept ones sent again, a second */
#define REFUSED_VMS 32

struct journal_entry {
	struct journal *journal;
	uint64_t vm, seq;
	bool written, failed, closed; /* closed: the owner is gone, the close waits in `close` for the sequence */
	journal_written *on_written;
	void *arg;
	struct buf close; /* the encoded close, with its sequence still to be filled in */
};

/* A record of a batch, and whom its acknowledgement concerns. */
struct item {
	uint64_t vm;
	struct journal_entry *entry; /* an open */
	struct str close;            /* an encoded close, kept until acknowledged: heap */
};

struct kept_close {
	uint64_t vm;
	struct str record; /* heap */
};

struct batch {
	struct journal *journal;
	struct buf records;
	VEC(struct item) items;
	int code; /* of a failed one */
	struct batch *next_failed;
};

struct journal {
	struct event_base *base;
	struct ipc_peer *peer;
	struct event *flush;
	struct batch *batch; /* being filled, or NULL */
	struct batch *spare; /* an empty one, with its memory */
	struct event *fail;
	struct batch *failed;
	struct kept_close kept[KEPT_CLOSES]; /* closes that no iron-audit has acknowledged */
	unsigned nkept;
	uint64_t refused_until_ms;
	size_t unanswered; /* bytes of the records in all batches */
	struct {
		uint64_t vm, until_ms;
	} refused[REFUSED_VMS]; /* over their budget of the journal */
	unsigned next_refused;
};

static void on_flush(evutil_socket_t fd, short what, void *arg);
static void on_fail(evutil_socket_t fd, short what, void *arg);

struct journal *journal_create(struct event_base *base)
{
	struct journal *j = xcalloc(1, sizeof *j);

	j->base = base;
	j->flush = event_new(base, -1, 0, on_flush, j);
	j->fail = event_new(base, -1, 0, on_fail, j);
	if (j->flush && j->fail)
		return j;
	journal_destroy(j);
	return NULL;
}

static void entry_free(struct journal_entry *e)
{
	buf_finish(&e->close);
	free(e);
}

static void batch_free(struct batch *b)
{
	buf_finish(&b->records);
	VEC_FINISH(&b->items);
	free(b);
}

/* Its items' closes are acknowledged, or moved away. */
static void batch_done(struct batch *b)
{
	struct journal *j = b->journal;

	for (size_t i = 0; i < b->items.n; i++)
		free((void *)(uintptr_t)b->items.v[i].close.p);
	b->items.n = 0;
	j->unanswered -= b->records.len;
	buf_clear(&b->records);
	if (j->spare)
		batch_free(b);
	else
		j->spare = b;
}

/* Nobody is told any more. */
static void batch_abandon(struct batch *b)
{
	for (size_t i = 0; i < b->items.n; i++)
		if (b->items.v[i].entry)
			entry_free(b->items.v[i].entry);
	batch_done(b);
}

void journal_destroy(struct journal *j)
{
	if (!j)
		return;
	if (j->batch)
		batch_abandon(take_ptr(j->batch));
	while (j->failed) {
		struct batch *b = j->failed;
		j->failed = b->next_failed;
		batch_abandon(b);
	}
	if (j->spare)
		batch_free(j->spare);
	for (unsigned i = 0; i < j->nkept; i++)
		free((void *)(uintptr_t)j->kept[i].record.p);
	if (j->flush)
		event_free(j->flush);
	if (j->fail)
		event_free(j->fail);
	free(j);
}

static bool is_writable(const struct journal *j, uint64_t vm)
{
	uint64_t now = mono_ms();

	for (unsigned i = 0; i < REFUSED_VMS; i++)
		if (j->refused[i].vm == vm && now < j->refused[i].until_ms)
			return false;
	return j->peer && ipc_peer_is_open(j->peer) && now >= j->refused_until_ms;
}

static void refuse_vm(struct journal *j, uint64_t vm)
{
	unsigned i = 0;

	while (i < REFUSED_VMS && j->refused[i].vm != vm)
		i++;
	if (i == REFUSED_VMS)
		i = j->next_refused++ % REFUSED_VMS;
	j->refused[i].vm = vm;
	j->refused[i].until_ms = mono_ms() + REFUSED_MS;
	log_limited(LOG_LEVEL_WARN, 1, "a VM is over its budget of the journal", "vm=%s", log_id("vm_", vm));
}

static struct batch *batch_create(struct journal *j)
{
	struct batch *b = j->spare ? take_ptr(j->spare) : xcalloc(1, sizeof *b);

	b->journal = j;
	return b;
}

/* Room for one more record of `len` bytes in the batch of this turn. */
static struct batch *batch_with_room(struct journal *j, size_t len)
{
	if (j->batch && (j->batch->records.len + len + 8 > BATCH_BYTES || j->batch->items.n == BATCH_RECORDS))
		on_flush(-1, 0, j);
	if (!j->batch) {
		j->batch = batch_create(j);
		event_active(j->flush, 0, 0);
	}
	return j->batch;
}

static void add(struct journal *j, struct str record, struct item item)
{
	struct batch *b = batch_with_room(j, record.len);
	size_t before = b->records.len;

	wire_list_add(&b->records, record);
	j->unanswered += b->records.len - before;
	VEC_PUSH(&b->items, item);
}

static int encode(enum record_type type, const void *record, struct buf *out)
{
	buf_append_u16(out, (uint16_t)type);
	int r = wire_encode(record_wire((uint16_t)type), record, out);
	return r ? r : out->failed ? -EMSGSIZE : 0;
}

/* The sequence is the first field after the type. */
static void patch_seq(struct buf *b, uint64_t seq)
{
	for (unsigned i = 0; i < 8; i++)
		b->data[2 + i] = (uint8_t)(seq >> (8 * i));
}

/* Takes the memory of `close`. Past the bound the oldest close is given up: iron-audit closes what it never heard of
 * again as aborted. */
static void keep_close(struct journal *j, uint64_t vm, struct str close)
{
	if (j->nkept == KEPT_CLOSES) {
		log_limited(LOG_LEVEL_WARN, 1, "close records given up: no journal", NULL);
		free((void *)(uintptr_t)j->kept[0].record.p);
		memmove(j->kept, j->kept + 1, (KEPT_CLOSES - 1) * sizeof j->kept[0]);
		j->nkept--;
	}
	j->kept[j->nkept++] = (struct kept_close){.vm = vm, .record = close};
}

static void send_close(struct journal *j, uint64_t vm, struct str close)
{
	if (is_writable(j, vm))
		add(j, close, (struct item){.vm = vm, .close = close});
	else
		keep_close(j, vm, close);
}

static void entry_finish(struct journal_entry *e)
{
	struct journal *j = e->journal;

	patch_seq(&e->close, e->seq);
	struct str close = buf_str(&e->close);
	uint64_t vm = e->vm;
	e->close = (struct buf){0};
	entry_free(e);
	send_close(j, vm, close);
}

static void entry_answered(struct journal_entry *e, int code, uint64_t seq)
{
	e->seq = code ? 0 : seq;
	e->written = code == 0;
	e->failed = code != 0;
	if (e->closed && e->written && e->close.len)
		entry_finish(e);
	else if (e->closed)
		entry_free(e);
	else if (e->on_written)
		e->on_written(e, code, e->arg);
}

/* Not acknowledged: opens fail, closes are kept for the next iron-audit. */
static void batch_failed(struct batch *b)
{
	struct journal *j = b->journal;

	for (size_t i = 0; i < b->items.n; i++) {
		struct item *item = &b->items.v[i];
		if (item->entry)
			entry_answered(item->entry, b->code, 0);
		if (item->close.p)
			keep_close(j, item->vm, item->close);
		item->close = STR_NONE;
	}
	batch_done(b);
}

static void on_fail(evutil_socket_t fd, short what, void *arg)
{
	struct journal *j = arg;

	while (j->failed) {
		struct batch *b = j->failed;
		j->failed = b->next_failed;
		batch_failed(b);
	}
}

/* Owners hear of a failure from the loop only: a channel can close under any call that sends on it, while somebody
 * walks the very connections that the owners would end. */
static void fail_later(struct batch *b, int code)
{
	struct journal *j = b->journal;
	struct batch **at = &j->failed;

	while (*at)
		at = &(*at)->next_failed;
	b->code = code;
	b->next_failed = NULL;
	*at = b;
	event_active(j->fail, 0, 0);
}

static void batch_written(struct batch *b, uint64_t first_seq)
{
	for (size_t i = 0; i < b->items.n; i++)
		if (b->items.v[i].entry)
			entry_answered(b->items.v[i].entry, 0, first_seq + i);
	batch_done(b);
}

/* One VM's records are refused; the others' go into the next batch. */
static void batch_without(struct batch *b, uint64_t vm)
{
	struct journal *j = b->journal;
	struct batch *refused = batch_create(j);
	struct str records = buf_str(&b->records), record;

	refuse_vm(j, vm);
	for (size_t i = 0; i < b->items.n && wire_list_next(&records, &record); i++) {
		struct item item = b->items.v[i];
		b->items.v[i].close = STR_NONE;
		if (item.vm == vm)
			VEC_PUSH(&refused->items, item);
		else
			add(j, record, item);
	}
	batch_done(b);
	fail_later(refused, -EDQUOT);
}

static void all_refused(struct batch *b, int code)
{
	b->journal->refused_until_ms = mono_ms() + REFUSED_MS;
	fail_later(b, code);
}

static bool holds_vm(const struct batch *b, uint64_t vm)
{
	for (size_t i = 0; i < b->items.n; i++)
		if (b->items.v[i].vm == vm)
			return true;
	return false;
}

static bool on_ack(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct batch *b = arg;

	if (!m) {
		all_refused(b, -EPIPE);
		return true;
	}
	const struct msg_audit_ack *ack = m->info->type == MSG_TYPE_msg_audit_ack ? IPC_RECORD(m, msg_audit_ack) : NULL;
	if (!ack || (ack->code == 0 && ack->count != b->items.n))
		all_refused(b, -EPROTO);
	else if (ack->code == -EDQUOT && ack->vm && holds_vm(b, ack->vm))
		batch_without(b, ack->vm);
	else if (ack->code)
		all_refused(b, ack->code < 0 && ack->code > -4096 ? (int)ack->code : -EIO);
	else
		batch_written(b, ack->first_seq);
	return true;
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct journal *j = arg;
	struct batch *b = take_ptr(j->batch);

	if (!b)
		return;
	struct msg_audit_batch message = {.records = buf_str(&b->records)};
	int r = ipc_call(j->peer, MSG_TYPE_msg_audit_batch, &message, NULL, 0, ACK_TIMEOUT_MS, on_ack, b);
	if (r)
		all_refused(b, r);
}

void journal_set_peer(struct journal *j, struct ipc_peer *peer)
{
	j->peer = peer;
	if (!peer)
		return;
	j->refused_until_ms = 0;
	memset(j->refused, 0, sizeof j->refused);
	journal_retry(j);
}

void journal_retry(struct journal *j)
{
	static struct kept_close kept[KEPT_CLOSES];
	unsigned n = j->nkept;

	if (n == 0 || !is_writable(j, 0))
		return;
	memcpy(kept, j->kept, n * sizeof kept[0]);
	j->nkept = 0;
	for (unsigned i = 0; i < n; i++) {
		if (i < RETRIED_CLOSES)
			send_close(j, kept[i].vm, kept[i].record);
		else
			keep_close(j, kept[i].vm, kept[i].record);
	}
}

struct journal_entry *journal_open(struct journal *j, const struct record_open *open, journal_written *on_written,
				   void *arg)
{
	_cleanup_(buf_finish) struct buf b = {0};

	if (!is_writable(j, open->vm) || j->unanswered >= UNANSWERED_BYTES || encode(RECORD_OPEN, open, &b))
		return NULL;
	struct journal_entry *e = xcalloc(1, sizeof *e);
	*e = (struct journal_entry){.journal = j, .vm = open->vm, .on_written = on_written, .arg = arg};
	add(j, buf_str(&b), (struct item){.vm = open->vm, .entry = e});
	return e;
}

uint64_t journal_entry_seq(const struct journal_entry *e)
{
	return e ? e->seq : 0;
}

void journal_progress(struct journal_entry *e, uint64_t sent, uint64_t received)
{
	struct record_progress p = {.open_seq = e->seq, .bytes_sent = sent, .bytes_received = received};

	if (e->written)
		journal_note(e->journal, e->vm, RECORD_PROGRESS, &p);
}

void journal_close(struct journal_entry *e, const struct record_close *close)
{
	if (!e)
		return;
	e->closed = true;
	e->on_written = NULL;
	/* a close that cannot be encoded is a bug; the entry then ends as aborted */
	if (!e->failed && encode(RECORD_CLOSE, close, &e->close))
		buf_clear(&e->close);
	if (e->written && e->close.len)
		entry_finish(e);
	else if (e->written || e->failed)
		entry_free(e);
}

bool journal_note(struct journal *j, uint64_t vm, enum record_type type, const void *record)
{
	_cleanup_(buf_finish) struct buf b = {0};

	if (!is_writable(j, vm) || encode(type, record, &b))
		return false;
	add(j, buf_str(&b), (struct item){.vm = vm});
	return true;
}
