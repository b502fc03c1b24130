/* Theory of operation. Everything that happens to a connection (the socket is readable or writable, a call answers, a
 * timer fires) ends in turn(), which reads, lets the phase work on what is there, and writes, until nothing moves. Calls
 * and upgraded users may answer from within a turn: then the turn goes round again. A connection is freed only at the end
 * of a turn, never under a caller. */
#include "api/conn_internal.h"

#include <stdio.h>
#include <time.h>

#include "api/call.h"
#include "base/clock.h"

#define IN_MAX ((size_t)32 << 10)	    /* between requests, in heads, and behind a running call */
#define UPGRADED_IN_MAX ((size_t)256 << 10) /* a frame and what comes with it */
#define OUT_MAX ((size_t)64 << 20)
#define READ_PIECE ((size_t)64 << 10)
#define SLOWEST_BYTES_S 16384 /* each of these earns a body, or an answer, one more second */

/* --- life --- */

static void idle_unlink(struct conn *c)
{
	if (!c->is_idle)
		return;
	*(c->idle_prev ? &c->idle_prev->idle_next : &c->api->idle_first) = c->idle_next;
	*(c->idle_next ? &c->idle_next->idle_prev : &c->api->idle_last) = c->idle_prev;
	c->is_idle = false;
}

static void idle_link(struct conn *c)
{
	if (c->is_idle)
		return;
	c->idle_prev = c->api->idle_last;
	c->idle_next = NULL;
	*(c->idle_prev ? &c->idle_prev->idle_next : &c->api->idle_first) = c;
	c->api->idle_last = c;
	c->is_idle = true;
}

static void conn_free(struct conn *c)
{
	idle_unlink(c);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	listener_conn_closed(c->api, c->address_key, c->refused);
	struct event *const events[] = {c->readable, c->writable, c->timer};
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	transport_finish(&c->t);
	buf_finish(&c->in);
	buf_finish(&c->out);
	buf_finish(&c->body);
	free(c);
}

/* Whoever works for the connection learns of its end; it is freed when no turn is under way. */
void conn_end(struct conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	if (c->call)
		call_client_gone(take_ptr(c->call));
	if (c->ops)
		take_ptr(c->ops)->gone(c->user);
}

void conn_destroy(struct conn *c)
{
	if (!c)
		return;
	conn_end(c);
	if (!c->busy)
		conn_free(c);
}

bool conn_evict(struct api *api)
{
	if (!api->idle_first)
		return false;
	conn_destroy(api->idle_first);
	return true;
}

/* --- deadlines --- */

void conn_arm(struct conn *c, uint64_t ms)
{
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	event_add(c->timer, &tv);
}

/* What moves may take longer, down to a slowest pace. */
static void arm_by_pace(struct conn *c, uint64_t allowance_ms)
{
	uint64_t end_ms = c->phase_since_ms + allowance_ms + c->phase_bytes * 1000 / SLOWEST_BYTES_S, now = mono_ms();

	/* what stands still for the allowance is over, however fast it was before */
	conn_arm(c, end_ms > now ? MIN(end_ms - now, allowance_ms) : 1);
}

