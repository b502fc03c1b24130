/* The bytes of a file or of a tree, out (download) and in (upload), any size, through the room of a few pieces: what the
 * client does not take is not read from the VM, what the VM does not take is not read from the client.
 *
 * Archives are looked at as they pass (archive.h). Out: the head is known with the VM's INFO; an empty file's with its end. What breaks later cuts the connection. In: iron-control and
 * the VM's ERROR are heard before the body is asked for; a client that leaves closes the channel before STDIN_EOF, and the
 * old file stays. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "api/archive.h"
#include "api/files.h"
#include "api/question.h"
#include "api/starts.h"

#define STALL_MS 60000 /* that long without a byte, either side: it is given up */
#define END_MS 120000  /* for the guest's disk to take the last of it */

struct transfer {
	struct question q;
	bool is_archive, bounded;
	struct archive archive; /* looked at, either way */
	struct buf info_bytes; /* what info's strings borrow from; empty: it has not come */
	struct stream_file_info info;
	bool asked_body, sent_eof, eof_due;
};

static struct str path_of(const struct question *q)
{
	return q->call->params.file.asked.file.path;
}

static int take_info(struct transfer *x, struct str data)
{
	if (x->info_bytes.len || data.len == 0 || buf_append_str(&x->info_bytes, data) ||
	    wire_decode(&stream_file_info_wire, buf_str(&x->info_bytes), &x->info))
		return -EPROTO;
	return 0;
}

static void finish(struct question *q)
{
	struct transfer *x = (struct transfer *)q;

	archive_finish(&x->archive);
	buf_finish(&x->info_bytes);
}

/* False: it was no archive to be handed on, and the call has ended. */
static bool look_at(struct transfer *x, struct str data)
{
	struct error e = {0};

	if (!x->is_archive || archive_push(&x->archive, data, &e) == 0)
		return true;
	question_fail_code(&x->q, CODE_VALIDATION_ERROR, e.text);
	return false;
}

static struct transfer *start(struct call *c, const struct question_ops *ops)
{
	struct transfer *x = xcalloc(1, sizeof *x);

	x->is_archive = c->op == OP_VM_ARCHIVE_GET || c->op == OP_VM_ARCHIVE_PUT;
	archive_init(&x->archive, c->op == OP_VM_ARCHIVE_GET);
	c->outlives_eof = true;
	question_start(&x->q, c, ops);
	return x;
}

static int send_request(struct question *q, uint8_t op)
{
	struct stream_file file = q->call->params.file.asked.file;

	file.op = op;
	return channel_send_record(q->channel, STREAM_FILE, &stream_file_wire, &file);
}

/* --- out --- */

/* A name as a header may hold it; whatever else a guest says becomes "?". */
static void header_safe(struct str s, char *ret, size_t size)
{
	size_t n = MIN(s.len, size - 1);

	for (size_t i = 0; i < n; i++) {
		bool ok = (s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'z') ||
			  (s.p[i] >= 'A' && s.p[i] <= 'Z') || (s.p[i] && strchr("._-$@+", s.p[i]));
		ret[i] = ok ? s.p[i] : '?';
	}
	ret[n] = 0;
}

