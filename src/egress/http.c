/* Plain HTTP/1 from the guest: each request's head is parsed strictly, judged, recorded, and only then sent on; one
 * exchange at a time, so that pipelined requests wait in the buffer and are judged as the policy then is. */
#include "egress/http.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "egress/inside.h"
#include "egress/refuse.h"

#define READ_BYTES 16384
#define PROGRESS_MS 30000
#define PROGRESS_BYTES ((uint64_t)64 << 20)

static void http_ready(struct conn *c)
{
	http_drive(c->state);
}

enum http_step http_read_client(struct http *h)
{
	struct sock *s = &h->c->client;
	struct buf *in = &h->client.bytes;

	if (!s->readable || s->eof || in->len >= HTTP_BUFFER)
		return HTTP_STUCK;
	size_t room = MIN((size_t)HTTP_BUFFER - in->len,
			  h->stage == HTTP_EXCHANGE ? (size_t)HTTP_BUFFER : (size_t)READ_BYTES);
	void *at = buf_reserve(in, room);
	ssize_t n = at ? sock_recv(s, at, room) : -ENOMEM;
	if (n > 0)
		buf_commit(in, (size_t)n);
	if (n >= 0)
		return HTTP_MOVED;
	if (n == -EAGAIN)
		return HTTP_STUCK;
	http_end_exchange(h, CLOSE_CLIENT, "reset by the guest");
	sock_reset(&h->up);
	conn_abort(h->c);
	return HTTP_GONE;
}

/* --- the end of an exchange --- */

static void forget_exchange(struct exchange *x)
{
	free(x->text);
	buf_finish(&x->repeat);
	*x = (struct exchange){0};
}

void http_end_exchange(struct http *h, enum close_outcome outcome, const char *reason)
{
	struct exchange *x = &h->x;
	const struct ending end = {
		.sent = x->sent,
		.received = x->received,
		.since_ms = x->since_ms,
		.status = x->status,
		.outcome = outcome,
		.address = h->address.family ? &h->address : NULL,
		.reason = reason,
	};

	conn_record_end(take_ptr(x->entry), &end);
	forget_exchange(x);
}

/* Appends an answer of our own. */
static void answer(struct http *h, struct refusal *r)
{
	r->to_head = h->x.to_head;
	refusal_write(&h->to_client, conn_host(h->c), h->c->target.port, r);
}

void http_fail(struct http *h, struct refusal *r, enum close_outcome outcome)
{
	struct conn *c = h->c;

	sock_reset(&h->up);
	if (h->x.response_begun) {
		http_end_exchange(h, outcome, r->reason);
		conn_abort(c);
		return;
	}
	r->close = true;
	answer(h, r);
	h->x.status = r->status;
	http_end_exchange(h, outcome, r->reason);
	conn_farewell(c, &h->to_client);
}

/* --- a request that is not sent on --- */

static struct request_line line_of(const struct http *h, const struct http1_request *req)
{
	return (struct request_line){.method = req->method, .path = req->path, .connection = h->first_seq};
}

/* The head is bad: nothing after it can be trusted to begin where it seems to. */
static enum http_step refuse_malformed(struct http *h, enum http1_result result)
{
	struct conn *c = h->c;
	struct verdict v;
	struct refusal r = {
		.status = (uint16_t)http1_error_status(result),
		.error = "http_request_error",
		.code = "malformed_request",
		.reason = v.reason,
		.close = true,
	};

	conn_judge(c, &c->target, &v, NULL);
	verdict_refuse(&v, http1_error_text(result));
	conn_record_denied(c, PROTO_HTTP, &v, &(struct request_line){.connection = h->first_seq}, r.status,
			   CLOSE_DENIED);
	answer(h, &r);
	conn_farewell(c, &h->to_client);
	return HTTP_GONE;
}