void conn_enter(struct conn *c, enum phase phase)
{
	c->phase = phase;
	c->phase_since_ms = mono_ms();
	c->phase_bytes = 0;
	idle_unlink(c);
	switch (phase) {
	case HANDSHAKE:
		conn_arm(c, API_HANDSHAKE_MS);
		break;
	case IDLE:
		conn_arm(c, c->api->config.idle_timeout_ms);
		idle_link(c);
		break;
	case HEAD:
		conn_arm(c, API_HEAD_MS);
		break;
	case BODY:
		conn_arm(c, API_BODY_MS);
		break;
	case FLUSH:
	case FINISHING:
		conn_arm(c, API_WRITE_MS);
		break;
	case LINGER:
		conn_arm(c, API_LINGER_MS);
		break;
	case UPLOAD:
		conn_arm(c, API_BODY_MS);
		break;
	case CALL:
	case ANSWER:
	case UPGRADED:
		event_del(c->timer);
		break;
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	if (c->phase == HEAD) {
		call_refuse(c->api, c, 408, "the request's head did not arrive in time");
		conn_turn(c);
	} else if (c->phase == BODY) {
		call_fail_body(c->call, 408, "the request's body did not arrive in time");
		conn_turn(c);
	} else if (c->phase == UPLOAD) {
		conn_upload_late(c);
		conn_turn(c);
	} else {
		conn_destroy(c);
	}
}

/* --- requests --- */

static void begin_body(struct conn *c, const struct http1_request *req)
{
	http1_body_init(&c->framing, &req->framing);
	buf_clear(&c->body);
	c->body.failed = false;
	c->body_unread = req->framing.kind != HTTP1_BODY_NONE && !(req->framing.kind == HTTP1_BODY_LENGTH && !req->framing.length);
	if (call_refused(c->call)) {
		conn_enter(c, CALL);
		call_start(c->call, &c->body);
	} else if (call_streams_body(c->call)) {
		conn_enter(c, CALL);
		c->expects_continue = req->expect_continue;
		call_start(c->call, &c->body);
	} else if (req->framing.kind == HTTP1_BODY_LENGTH && req->framing.length > c->api->config.max_body_bytes) {
		conn_enter(c, CALL);
		call_fail_body(c->call, 413, "the body is too large");
	} else {
		conn_enter(c, BODY);
		if (req->expect_continue && c->body_unread)
			buf_append_z(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
	}
}

static bool work_head(struct conn *c)
{
	const struct http1_request_opts opts = {.head_max = API_HEAD_MAX, .tls = c->t.ssl != NULL};
	struct http1_request req;

	if (c->in.len == 0)
		return false;
	if (c->phase == IDLE)
		conn_enter(c, HEAD);
	enum http1_result r = http1_request_parse(&c->scan, buf_str(&c->in), &opts, &req);
	if (r == HTTP1_MORE)
		return false;
	c->scan = (struct http1_scan){0};
	c->keep_alive = false;
	c->to_head = false;
	c->body_unread = true;
	if (http1_is_error(r)) {
		call_refuse(c->api, c, http1_error_status(r), http1_error_text(r));
		return true;
	}
	c->keep_alive = req.keep_alive;
	c->to_head = req.method_id == HTTP1_HEAD;
	c->old = req.head.minor == 0;
	c->eof_told = false;
	c->call = call_create(c->api, c, &req);
	size_t head_len = req.head.raw.len;
	begin_body(c, &req);
	buf_consume(&c->in, head_len);
	return true;
}

static void body_failed(struct conn *c, unsigned status, const char *message)
{
	conn_enter(c, CALL);
	c->keep_alive = false;
	call_fail_body(c->call, status, message);
}

/* Appends what of the body is there, and takes it off the input at once: many small chunks cost one move. */
static enum http1_result gather_body(struct conn *c, bool *ret_too_large)
{
	struct str in = buf_str(&c->in), data;
	enum http1_result r;
	size_t taken;

	do {
		data = STR_NONE;
		taken = 0;
		r = http1_body_push(&c->framing, in, &taken, &data);
		*ret_too_large = data.len && buf_append_str(&c->body, data);
		in = str_make(in.p + taken, in.len - taken);
	} while (r == HTTP1_MORE && taken && !*ret_too_large);
	c->phase_bytes += c->in.len - in.len;
	buf_consume(&c->in, c->in.len - in.len);
	return r;
}

static bool work_body(struct conn *c)
{
	bool too_large = false;

	enum http1_result r = gather_body(c, &too_large);
	if (http1_is_error(r) || too_large) {
		body_failed(c, too_large ? 413 : http1_error_status(r), too_large ? "the body is too large" : http1_error_text(r));
		return true;
	}
	if (r == HTTP1_OK) {
		c->body_unread = false;
		conn_enter(c, CALL);
		call_start(c->call, &c->body);
		return true;
	}
	arm_by_pace(c, API_BODY_MS);
	if (c->t.eof)
		conn_end(c); /* half a request, and nobody to answer */
	return false;
}

/* --- answers --- */

static void put_date(struct buf *out)
{
	time_t now = (time_t)(real_ms() / 1000);
	struct tm tm;
	char text[64];

	gmtime_r(&now, &tm);
	strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
	buf_append_z(out, text);
}

void conn_head_begin(struct conn *c, unsigned status)
{
	bool close = !c->keep_alive || c->body_unread || c->t.eof || c->refused;

	c->keep_alive = !close;
	buf_printf(&c->out, "HTTP/1.1 %u %s\r\n", status, http1_reason(status));
	put_date(&c->out);
}

void conn_head_end(struct conn *c, const char *headers)
{
	buf_append_z(&c->out, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
			      "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
			      "Referrer-Policy: no-referrer\r\n");
	buf_append_z(&c->out, headers ? headers : "");
	buf_append_z(&c->out, c->keep_alive ? "\r\n" : "Connection: close\r\n\r\n");
}

void conn_answer(struct conn *c, unsigned status, const char *headers, struct buf *body)
{
	c->call = NULL;
	c->stream = NULL;
	conn_head_begin(c, status);
	if (status != 204)
		buf_printf(&c->out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body->len);
	conn_head_end(c, headers);
	if (status != 204 && !c->to_head)
		buf_append_str(&c->out, buf_str(body));
	buf_finish(body);
	*body = (struct buf){0};
	conn_enter(c, FLUSH);
	if (c->out.failed)
		conn_end(c);
	conn_turn(c);
}

static bool work_flush(struct conn *c)
{
	if (c->out.len)
		return false;
	buf_finish(&c->body);
	c->body = BUF_MAX(c->api->config.max_body_bytes);
	if (c->keep_alive) {
		/* an idle connection holds no buffers */
		buf_finish(&c->out);
		if (c->in.len == 0)
			buf_finish(&c->in);
		conn_enter(c, IDLE);
		return true;
	}
	/* A close with unread input in the kernel would reset the connection, and the answer might be lost with it. */
	transport_shut_write(&c->t);
	conn_enter(c, LINGER);
	return true;
}

/* --- upgraded --- */

void conn_upgrade(struct conn *c, struct str head, const struct conn_user *ops, void *user)
{
	c->call = NULL;
	c->ops = ops;
	c->user = user;
	c->reading = true;
	c->in.max = UPGRADED_IN_MAX + READ_PIECE;
	buf_append_str(&c->out, head);
	conn_enter(c, UPGRADED);
	conn_turn(c);
}

struct buf *conn_in(struct conn *c)
{
	return &c->in;
}

struct buf *conn_out(struct conn *c)
{
	return &c->out;
}

bool conn_eof(const struct conn *c)
{
	return c->t.eof;
}

void conn_poke(struct conn *c)
{
	conn_turn(c);
}

void conn_read_enable(struct conn *c, bool on)
{
	c->reading = on;
}

void conn_finish(struct conn *c)
{
	if (c->dead || c->phase == FINISHING)
		return;
	conn_enter(c, FINISHING);
	conn_turn(c);
}

/* --- the turn --- */

static size_t read_room(const struct conn *c)
{
	bool takes_body = c->phase == BODY || c->phase == UPLOAD;
	size_t max = c->phase == UPGRADED ? UPGRADED_IN_MAX : takes_body ? IN_MAX + READ_PIECE : IN_MAX;

	if (c->t.eof || c->phase == FLUSH || c->phase == FINISHING || c->phase == HANDSHAKE ||
	    (c->phase == UPGRADED && !c->reading))
		return 0;
	if (c->phase == LINGER)
		return READ_PIECE;
	return c->in.len < max ? MIN(max - c->in.len, READ_PIECE) : 0;
}

static void tell_eof(struct conn *c)
{
	if (!c->t.eof || !c->call || c->eof_told)
		return;
	c->eof_told = true;
	call_client_eof(c->call);
}

/* True when something changed, so that it is worth coming again. */
static bool work(struct conn *c)
{
	switch (c->phase) {
	case HANDSHAKE:
		return false;
	case IDLE:
	case HEAD:
		if (c->refused) {
			call_refuse(c->api, c, c->refused, NULL);
			return true;
		}
		if (work_head(c))
			return true;
		if (c->t.eof)
			conn_end(c);
		return false;
	case BODY:
		return work_body(c);
	case CALL:
		tell_eof(c);
		return false;
	case UPLOAD:
		return conn_work_upload(c);
	case ANSWER:
		tell_eof(c);
		return !c->dead && conn_work_answer(c);
	case FLUSH:
		return work_flush(c);
	case FINISHING:
		if (c->out.len == 0) {
			take_ptr(c->ops)->gone(c->user);
			transport_shut_write(&c->t);
			conn_enter(c, LINGER);
		}
		return false;
	case LINGER:
		buf_clear(&c->in);
		if (c->t.eof)
			conn_end(c);
		return false;
	case UPGRADED:
		c->ops->turn(c->user);
		return false;
	}
	return false;
}

static void shake_hands(struct conn *c)
{
	int r = transport_handshake(&c->t);

	if (r < 0)
		conn_end(c);
	else if (r == 1)
		conn_enter(c, IDLE);
}

static void write_out(struct conn *c)
{
	size_t before = c->out.len;

	if (before == 0)
		return;
	transport_write(&c->t, &c->out);
	if (c->out.len == before)
		return;
	c->phase_bytes += before - c->out.len;
	if (c->phase == FLUSH || c->phase == FINISHING)
		arm_by_pace(c, API_WRITE_MS);
	if (c->phase == ANSWER && c->out.len)
		conn_arm(c, c->stall_ms);
	else if (c->phase == ANSWER)
		event_del(c->timer);
	c->again = true; /* there is room again */
}

static void step(struct conn *c)
{
	if (c->phase == HANDSHAKE)
		shake_hands(c);
	if (c->phase == HANDSHAKE || c->dead)
		return;
	size_t room = read_room(c);
	if (room && transport_read(&c->t, &c->in, room) > 0)
		c->again = true;
	while (!c->dead && work(c))
		;
	if (!c->dead)
		write_out(c);
	if (c->t.broken)
		conn_end(c);
}

static void watch(struct conn *c)
{
	bool wants_read = read_room(c) > 0 || c->phase == HANDSHAKE;

	if (wants_read)
		event_add(c->readable, NULL);
	else
		event_del(c->readable);
	if (c->out.len || c->t.wants_write)
		event_add(c->writable, NULL);
	else
		event_del(c->writable);
}

void conn_turn(struct conn *c)
{
	if (c->busy) {
		c->again = true;
		return;
	}
	c->busy = true;
	/* Bounded: a client that sends without end lets the others have their turns; what TLS holds is asked for again. */
	for (unsigned n = 0; n < 16; n++) {
		c->again = false;
		step(c);
		if (c->dead || !c->again)
			break;
	}
	c->busy = false;
	if (c->dead) {
		conn_free(c);
		return;
	}
	watch(c);
	if (c->again || (read_room(c) && transport_has_pending(&c->t)))
		event_active(c->readable, EV_READ, 0);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	conn_turn(arg);
}

void conn_create(struct api *api, int fd, const char *peer, const char *address_key, bool metrics, unsigned refused)
{
	struct conn *c = xcalloc(1, sizeof *c);

	*c = (struct conn){.api = api, .refused = refused, .metrics = metrics, .in = {.max = IN_MAX + READ_PIECE},
			   .out = {.max = OUT_MAX}};
	c->body = BUF_MAX(api->config.max_body_bytes);
	snprintf(c->peer, sizeof c->peer, "%s", peer);
	snprintf(c->address_key, sizeof c->address_key, "%s", address_key);
	c->next = api->conns;
	c->prev = &api->conns;
	if (c->next)
		c->next->prev = &c->next;
	api->conns = c;
	c->readable = event_new(api->base, fd, EV_READ | EV_PERSIST, on_event, c);
	c->writable = event_new(api->base, fd, EV_WRITE | EV_PERSIST, on_event, c);
	c->timer = evtimer_new(api->base, on_timer, c);
	int r = transport_init(&c->t, fd, metrics ? NULL : api->tls);
	if (r || !c->readable || !c->writable || !c->timer) {
		conn_destroy(c);
		return;
	}
	conn_enter(c, c->t.ssl ? HANDSHAKE : IDLE);
	conn_turn(c);
}

const char *conn_peer(const struct conn *c)
{
	return c->peer;
}

const char *conn_address_key(const struct conn *c)
{
	return c->address_key;
}

bool conn_is_tls(const struct conn *c)
{
	return c->t.ssl != NULL;
}

bool conn_is_metrics(const struct conn *c)
{
	return c->metrics;
}
