/* One allowed request upstream, and its answer back, both at once: an answer may come before the request's end, and may
 * stream for hours. Bodies are checked where they are framed and sent on from the buffer they were received in. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "egress/http.h"
#include "egress/refuse.h"

#define JOIN_BYTES 16384 /* a short body goes out in the same segment as its head */

static enum http_step fail(struct http *h, uint16_t status, const char *error, enum close_outcome outcome,
			   const char *reason)
{
	struct refusal r = {.status = status, .error = error, .code = "upstream_failed", .reason = reason};

	http_fail(h, &r, outcome);
	return HTTP_GONE;
}

/* --- getting there --- */

static void on_up_ready(void *arg)
{
	http_drive(arg);
}

static void start_exchange(struct http *h)
{
	h->stage = HTTP_EXCHANGE;
	h->upstream.scan = (struct http1_scan){0};
	h->c->active_ms = mono_ms();
	http_drive(h);
}

static const char *may_not_dial(const struct ip *address, void *arg)
{
	struct http *h = arg;
	return conn_refuse_address(h->c, &h->x.request, address);
}

static void dial_failed(struct http *h, int code, const char *reason)
{
	struct refusal r = {
		.status = 502, .code = "upstream_failed", .error = "destination_unavailable", .reason = reason};

	if (code == -EACCES) {
		r = (struct refusal){.status = 403,
				     .code = "egress_refused",
				     .error = "destination_ip_prohibited",
				     .reason = reason,
				     .policy = true};
		vm_note_denial(h->c->vm, h->c, PROTO_HTTP, reason);
		http_fail(h, &r, CLOSE_DENIED);
		return;
	}
	if (code == -ETIMEDOUT) {
		r.status = 504;
		r.error = "connection_timeout";
	} else if (code == -ENOENT) {
		r.error = "dns_error";
	} else if (code == -ECONNREFUSED) {
		r.error = "connection_refused";
	}
	http_fail(h, &r, code == -ETIMEDOUT ? CLOSE_TIMEOUT : CLOSE_UPSTREAM);
}

static void on_dialled(int code, int fd, const struct ip *address, const char *reason, void *arg)
{
	struct http *h = arg;

	h->dial = NULL;
	if (code) {
		dial_failed(h, code, reason);
		return;
	}
	h->address = *address;
	if (sock_open(&h->up, h->c->vm->door->base, fd, on_up_ready, h)) {
		dial_failed(h, -ENOMEM, "out of memory");
		return;
	}
	start_exchange(h);
}

static void dial(struct http *h)
{
	const struct dial_handler handler = {.refuse = may_not_dial, .done = on_dialled, .arg = h};
	const struct policy_request *r = &h->x.request;

	h->stage = HTTP_DIALING;
	h->address = (struct ip){0};
	h->dial = dial_start(h->c->vm->door->dialer, r->name, &r->ip, r->port, h->c->vm->door->connect_ms, &handler);
	if (!h->dial)
		dial_failed(h, -ENOMEM, "out of memory");
}

void http_check_idle_upstream(struct http *h)
{
	char byte;

	if (h->up.fd < 0 || !h->up.readable || sock_peek(&h->up, &byte, 1) == -EAGAIN)
		return;
	sock_close(&h->up);
	h->address = (struct ip){0};
}

void http_go_upstream(struct http *h)
{
	http_check_idle_upstream(h);
	if (h->up.fd >= 0 && conn_refuse_address(h->c, &h->x.request, &h->address))
		sock_close(&h->up);
	if (h->up.fd < 0) {
		dial(h);
		return;
	}
	h->x.reused = true;
	if (h->x.may_repeat)
		buf_append_str(&h->x.repeat, buf_str(&h->to_upstream));
	start_exchange(h);
}

/* The upstream closed a kept connection just as it was used again: nothing was answered, so the same goes to a new one.
 */
static bool repeat(struct http *h)
{
	struct exchange *x = &h->x;

	if (!x->reused || !x->may_repeat || h->upstream.bytes.len || x->response_begun)
		return false;
	sock_close(&h->up);
	buf_clear(&h->to_upstream);
	buf_append_str(&h->to_upstream, buf_str(&x->repeat));
	x->reused = x->upstream_deaf = false;
	x->sent = 0;
	dial(h);
	return true;
}