/* A denied request without a body leaves the connection usable. */
static enum http_step refuse_request(struct http *h, const struct http1_request *req, const struct verdict *v)
{
	struct conn *c = h->c;
	const struct request_line line = line_of(h, req);
	bool no_policy = !c->vm->policy;
	struct refusal r = {
		.status = no_policy ? 503 : 403,
		.error = no_policy ? "proxy_internal_error" : "http_request_denied",
		.code = no_policy    ? "no_policy"
			: v->decided ? "egress_denied"
				     : "egress_refused",
		.reason = v->reason,
		.policy = !no_policy,
		.retry_after_s = no_policy ? 1 : 0,
		.close = !req->keep_alive || req->framing.kind != HTTP1_BODY_NONE,
	};

	h->x.to_head = req->method_id == HTTP1_HEAD;
	conn_record_denied(c, PROTO_HTTP, v, &line, r.status, CLOSE_DENIED);
	answer(h, &r);
	buf_consume(&h->client.bytes, req->head.raw.len);
	forget_exchange(&h->x);
	if (!r.close)
		return HTTP_MOVED;
	conn_farewell(c, &h->to_client);
	return HTTP_GONE;
}

static enum http_step answer_inside(struct http *h, const struct http1_request *req)
{
	bool close = !req->keep_alive || req->framing.kind != HTTP1_BODY_NONE;

	inside_answer(h->c->vm, req, close, &h->to_client);
	buf_consume(&h->client.bytes, req->head.raw.len);
	if (!close)
		return HTTP_MOVED;
	conn_farewell(h->c, &h->to_client);
	return HTTP_GONE;
}

static void refuse_without_journal(struct http *h)
{
	struct refusal r = {
		.status = 503,
		.error = "proxy_internal_error",
		.code = "audit_unavailable",
		.reason = "the audit journal takes nothing, so nothing may pass",
		.retry_after_s = 1,
	};

	http_fail(h, &r, CLOSE_LIMIT);
}

/* --- a request that is sent on --- */

static void on_written(struct journal_entry *e, int code, void *arg)
{
	struct http *h = arg;

	if (code) {
		refuse_without_journal(h);
		return;
	}
	if (h->first_seq == 0)
		h->first_seq = journal_entry_seq(e);
	http_go_upstream(h);
}

/* What outlives the head's bytes. */
static void keep_request(struct http *h, const struct http1_request *req, const struct policy_request *judged)
{
	struct exchange *x = &h->x;

	x->text = xmalloc(req->method.len + req->path.len + 1);
	memcpy(x->text, req->method.p, req->method.len);
	memcpy(x->text + req->method.len, req->path.p, req->path.len);
	x->request = *judged;
	x->request.method = str_make(x->text, req->method.len);
	x->request.path = str_make(x->text + req->method.len, req->path.len);
	x->since_ms = x->told_ms = mono_ms();
	x->to_head = req->method_id == HTTP1_HEAD;
	x->websocket = req->websocket;
	x->keep_client = req->keep_alive;
	x->may_repeat =
		req->framing.kind == HTTP1_BODY_NONE &&
		(req->method_id == HTTP1_GET || req->method_id == HTTP1_HEAD || req->method_id == HTTP1_OPTIONS);
	http1_body_init(&x->request_body, &req->framing);
}

static enum http_step begin_exchange(struct http *h, const struct http1_request *req,
				     const struct policy_request *judged, const struct verdict *v)
{
	const struct request_line line = line_of(h, req);

	keep_request(h, req, judged);
	h->stage = HTTP_RECORDING;
	h->x.entry = conn_record(h->c, PROTO_HTTP, v, &line, on_written, h);
	if (!h->x.entry || http1_request_forward(req, false, NULL, 0, &h->to_upstream)) {
		refuse_without_journal(h);
		return HTTP_GONE;
	}
	buf_consume(&h->client.bytes, req->head.raw.len);
	return HTTP_MOVED;
}

static enum http_step judge(struct http *h, const struct http1_request *req)
{
	struct conn *c = h->c;
	struct policy_request r = c->target;
	struct verdict v;
	char reason[sizeof v.reason];