static void add_headers(struct transfer *x)
{
	char owner[64], group[64], when[64];
	time_t t = (time_t)(x->info.modified_at / 1000);
	struct tm tm;

	header_safe(x->info.owner, owner, sizeof owner);
	header_safe(x->info.group, group, sizeof group);
	call_add_header(x->q.call, "Iron-File-Mode: %04o\r\nIron-File-Owner: %s:%s\r\n", x->info.mode & 07777, owner, group);
	/* years of four digits: a date beyond them is no HTTP date */
	if (gmtime_r(&t, &tm) && tm.tm_year >= 70 && tm.tm_year < 8100 &&
	    strftime(when, sizeof when, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		call_add_header(x->q.call, "Last-Modified: %s\r\n", when);
}

static void on_room(void *user)
{
	struct question *q = user;

	channel_read_enable(q->channel, true);
	question_expect(q, STALL_MS);
}

static const struct conn_stream down_stream = {.room = on_room};

static void begin(struct transfer *x, uint64_t length)
{
	x->q.begun = true;
	x->bounded = length != CONN_LENGTH_UNKNOWN;
	add_headers(x);
	call_answer_begin(x->q.call, 200, x->is_archive ? "application/x-tar" : "application/octet-stream", length, STALL_MS,
			  &down_stream, x);
}

/* A length that the VM did not keep cuts the connection. */
static int down_end(struct transfer *x)
{
	struct conn *conn = x->q.call->conn;
	bool all = x->is_archive ? archive_is_whole(&x->archive) : !x->bounded || conn_answer_is_full(conn);
	bool whole = conn_to_head(conn) || all;

	channel_note_outcome(x->q.channel, whole ? STR("done") : STR("cut"));
	call_answer_end(x->q.call, 200, whole);
	question_end(&x->q);
	return 0;
}

static int down_info(struct transfer *x, struct str data)
{
	int r = take_info(x, data);

	if (r)
		return r;
	if (x->info.kind == FILE_DIRECTORY && !x->is_archive)
		return -EPROTO;
	if (conn_to_head(x->q.call->conn)) {
		begin(x, x->is_archive || x->info.kind != FILE_REGULAR ? CONN_LENGTH_UNKNOWN : x->info.size);
		return down_end(x);
	}
	/* A file without a size may have bytes all the same (/proc). What an archive begins with is looked at first, so that
	 * its refusal may still be an answer. */
	if (!x->is_archive && x->info.kind != FILE_REGULAR)
		begin(x, CONN_LENGTH_UNKNOWN);
	else if (!x->is_archive && x->info.size)
		begin(x, x->info.size);
	return 0;
}

static int down_bytes(struct transfer *x, struct str data)
{
	if (!x->info_bytes.len)
		return -EPROTO;
	if (!look_at(x, data))
		return 0;
	if (!x->q.begun)
		begin(x, CONN_LENGTH_UNKNOWN);
	if (conn_answer_write(x->q.call->conn, data))
		return -EPROTO;
	/* the client may be content with that, and leave, before the VM's DONE */
	if (conn_answer_is_full(x->q.call->conn))
		return down_end(x);
	if (conn_answer_has_room(x->q.call->conn)) {
		question_expect(&x->q, STALL_MS);
	} else {
		channel_read_enable(x->q.channel, false);
		question_expect(&x->q, 0); /* it is the client who is waited for */
	}
	return 0;
}

static int down_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct transfer *x = (struct transfer *)q;

	if (kind == STREAM_INFO)
		return down_info(x, data);
	if (kind == STREAM_STDOUT)
		return down_bytes(x, data);
	if (kind != STREAM_DONE || !x->info_bytes.len)
		return -EPROTO;
	if (!q->begun && x->is_archive)
		return -EPROTO;
	if (!q->begun)
		begin(x, 0);
	return down_end(x);
}

static int down_opened(struct question *q)
{
	return send_request(q, ((struct transfer *)q)->is_archive ? FILE_PACK : FILE_READ);
}

static const struct question_ops down_ops = {.opened = down_opened, .data = down_data, .finish = finish};

void download_start(struct call *c)
{
	start(c, &down_ops);
}

/* --- in --- */

static bool up_ready(void *user)
{
	return channel_can_send(((struct question *)user)->channel);
}

static void up_bytes(struct str data, void *user)
{
	struct question *q = user;

	if (!look_at(user, data))
		return;
	channel_send(q->channel, STREAM_STDIN, data);
	/* Waiting for room the VM has its deadline, waiting for the client the connection has. */
	question_expect(q, channel_can_send(q->channel) ? 0 : STALL_MS);
}

static void up_send_eof(struct transfer *x)
{
	if (!x->eof_due || x->sent_eof || !channel_can_send(x->q.channel))
		return;
	x->sent_eof = true;
	channel_send(x->q.channel, STREAM_STDIN_EOF, STR_NONE);
	question_expect(&x->q, END_MS);
}

static void up_whole(void *user)
{
	struct transfer *x = user;

	x->eof_due = true;
	question_expect(&x->q, STALL_MS);
	up_send_eof(x);
}

static void up_broken(unsigned status, const char *message, void *user)
{
	struct question *q = user;

	channel_note_outcome(q->channel, STR("client_broken"));
	call_fail_body(q->call, status, message);
	question_end(q);
}

static const struct conn_stream up_stream = {.ready = up_ready, .data = up_bytes, .whole = up_whole, .broken = up_broken};

static void up_writable(struct question *q)
{
	struct transfer *x = (struct transfer *)q;

	if (x->eof_due) {
		up_send_eof(x);
		return;
	}
	question_expect(q, 0);
	if (!x->asked_body) {
		x->asked_body = true;
		conn_body_begin(q->call->conn, &up_stream, x);
	} else {
		conn_poke(q->call->conn);
	}
}

static int up_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct transfer *x = (struct transfer *)q;
	struct buf body = {0};

	if (kind == STREAM_INFO)
		return take_info(x, data);
	if (kind != STREAM_DONE || !x->info_bytes.len || !x->sent_eof)
		return -EPROTO;
	channel_note_outcome(q->channel, STR("done"));
	file_info_answer(&body, &x->info, path_of(q));
	call_answer(q->call, 200, &body);
	question_end(q);
	return 0;
}

static int up_opened(struct question *q)
{
	int r = send_request(q, ((struct transfer *)q)->is_archive ? FILE_UNPACK : FILE_WRITE);

	if (r == 0 && channel_can_send(q->channel))
		up_writable(q);
	return r;
}

static const struct question_ops up_ops = {.opened = up_opened, .data = up_data, .writable = up_writable, .finish = finish};

void upload_start(struct call *c)
{
	start(c, &up_ops);
}