/* --- bytes --- */

static enum http_step send_some(struct buf *b, size_t n, struct sock *to, uint64_t *counter)
{
	ssize_t r = sock_send(to, b->data, n);

	if (r == -EAGAIN)
		return HTTP_STUCK;
	if (r < 0)
		return HTTP_GONE;
	buf_consume(b, (size_t)r);
	*counter += (uint64_t)r;
	return HTTP_MOVED;
}

enum http_step http_flush(struct buf *head, struct http_in *in, struct sock *to, uint64_t *counter)
{
	enum http_step r = HTTP_STUCK;

	if (!to->writable)
		return HTTP_STUCK;
	if (head->len && in->ready && in->ready <= JOIN_BYTES && buf_append(head, in->bytes.data, in->ready) == 0) {
		buf_consume(&in->bytes, in->ready);
		in->ready = 0;
	}
	if (head->len) {
		r = send_some(head, head->len, to, counter);
		if (r != HTTP_MOVED || head->len)
			return r;
	}
	if (in->ready == 0)
		return r;
	size_t before = in->bytes.len;
	enum http_step body = send_some(&in->bytes, in->ready, to, counter);
	in->ready -= before - in->bytes.len;
	return body == HTTP_STUCK ? r : body;
}

/* Validates what came of a body; the rest of the buffer is the next message's. */
static enum http1_result check_body(struct http1_body *body, struct http_in *in)
{
	size_t n = 0;
	enum http1_result r =
		http1_body_push(body, str_make(in->bytes.data + in->ready, in->bytes.len - in->ready), &n, NULL);

	in->ready += n;
	return r;
}

/* --- request --- */

static bool request_sent(const struct http *h)
{
	return h->x.upstream_deaf || (h->x.request_whole && h->to_upstream.len == 0 && h->client.ready == 0);
}

static enum http_step check_request_body(struct http *h)
{
	struct exchange *x = &h->x;

	if (x->request_whole)
		return HTTP_STUCK;
	enum http1_result r = check_body(&x->request_body, &h->client);
	if (http1_is_error(r)) {
		struct refusal refusal = {.status = (uint16_t)http1_error_status(r),
					  .error = "http_request_error",
					  .code = "malformed_request",
					  .reason = http1_error_text(r)};
		vm_note_denial(h->c->vm, h->c, PROTO_HTTP, refusal.reason);
		http_fail(h, &refusal, CLOSE_DENIED);
		return HTTP_GONE;
	}
	x->request_whole = r == HTTP1_OK;
	if (!x->request_whole && h->c->client.eof && h->client.ready == 0) {
		http_end_exchange(h, CLOSE_CLIENT, "the guest ended the connection inside a request");
		sock_reset(&h->up);
		conn_abort(h->c);
		return HTTP_GONE;
	}
	return HTTP_STUCK;
}

static enum http_step request_step(struct http *h)
{
	struct exchange *x = &h->x;
	uint64_t sent = x->sent;

	if (check_request_body(h) == HTTP_GONE)
		return HTTP_GONE;
	if (x->upstream_deaf) {
		/* it answered early and closed its ear: what the guest still sends is read and forgotten */
		buf_consume(&h->client.bytes, h->client.ready);
		h->client.ready = 0;
		return HTTP_STUCK;
	}
	enum http_step r = http_flush(&h->to_upstream, &h->client, &h->up, &x->sent);
	h->moved += x->sent - sent;
	if (r == HTTP_GONE) {
		x->upstream_deaf = true;
		r = HTTP_MOVED;
	}
	return r;
}

/* --- response --- */

static enum http_step read_upstream(struct http *h)
{
	struct buf *in = &h->upstream.bytes;

	if (!h->up.readable || h->up.eof || in->len >= HTTP_BUFFER)
		return HTTP_STUCK;
	void *at = buf_reserve(in, HTTP_BUFFER - in->len);
	ssize_t n = at ? sock_recv(&h->up, at, HTTP_BUFFER - in->len) : -ENOMEM;
	if (n == -EAGAIN)
		return HTTP_STUCK;
	if (n > 0) {
		buf_commit(in, (size_t)n);
		h->x.received += (uint64_t)n;
		h->moved += (uint64_t)n;
		return HTTP_MOVED;
	}
	if (n == 0)
		return HTTP_MOVED;
	if (repeat(h))
		return HTTP_GONE;
	return fail(h, 502, "connection_terminated", CLOSE_UPSTREAM, "the upstream reset the connection");
}