	if (c->inside && c->target.port == 80 && inside_host_agrees(req))
		return answer_inside(h, req);
	r.phase = POLICY_HTTP;
	r.method = req->method;
	r.path = req->path;
	conn_judge(c, &r, &v, NULL);
	if (v.verdict != VERDICT_DENIED && !policy_host_agrees(&c->target, str_of(req->host.name))) {
		snprintf(reason, sizeof reason, "Host names %.90s, the connection is to %.90s", req->host.name,
			 conn_host(c));
		verdict_refuse(&v, reason);
	}
	if (v.verdict == VERDICT_DENIED)
		return refuse_request(h, req, &v);
	return begin_exchange(h, req, &r, &v);
}

static enum http_step client_ended(struct http *h)
{
	struct verdict v = {.verdict = VERDICT_DENIED};

	if (h->client.bytes.len) {
		verdict_refuse(&v, "the connection ended inside a request head");
		conn_record_denied(h->c, PROTO_HTTP, &v, &(struct request_line){.connection = h->first_seq}, 0,
				   CLOSE_CLIENT);
	}
	conn_destroy(h->c);
	return HTTP_GONE;
}

/* The next head, once the answers before it are on their way. */
static enum http_step head_step(struct http *h)
{
	const struct http1_request_opts opts = {
		.head_max = HTTP_HEAD_MAX, .port = h->c->target.port, .require_host = true};
	struct http1_request req;

	enum http_step flushed = http_flush(&h->to_client, &(struct http_in){0}, &h->c->client, &h->moved);
	if (flushed == HTTP_GONE) {
		conn_destroy(h->c);
		return HTTP_GONE;
	}
	if (h->to_client.len)
		return HTTP_STUCK;
	http_check_idle_upstream(h);
	enum http1_result r = http1_request_parse(&h->client.scan, buf_str(&h->client.bytes), &opts, &req);
	if (http1_is_error(r))
		return refuse_malformed(h, r);
	if (r == HTTP1_OK) {
		h->client.scan = (struct http1_scan){0};
		h->head_since_ms = 0;
		return judge(h, &req);
	}
	if (h->c->client.eof)
		return client_ended(h);
	if (h->client.bytes.len == 0)
		buf_finish(&h->client.bytes);
	else if (h->head_since_ms == 0)
		h->head_since_ms = mono_ms();
	return http_read_client(h);
}

static void tell_progress(struct http *h, uint64_t now_ms)
{
	struct exchange *x = &h->x;
	uint64_t relayed_out = h->relaying ? h->relay.a_to_b.total : 0,
		 relayed_in = h->relaying ? h->relay.b_to_a.total : 0;
	uint64_t bytes = x->sent + x->received + relayed_out + relayed_in;

	if (now_ms - x->told_ms < PROGRESS_MS && bytes - x->told_bytes < PROGRESS_BYTES)
		return;
	x->told_ms = now_ms;
	x->told_bytes = bytes;
	journal_progress(x->entry, x->sent + relayed_out, x->received + relayed_in);
}

/* While the journal or the dialler is awaited nothing is read: the socket's buffer is bound enough. */
static enum http_step step(struct http *h)
{
	switch (h->stage) {
	case HTTP_HEAD:
		return head_step(h);
	case HTTP_EXCHANGE:
		return http_exchange_step(h);
	case HTTP_UPGRADED:
		return http_upgraded_step(h);
	case HTTP_RECORDING:
	case HTTP_DIALING:
		break;
	}
	return HTTP_STUCK;
}

void http_drive(struct http *h)
{
	for (unsigned i = 0; i < 64; i++) {
		enum http_step r = step(h);
		if (r == HTTP_GONE)
			return;
		if (h->x.entry)
			tell_progress(h, h->x.told_ms);
		if (r == HTTP_STUCK)
			return;
	}
	sock_later(&h->c->client);
}

/* --- time, policy, end --- */

