#include "control/journal.h"

#include <errno.h>

#include "base/id.h"
#include "base/log.h"

#define ACK_TIMEOUT_MS 10000
#define NOTES_MAX ((size_t)96 << 10)
#define DETAIL_MAX 8000 /* of record_event.detail's 8192: room for what closes it */

struct journal {
	struct ipc_peer *audit;
	struct buf notes;
	uint64_t lost;
	struct event *flush;
};

struct write {
	journal_written *done;
	void *arg;
};

static int add_event(struct buf *records, const struct record_event *e)
{
	_cleanup_(buf_finish) struct buf item = {0};

	buf_append_u16(&item, RECORD_EVENT);
	int r = wire_encode(&record_event_wire, e, &item);
	return r ? r : wire_list_add(records, buf_str(&item));
}

static bool on_ack(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	_cleanup_free_ struct write *w = arg;
	int code = -EPIPE;

	if (m && m->info->type == MSG_TYPE_msg_audit_ack)
		code = (int)IPC_RECORD(m, msg_audit_ack)->code;
	if (w->done)
		w->done(code, w->arg);
	else if (code)
		log_limited(LOG_LEVEL_WARN, 1, "audit records lost", "code=%d", code);
	return true;
}

static int send_batch(struct journal *j, struct str records, bool durable, journal_written *done, void *arg)
{
	struct msg_audit_batch batch = {.durable = durable, .records = records};
	struct write *w = xcalloc(1, sizeof *w);

	*w = (struct write){done, arg};
	int r = ipc_call(j->audit, MSG_TYPE_msg_audit_batch, &batch, NULL, 0, ACK_TIMEOUT_MS, on_ack, w);
	if (r)
		free(w);
	return r;
}

int journal_write(struct journal *j, const struct record_event *e, bool durable, journal_written *done, void *arg)
{
	_cleanup_(buf_finish) struct buf records = {0};

	if (!j->audit)
		return -EPIPE;
	int r = add_event(&records, e);
	return r ? r : send_batch(j, buf_str(&records), durable, done, arg);
}

static void note_loss(struct journal *j)
{
	char detail[64];

	if (!j->lost)
		return;
	snprintf(detail, sizeof detail, "{\"lost\":%llu}", (unsigned long long)j->lost);
	struct record_event e = {.kind = STR(EVENT_DAEMON), .action = STR("records_lost"), .outcome = STR("lost"),
				 .detail = str_of(detail)};
	if (add_event(&j->notes, &e) == 0)
		j->lost = 0;
}

static void flush(struct journal *j)
{
	if (!j->audit || (j->notes.len == 0 && !j->lost))
		return;
	if (j->lost && j->notes.len == 0)
		note_loss(j);
	if (send_batch(j, buf_str(&j->notes), false, NULL, NULL) == 0)
		buf_clear(&j->notes);
	note_loss(j);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	flush(arg);
}

void journal_note(struct journal *j, const struct record_event *e)
{
	if (j->notes.len > NOTES_MAX)
		flush(j);
	if (j->notes.len > NOTES_MAX || add_event(&j->notes, e)) {
		j->lost++;
		return;
	}
	event_active(j->flush, 0, 0);
}

void journal_attach(struct journal *j, struct ipc_peer *audit)
{
	j->audit = audit;
	if (audit)
		event_active(j->flush, 0, 0);
}

struct journal *journal_create(struct event_base *base)
{
	struct journal *j = xcalloc(1, sizeof *j);

	j->notes.max = MSG_MAX - 1024;
	j->flush = event_new(base, -1, 0, on_flush, j);
	if (!j->flush) {
		free(j);
		return NULL;
	}
	return j;
}

void journal_destroy(struct journal *j)
{
	if (!j)
		return;
	event_free(j->flush);
	buf_finish(&j->notes);
	free(j);
}

void detail_finish(struct detail *d)
{
	buf_finish(&d->text);
}

static void append_json(struct buf *b, struct str s)
{
	bool ascii_only = !str_is_printable_utf8(s);

	buf_append_byte(b, '"');
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\u%04x", c);
		else
			buf_append_byte(b, c >= 0x80 && ascii_only ? '?' : c);
	}
	buf_append_byte(b, '"');
}

/* A value that would take the object past its bound is cut: the object stays JSON. */
static void begin(struct detail *d, const char *key)
{
	buf_append_z(&d->text, d->text.len ? "," : "{");
	append_json(&d->text, str_of(key));
	buf_append_byte(&d->text, ':');
}

void detail_add(struct detail *d, const char *key, struct str value)
{
	size_t room = d->text.len < DETAIL_MAX ? (DETAIL_MAX - d->text.len) / 6 : 0;

	if (room < 64)
		return;
	begin(d, key);
	append_json(&d->text, value.len > room ? str_make(value.p, room) : value);
}

void detail_add_u64(struct detail *d, const char *key, uint64_t value)
{
	if (d->text.len > DETAIL_MAX - 128)
		return;
	begin(d, key);
	buf_printf(&d->text, "%llu", (unsigned long long)value);
}

void detail_add_id(struct detail *d, const char *key, const char *prefix, uint64_t id)
{
	char text[ID_TEXT_SIZE];

	id_format(prefix, id, text);
	detail_add(d, key, str_of(text));
}

void detail_add_list(struct detail *d, const char *key, struct str list)
{
	_cleanup_(buf_finish) struct buf text = {.max = DETAIL_MAX};
	struct str item;

	while (wire_list_next(&list, &item)) {
		if (text.len)
			buf_append_byte(&text, ' ');
		buf_append_str(&text, item);
	}
	if (text.len)
		detail_add(d, key, buf_str(&text));
}

struct str detail_end(struct detail *d)
{
	buf_append_z(&d->text, d->text.len ? "}" : "{}");
	return buf_str(&d->text);
}
