/* Bodies in pieces. Up: what came is gathered into pieces, so that many small chunks are few datagrams, and handed on when
 * the taker is ready; until then the buffer fills and the socket is not read. Down: past HIGH the giver waits until less
 * than LOW is left. */
#include <errno.h>
#include <sys/socket.h>

#include "api/call.h"
#include "api/conn_internal.h"

#define HIGH ((size_t)256 << 10)
#define LOW ((size_t)64 << 10)

/* --- a request's body --- */

void conn_body_begin(struct conn *c, const struct conn_stream *ops, void *user)
{
	c->stream = ops;
	c->stream_user = user;
	if (c->expects_continue && c->body_unread && c->in.len == 0)
		buf_append_z(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	conn_enter(c, UPLOAD);
	conn_turn(c);
}

/* One piece at most into c->body; framing beside it is taken off. */
static enum http1_result gather(struct conn *c)
{
	struct str in = buf_str(&c->in), data;
	enum http1_result r;
	size_t taken;

	buf_clear(&c->body);
	do {
		size_t room = CONN_PIECE_MAX - c->body.len;
		data = STR_NONE;
		taken = 0;
		r = http1_body_push(&c->framing, str_make(in.p, MIN(in.len, room)), &taken, &data);
		if (data.len)
			buf_append_str(&c->body, data);
		in = str_make(in.p + taken, in.len - taken);
	} while (r == HTTP1_MORE && taken && c->body.len < CONN_PIECE_MAX);
	c->phase_bytes += c->in.len - in.len;
	buf_consume(&c->in, c->in.len - in.len);
	return r;
}

static void give_up(struct conn *c, unsigned status, const char *message)
{
	conn_enter(c, CALL);
	c->keep_alive = false;
	c->stream->broken(status, message, c->stream_user);
}

bool conn_work_upload(struct conn *c)
{
	while (c->phase == UPLOAD && !c->dead && c->stream->ready(c->stream_user)) {
		uint64_t before = c->phase_bytes;
		enum http1_result r = gather(c);
		if (c->body.len)
			c->stream->data(buf_str(&c->body), c->stream_user);
		if (c->phase != UPLOAD || c->dead)
			return true;
		if (r == HTTP1_OK) {
			c->body_unread = false;
			conn_enter(c, CALL);
			c->stream->whole(c->stream_user);
			return true;
		}
		if (http1_is_error(r)) {
			give_up(c, http1_error_status(r), http1_error_text(r));
			return true;
		}
		/* From here on it is the client who is waited for. */
		if (c->phase_bytes > before || !event_pending(c->timer, EV_TIMEOUT, NULL))
			conn_arm(c, API_BODY_MS);
		if (c->phase_bytes == before) {
			if (c->t.eof)
				conn_end(c);
			return false;
		}
	}
	if (c->phase == UPLOAD)
		event_del(c->timer);
	return false;
}

void conn_upload_late(struct conn *c)
{
	give_up(c, 408, "the request's body stopped coming");
}

/* --- an answer --- */

/* From the loop, so that nothing is freed under whoever writes. */
static void turn_soon(struct conn *c)
{
	if (!event_pending(c->timer, EV_TIMEOUT, NULL))
		conn_arm(c, c->stall_ms);
	event_active(c->writable, EV_WRITE, 0);
}

void conn_answer_begin(struct conn *c, unsigned status, const char *headers, uint64_t length, uint32_t stall_ms,
		       const struct conn_stream *ops, void *user)
{
	c->stream = ops;
	c->stream_user = user;
	c->stall_ms = stall_ms;
	c->bounded = length != CONN_LENGTH_UNKNOWN;
	c->answer_left = c->bounded ? length : 0;
	c->chunked = !c->bounded && !c->old;
	if (!c->bounded && c->old)
		c->keep_alive = false; /* the end of the connection is the end of the body */
	conn_head_begin(c, status);
	if (c->bounded)
		buf_printf(&c->out, "Content-Length: %llu\r\n", (unsigned long long)length);
	if (c->chunked)
		buf_append_z(&c->out, "Transfer-Encoding: chunked\r\n");
	conn_head_end(c, headers);
	conn_enter(c, ANSWER);
	turn_soon(c);
}

int conn_answer_write(struct conn *c, struct str data)
{
	if (c->bounded && data.len > c->answer_left)
		return -EMSGSIZE;
	if (c->bounded)
		c->answer_left -= data.len;
	if (c->to_head || data.len == 0)
		return 0;
	if (c->chunked)
		http1_write_chunk(&c->out, data);
	else
		buf_append_str(&c->out, data);
	c->full = c->out.len > HIGH;
	turn_soon(c);
	return c->out.failed ? -EMSGSIZE : 0;
}

bool conn_answer_has_room(const struct conn *c)
{
	return !c->full;
}

bool conn_answer_is_full(const struct conn *c)
{
	return c->bounded && c->answer_left == 0;
}

bool conn_to_head(const struct conn *c)
{
	return c->to_head;
}

bool conn_work_answer(struct conn *c)
{
	if (!c->full || c->out.len > LOW)
		return false;
	c->full = false;
	if (c->stream)
		c->stream->room(c->stream_user);
	return false;
}

static void cut(struct conn *c)
{
	/* In HTTP/1.0 a plain end would look like the end of the body. */
	if (c->old)
		setsockopt(c->t.fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
	conn_destroy(c);
}

void conn_answer_end(struct conn *c, bool whole)
{
	c->call = NULL;
	c->stream = NULL;
	c->full = false;
	if (!whole || (c->answer_left && !c->to_head)) {
		cut(c);
		return;
	}
	if (c->chunked && !c->to_head)
		http1_write_last_chunk(&c->out);
	conn_enter(c, FLUSH);
	conn_turn(c);
}
