/* The first bytes of a connection. They are peeked at, never taken: whatever phase follows finds them in the socket.
 * A name or literal that no rule allows is still looked at, because what kind of refusal the guest understands depends
 * on what it speaks. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "codec/http1.h"
#include "egress/refuse.h"

#define DENIED_WAIT_MS 2000 /* for the first bytes of what is denied anyhow, on a port where HTTP is not expected */

static void first_ready(struct conn *c);

/* A protocol of its own, or nothing said at all. */
static void as_raw(struct conn *c, enum close_outcome outcome, const char *reason)
{
	struct policy_request r = c->target;
	struct verdict v;

	r.phase = POLICY_RAW;
	conn_judge(c, &r, &v, NULL);
	if (v.verdict != VERDICT_DENIED && outcome != CLOSE_CLIENT) {
		tunnel_enter(c, POLICY_RAW, PROTO_TCP, &v);
		return;
	}
	if (v.verdict == VERDICT_DENIED && outcome == CLOSE_TIMEOUT && reason) {
		struct verdict connect;
		conn_judge(c, &c->target, &connect, NULL);
		if (connect.verdict != VERDICT_DENIED)
			verdict_refuse(&v, reason);
	} else if (outcome == CLOSE_CLIENT && reason && v.verdict != VERDICT_DENIED) {
		verdict_refuse(&v, reason);
	}
	conn_record_denied(c, PROTO_TCP, &v, NULL, 0, outcome);
	conn_abort(c);
}

static void refuse_hello(struct conn *c, const struct verdict *v, enum tls_alert alert)
{
	conn_record_denied(c, PROTO_TLS, v, NULL, 0, CLOSE_DENIED);
	refuse_tls(c, alert);
}

static void judge_hello(struct conn *c, const struct tls_hello *hello)
{
	struct policy_request r = c->target;
	struct verdict v;
	char reason[sizeof v.reason];

	r.phase = POLICY_TLS_OPAQUE;
	conn_judge(c, &r, &v, NULL);
	if (v.verdict == VERDICT_DENIED) {
		refuse_hello(c, &v, TLS_ALERT_ACCESS_DENIED);
		return;
	}
	if (!policy_host_agrees(&c->target, str_of(hello->sni))) {
		if (hello->sni[0])
			snprintf(reason, sizeof reason, "the ClientHello names %.90s, the connection is to %.90s",
				 hello->sni, conn_host(c));
		else
			snprintf(reason, sizeof reason,
				 "the ClientHello carries no server name, the connection is to %.150s", conn_host(c));
		verdict_refuse(&v, reason);
		refuse_hello(c, &v, TLS_ALERT_UNRECOGNIZED_NAME);
		return;
	}
	tunnel_enter(c, POLICY_TLS_OPAQUE, PROTO_TLS, &v);
}

/* A hello that is refused for what it is, at a host that is denied anyhow, is denied for that. */
static void refuse_bad_hello(struct conn *c, enum tls_hello_result result)
{
	struct verdict v;

	conn_judge(c, &c->target, &v, NULL);
	if (v.verdict != VERDICT_DENIED)
		verdict_refuse(&v, tls_hello_text(result));
	refuse_hello(c, &v, tls_hello_alert(result));
}

static void look_at_tls(struct conn *c, struct str in)
{
	struct tls_hello hello;
	enum tls_hello_result r = tls_hello_parse(in, &hello);

	switch (r) {
	case TLS_HELLO_MORE:
		if (c->client.eof || in.len >= TLS_HELLO_PEEK_MAX)
			refuse_bad_hello(c, TLS_HELLO_MALFORMED);
		return;
	case TLS_HELLO_OK:
		judge_hello(c, &hello);
		return;
	case TLS_HELLO_NOT_TLS:
		as_raw(c, CLOSE_DENIED, NULL);
		return;
	case TLS_HELLO_SSLV2:
	case TLS_HELLO_TOO_BIG:
	case TLS_HELLO_MALFORMED:
	case TLS_HELLO_OLD_VERSION:
	case TLS_HELLO_BAD_SNI:
		refuse_bad_hello(c, r);
		return;
	}
}

static bool is_common_request(struct str in)
{
	static const char *const methods[] = {"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH "};

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (str_has_prefix(in, str_of(methods[i])))
			return true;
	return false;
}

static void look_at_text(struct conn *c, struct str in)
{
	const struct http1_request_opts opts = {.port = c->target.port, .require_host = true};
	struct http1_scan scan = {0};
	struct http1_request req;

	if (is_common_request(in)) {
		http_enter(c);
		return;
	}
	enum http1_result r = http1_request_parse(&scan, in, &opts, &req);
	if (r == HTTP1_ERR_NOT_HTTP)
		as_raw(c, CLOSE_DENIED, NULL);
	else if (r != HTTP1_MORE || in.len >= TLS_HELLO_PEEK_MAX)
		http_enter(c);
}

static void first_ready(struct conn *c)
{
	static char scratch[TLS_HELLO_PEEK_MAX];

	if (!c->client.readable)
		return;
	ssize_t n = sock_peek(&c->client, scratch, sizeof scratch);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		as_raw(c, CLOSE_CLIENT, "closed before anything was sent");
		return;
	}
	if (scratch[0] == 0x16)
		look_at_tls(c, str_make(scratch, (size_t)n));
	else
		look_at_text(c, str_make(scratch, (size_t)n));
}

static bool is_web_port(uint16_t port)
{
	return port == 80 || port == 443;
}

/* Silence may be a protocol in which the server speaks first. A hello or a request that was begun and not ended is none:
 * it may not become raw, unjudged, by stalling (warn mode would let raw pass). */
static void peek_deadline(struct conn *c)
{
	static const char reason[] = "no ClientHello and no request within the peek deadline";
	struct verdict v;
	char byte;

	if (sock_peek(&c->client, &byte, 1) <= 0) {
		as_raw(c, CLOSE_TIMEOUT, reason);
		return;
	}
	conn_judge(c, &c->target, &v, NULL);
	if (v.verdict != VERDICT_DENIED)
		verdict_refuse(&v, reason);
	conn_record_denied(c, PROTO_TCP, &v, NULL, 0, CLOSE_TIMEOUT);
	conn_abort(c);
}

static void first_tick(struct conn *c, uint64_t now_ms)
{
	unsigned wait_ms = c->vm->door->peek_ms;
	struct verdict v;

	if (now_ms - c->opened_ms >= DENIED_WAIT_MS && !is_web_port(c->target.port)) {
		conn_judge(c, &c->target, &v, NULL);
		if (v.verdict == VERDICT_DENIED)
			wait_ms = MIN(wait_ms, DENIED_WAIT_MS);
	}
	if (now_ms - c->opened_ms >= wait_ms)
		peek_deadline(c);
}

/* Whether the name alone is enough to relay: then nothing needs to be waited for. */
static bool go_raw(struct conn *c)
{
	struct policy_decision d;
	struct verdict v;

	conn_judge(c, &c->target, &v, &d);
	if (v.verdict == VERDICT_DENIED || !d.raw)
		return false;
	tunnel_enter(c, POLICY_RAW, PROTO_TCP, &v);
	return true;
}

static void first_policy(struct conn *c)
{
	go_raw(c);
}

static const struct conn_phase first_phase = {
	.name = "first",
	.on_ready = first_ready,
	.on_tick = first_tick,
	.on_policy = first_policy,
};

void first_enter(struct conn *c)
{
	conn_enter(c, &first_phase, NULL);
	go_raw(c);
}