static enum http_step take_final_head(struct http *h, const struct http1_response *res)
{
	struct exchange *x = &h->x;

	x->status = res->status;
	x->response_begun = x->response_headed = true;
	http1_body_init(&x->response_body, &res->framing);
	x->keep_upstream = res->keep_alive && request_sent(h) && !x->upstream_deaf;
	if (res->framing.kind == HTTP1_BODY_CLOSE || !x->request_whole)
		x->keep_client = false;
	if (http1_response_forward(res, !x->keep_client && !res->switching, NULL, 0, &h->to_client))
		return fail(h, 502, "http_response_incomplete", CLOSE_LIMIT, "the answer's head does not fit");
	buf_consume(&h->upstream.bytes, res->head.raw.len);
	if (res->switching) {
		h->client.ready = h->client.bytes.len;
		h->upstream.ready = h->upstream.bytes.len;
		h->stage = HTTP_UPGRADED;
	}
	return HTTP_MOVED;
}

static enum http_step take_interim_head(struct http *h, const struct http1_response *res)
{
	if (http1_response_forward(res, false, NULL, 0, &h->to_client))
		return fail(h, 502, "http_response_incomplete", CLOSE_LIMIT,
			    "more interim answers than the guest reads");
	buf_consume(&h->upstream.bytes, res->head.raw.len);
	return HTTP_MOVED;
}

static enum http_step response_head_step(struct http *h)
{
	const struct http1_response_opts opts = {
		.head_max = HTTP_HEAD_MAX, .to_head = h->x.to_head, .to_websocket = h->x.websocket};
	struct http1_response res;
	char reason[160];

	enum http1_result r = http1_response_parse(&h->upstream.scan, buf_str(&h->upstream.bytes), &opts, &res);
	if (r == HTTP1_OK) {
		h->upstream.scan = (struct http1_scan){0};
		return res.interim ? take_interim_head(h, &res) : take_final_head(h, &res);
	}
	if (http1_is_error(r)) {
		snprintf(reason, sizeof reason, "the upstream's answer is refused: %s", http1_error_text(r));
		return fail(h, 502, "http_protocol_error", CLOSE_UPSTREAM, reason);
	}
	if (!h->up.eof)
		return HTTP_STUCK;
	if (repeat(h))
		return HTTP_GONE;
	return fail(h, 502, "http_response_incomplete", CLOSE_UPSTREAM, "the upstream closed without a whole answer");
}

static enum http_step response_body_step(struct http *h)
{
	struct exchange *x = &h->x;
	enum http1_result r = check_body(&x->response_body, &h->upstream);

	if (http1_is_error(r))
		return fail(h, 502, "http_protocol_error", CLOSE_UPSTREAM, http1_error_text(r));
	if (r == HTTP1_MORE && h->up.eof) {
		/* what came is passed on first */
		if (h->upstream.ready || h->to_client.len)
			return HTTP_STUCK;
		if (http1_body_eof(&x->response_body) != HTTP1_OK)
			return fail(h, 502, "http_response_incomplete", CLOSE_UPSTREAM,
				    "the upstream closed inside its answer");
		r = HTTP1_OK;
	}
	x->response_whole = r == HTTP1_OK;
	return x->response_whole ? HTTP_MOVED : HTTP_STUCK;
}

static enum http_step flush_to_client(struct http *h)
{
	enum http_step r = http_flush(&h->to_client, &h->upstream, &h->c->client, &h->moved);

	if (r != HTTP_GONE)
		return r;
	http_end_exchange(h, CLOSE_CLIENT, "the guest closed the connection");
	sock_reset(&h->up);
	conn_abort(h->c);
	return HTTP_GONE;
}

/* The answer is with the guest. Both connections go on where both sides and the framing allow it. */
static enum http_step finish_exchange(struct http *h)
{
	bool keep_client = h->x.keep_client && h->x.request_whole && h->client.ready == 0;
	bool keep_upstream = h->x.keep_upstream && h->upstream.bytes.len == 0 && !h->up.eof;