static void head_tick(struct http *h, uint64_t now_ms)
{
	struct conn *c = h->c;
	struct verdict v = {.verdict = VERDICT_DENIED};
	struct refusal r = {.status = 408,
			    .error = "http_request_error",
			    .code = "request_timeout",
			    .reason = v.reason,
			    .close = true};

	if (h->head_since_ms == 0) {
		if (now_ms - c->active_ms >= c->vm->door->idle_ms)
			conn_destroy(c);
		return;
	}
	if (now_ms - h->head_since_ms < c->vm->door->peek_ms)
		return;
	verdict_refuse(&v, "the request's head did not end within the peek deadline");
	conn_record_denied(c, PROTO_HTTP, &v, &(struct request_line){.connection = h->first_seq}, 408, CLOSE_TIMEOUT);
	answer(h, &r);
	conn_farewell(c, &h->to_client);
}

static void time_out(struct http *h, const char *reason)
{
	struct refusal r = {.status = 504, .error = "http_response_timeout", .code = "timeout", .reason = reason};
	http_fail(h, &r, CLOSE_TIMEOUT);
}

static void http_tick(struct conn *c, uint64_t now_ms)
{
	struct http *h = c->state;
	uint64_t moved = h->moved + (h->relaying ? h->relay.a_to_b.total + h->relay.b_to_a.total : 0);

	if (moved != h->seen_moved)
		c->active_ms = now_ms;
	h->seen_moved = moved;
	if (h->stage == HTTP_HEAD && conn_total_passed(c, now_ms))
		conn_destroy(c);
	else if (h->stage == HTTP_HEAD)
		head_tick(h, now_ms);
	else if (conn_total_passed(c, now_ms))
		time_out(h, "the longest life of a connection is over");
	else if (h->stage >= HTTP_EXCHANGE && now_ms - c->active_ms >= c->vm->door->idle_ms)
		time_out(h, "idle for too long");
	else if (h->x.entry)
		tell_progress(h, now_ms);
}

static void http_policy(struct conn *c)
{
	struct http *h = c->state;
	bool allowed = c->vm->policy != NULL;

	if (h->stage == HTTP_HEAD) {
		sock_close(&h->up); /* dialled under rules that may be gone; the next request is judged anew */
		h->address = (struct ip){0};
		return;
	}
	if (allowed)
		allowed = policy_still_allows(c->vm->policy, &h->x.request);
	if (allowed && h->address.family && conn_refuse_address(c, &h->x.request, &h->address))
		allowed = false;
	if (allowed)
		return;
	http_end_exchange(h, CLOSE_CUT, "the policy changed and no longer allows it");
	sock_reset(&h->up);
	conn_abort(c);
}

static void http_destroy(struct conn *c)
{
	struct http *h = c->state;

	dial_cancel(h->dial);
	if (h->relaying) {
		h->x.sent += h->relay.a_to_b.total;
		h->x.received += h->relay.b_to_a.total;
		relay_finish(&h->relay);
	}
	http_end_exchange(h, CLOSE_CUT, "the VM's door was closed");
	sock_close(&h->up);
	buf_finish(&h->client.bytes);
	buf_finish(&h->upstream.bytes);
	buf_finish(&h->to_client);
	buf_finish(&h->to_upstream);
	free(h);
}

static const struct conn_phase http_phase = {
	.name = "http",
	.on_ready = http_ready,
	.on_tick = http_tick,
	.on_policy = http_policy,
	.destroy = http_destroy,
};

void http_enter(struct conn *c)
{
	struct http *h = xcalloc(1, sizeof *h);

	*h = (struct http){.c = c, .up = SOCK_NONE};
	h->client.bytes.max = h->upstream.bytes.max = HTTP_BUFFER;
	h->to_client.max = h->to_upstream.max = 4 * HTTP_BUFFER;
	c->active_ms = mono_ms();
	conn_enter(c, &http_phase, h);
	http_drive(h);
}