	http_end_exchange(h, CLOSE_DONE, NULL);
	buf_clear(&h->to_upstream);
	buf_finish(&h->upstream.bytes);
	h->upstream = (struct http_in){.bytes.max = HTTP_BUFFER};
	if (!keep_upstream) {
		sock_close(&h->up);
		h->address = (struct ip){0};
	}
	h->stage = HTTP_HEAD;
	if (keep_client)
		return HTTP_MOVED;
	conn_farewell(h->c, &h->to_client);
	return HTTP_GONE;
}

static enum http_step response_step(struct http *h)
{
	struct exchange *x = &h->x;
	enum http_step r = x->response_whole    ? HTTP_STUCK
			   : x->response_headed ? response_body_step(h)
						: response_head_step(h);

	if (r == HTTP_GONE || h->stage != HTTP_EXCHANGE)
		return r;
	enum http_step flushed = flush_to_client(h);
	if (flushed == HTTP_GONE)
		return flushed;
	if (x->response_whole && h->to_client.len == 0 && h->upstream.ready == 0)
		return finish_exchange(h);
	return r == HTTP_MOVED ? r : flushed;
}

enum http_step http_exchange_step(struct http *h)
{
	enum http_step steps[4] = {0};

	steps[0] = http_read_client(h);
	if (steps[0] == HTTP_GONE)
		return HTTP_GONE;
	steps[1] = request_step(h);
	if (steps[1] == HTTP_GONE)
		return HTTP_GONE;
	steps[2] = h->x.response_whole ? HTTP_STUCK : read_upstream(h);
	if (steps[2] == HTTP_GONE)
		return HTTP_GONE;
	steps[3] = response_step(h);
	if (steps[3] == HTTP_GONE)
		return HTTP_GONE;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		if (steps[i] == HTTP_MOVED)
			return HTTP_MOVED;
	return HTTP_STUCK;
}

/* --- after a 101 --- */

static enum http_step end_upgraded(struct http *h, enum close_outcome outcome, const char *reason)
{
	struct conn *c = h->c;

	h->x.sent += h->relay.a_to_b.total;
	h->x.received += h->relay.b_to_a.total;
	relay_finish(&h->relay);
	h->relaying = false;
	http_end_exchange(h, outcome, reason);
	if (outcome == CLOSE_DONE) {
		conn_destroy(c);
	} else {
		sock_reset(&h->up);
		conn_abort(c);
	}
	return HTTP_GONE;
}

static enum http_step relay_upgraded(struct http *h)
{
	switch (relay_drive(&h->relay)) {
	case RELAY_WAIT:
		return HTTP_STUCK;
	case RELAY_DONE:
		return end_upgraded(h, CLOSE_DONE, NULL);
	case RELAY_A_FAILED:
		return end_upgraded(h, CLOSE_CLIENT, "reset by the guest");
	case RELAY_B_FAILED:
		return end_upgraded(h, CLOSE_UPSTREAM, "reset by the upstream");
	case RELAY_NO_PIPE:
		break;
	}
	return end_upgraded(h, CLOSE_LIMIT, "out of descriptors");
}

/* What was read along with the heads goes first, then the kernel moves the rest. */
enum http_step http_upgraded_step(struct http *h)
{
	if (h->relaying)
		return relay_upgraded(h);
	uint64_t sent = h->x.sent;
	enum http_step back = flush_to_client(h);
	if (back == HTTP_GONE)
		return HTTP_GONE;
	enum http_step out = http_flush(&h->to_upstream, &h->client, &h->up, &h->x.sent);
	if (out == HTTP_GONE)
		return fail(h, 502, "connection_terminated", CLOSE_UPSTREAM, "the upstream reset the connection");
	h->moved += h->x.sent - sent;
	if (h->to_client.len || h->upstream.ready || h->to_upstream.len || h->client.ready)
		return back == HTTP_MOVED ? back : out;
	relay_init(&h->relay, &h->c->vm->door->pipes, &h->c->client, &h->up);
	h->relaying = true;
	buf_finish(&h->client.bytes);
	buf_finish(&h->upstream.bytes);
	return relay_upgraded(h);
}
