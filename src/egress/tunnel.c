/* A connection that is passed on as it is: TLS whose ClientHello was judged, or raw TCP by a rule for it.
 *
 * record (wait for the journal) -> dial (resolve, judge each address) -> relay by splice(2).
 * Raw TCP is dialled before the guest said a word, so that protocols in which the server speaks first work; what the
 * guest then says first is held until it is known not to be a ClientHello for another name. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "egress/refuse.h"

#define PROGRESS_MS 30000
#define PROGRESS_BYTES ((uint64_t)64 << 20)

struct tunnel {
	struct policy_request request;
	enum egress_protocol protocol;
	struct journal_entry *entry;
	struct dial *dial;
	struct sock up;
	struct relay relay;
	bool relaying;
	struct ip address;
	struct ending ending;
	uint64_t seen_bytes;          /* at the last tick */
	uint64_t told_ms, told_bytes; /* the last progress record */
	uint64_t held_since_ms;       /* 0: nothing came yet */
};

static uint64_t sent(const struct tunnel *t)
{
	return t->relaying ? t->relay.a_to_b.total : 0;
}

static uint64_t received(const struct tunnel *t)
{
	return t->relaying ? t->relay.b_to_a.total : 0;
}

static void tunnel_destroy(struct conn *c)
{
	struct tunnel *t = c->state;

	dial_cancel(t->dial);
	t->ending.sent = sent(t);
	t->ending.received = received(t);
	t->ending.address = t->address.family ? &t->address : NULL;
	conn_record_end(t->entry, &t->ending);
	if (t->relaying)
		relay_finish(&t->relay);
	sock_close(&t->up);
	free(t);
}

/* now_ms: the last tick's will do where only the bytes count. */
static void tell_progress(struct tunnel *t, uint64_t now_ms)
{
	uint64_t bytes = sent(t) + received(t);

	if (now_ms - t->told_ms < PROGRESS_MS && bytes - t->told_bytes < PROGRESS_BYTES)
		return;
	t->told_ms = MAX(t->told_ms, now_ms);
	t->told_bytes = bytes;
	journal_progress(t->entry, sent(t), received(t));
}

/* Both sides learn that this is not a regular end. */
static void cut(struct conn *c, enum close_outcome outcome, const char *reason)
{
	struct tunnel *t = c->state;

	t->ending.outcome = outcome;
	t->ending.reason = reason;
	sock_reset(&t->up);
	conn_abort(c);
}

/* Nothing went upstream yet: TLS is told by an alert, which explains more than a reset. */
static void refuse(struct conn *c, enum close_outcome outcome, const char *reason, enum tls_alert alert)
{
	struct tunnel *t = c->state;

	if (t->protocol != PROTO_TLS) {
		cut(c, outcome, reason);
		return;
	}
	t->ending.outcome = outcome;
	t->ending.reason = reason;
	refuse_tls(c, alert);
}

static enum relay_state release_held(struct conn *c, struct tunnel *t)
{
	t->relay.hold = false;
	return relay_drive(&t->relay);
}

/* What the guest says first on raw TCP. RELAY_WAIT also where the connection is gone: *ret_gone says so. */
static enum relay_state inspect(struct conn *c, struct tunnel *t, bool *ret_gone)
{
	static char scratch[TLS_HELLO_PEEK_MAX];
	struct tls_hello hello;

	*ret_gone = false;
	if (!c->client.readable)
		return RELAY_WAIT;
	ssize_t n = sock_peek(&c->client, scratch, sizeof scratch);
	if (n == -EAGAIN)
		return RELAY_WAIT;
	if (n < 0)
		return RELAY_A_FAILED;
	if (n == 0)
		return release_held(c, t);
	enum tls_hello_result r = tls_hello_parse(str_make(scratch, (size_t)n), &hello);
	if (r == TLS_HELLO_NOT_TLS)
		return release_held(c, t);
	if (r == TLS_HELLO_OK && policy_host_agrees(&t->request, str_of(hello.sni)))
		return release_held(c, t);
	if (r == TLS_HELLO_MORE && n < (ssize_t)sizeof scratch) {
		if (!t->held_since_ms)
			t->held_since_ms = mono_ms();
		return RELAY_WAIT;
	}
	*ret_gone = true;
	cut(c, CLOSE_DENIED,
	    r == TLS_HELLO_OK ? "the ClientHello names another host than the connection" : tls_hello_text(r));
	return RELAY_WAIT;
}

static void drive(struct conn *c)
{
	struct tunnel *t = c->state;
	bool gone;

	if (!t->relaying)
		return;
	enum relay_state s = relay_drive(&t->relay);
	tell_progress(t, t->told_ms);
	if (s == RELAY_WAIT && t->relay.hold) {
		s = inspect(c, t, &gone);
		if (gone)
			return;
	}
	/* TLS peers often reset what they have closed already, not waiting for the other's close_notify */
	if ((s == RELAY_A_FAILED && t->relay.a_to_b.done) || (s == RELAY_B_FAILED && t->relay.b_to_a.done))
		s = RELAY_DONE;
	switch (s) {
	case RELAY_WAIT:
		return;
	case RELAY_DONE:
		t->ending.outcome = CLOSE_DONE;
		t->ending.reason = NULL;
		conn_destroy(c);
		return;
	case RELAY_A_FAILED:
		cut(c, CLOSE_CLIENT, "reset by the guest");
		return;
	case RELAY_B_FAILED:
		cut(c, CLOSE_UPSTREAM, "reset by the upstream");
		return;
	case RELAY_NO_PIPE:
		cut(c, CLOSE_LIMIT, "out of descriptors");
		return;
	}
}

static void on_up_ready(void *arg)
{
	drive(arg);
}

static const char *may_not_dial(const struct ip *address, void *arg)
{
	struct conn *c = arg;
	struct tunnel *t = c->state;
	return conn_refuse_address(c, &t->request, address);
}

static void on_dialled(int code, int fd, const struct ip *address, const char *reason, void *arg)
{
	struct conn *c = arg;
	struct tunnel *t = c->state;

	t->dial = NULL;
	if (code) {
		enum close_outcome outcome = code == -EACCES      ? CLOSE_DENIED
					     : code == -ETIMEDOUT ? CLOSE_TIMEOUT
								  : CLOSE_UPSTREAM;
		if (code == -EACCES)
			vm_note_denial(c->vm, c, t->protocol, reason);
		refuse(c, outcome, reason, code == -EACCES ? TLS_ALERT_ACCESS_DENIED : TLS_ALERT_INTERNAL_ERROR);
		return;
	}
	t->address = *address;
	if (sock_open(&t->up, c->vm->door->base, fd, on_up_ready, c)) {
		refuse(c, CLOSE_LIMIT, "out of memory", TLS_ALERT_INTERNAL_ERROR);
		return;
	}
	relay_init(&t->relay, &c->vm->door->pipes, &c->client, &t->up);
	t->relay.hold = t->request.phase == POLICY_RAW;
	t->relaying = true;
	c->active_ms = t->told_ms = mono_ms();
	drive(c);
}

static void on_written(struct journal_entry *e, int code, void *arg)
{
	struct conn *c = arg;
	struct tunnel *t = c->state;
	const struct dial_handler handler = {.refuse = may_not_dial, .done = on_dialled, .arg = c};

	if (code) {
		refuse(c, CLOSE_LIMIT, "the audit journal takes nothing", TLS_ALERT_INTERNAL_ERROR);
		return;
	}
	t->dial = dial_start(c->vm->door->dialer, t->request.name, &t->request.ip, t->request.port,
			     c->vm->door->connect_ms, &handler);
	if (!t->dial)
		refuse(c, CLOSE_LIMIT, "out of memory", TLS_ALERT_INTERNAL_ERROR);
}

static void tunnel_tick(struct conn *c, uint64_t now_ms)
{
	struct tunnel *t = c->state;
	uint64_t bytes = sent(t) + received(t);

	if (conn_total_passed(c, now_ms)) {
		cut(c, CLOSE_TIMEOUT, "the longest life of a connection is over");
		return;
	}
	if (!t->relaying)
		return;
	if (bytes != t->seen_bytes)
		c->active_ms = now_ms;
	t->seen_bytes = bytes;
	if (now_ms - c->active_ms >= c->vm->door->idle_ms)
		cut(c, CLOSE_TIMEOUT, "idle for too long");
	else if (t->held_since_ms && t->relay.hold && now_ms - t->held_since_ms >= c->vm->door->peek_ms)
		cut(c, CLOSE_TIMEOUT, "the ClientHello did not end within the peek deadline");
	else
		tell_progress(t, now_ms);
}

static void tunnel_policy(struct conn *c)
{
	struct tunnel *t = c->state;
	bool allowed = c->vm->policy && policy_still_allows(c->vm->policy, &t->request);

	if (allowed && t->address.family && conn_refuse_address(c, &t->request, &t->address))
		allowed = false;
	if (!allowed)
		cut(c, CLOSE_CUT, "the policy changed and no longer allows it");
}

static const struct conn_phase tunnel_phase = {
	.name = "tunnel",
	.on_ready = drive,
	.on_tick = tunnel_tick,
	.on_policy = tunnel_policy,
	.destroy = tunnel_destroy,
};

void tunnel_enter(struct conn *c, enum policy_phase phase, enum egress_protocol protocol, const struct verdict *v)
{
	struct tunnel *t = xcalloc(1, sizeof *t);

	*t = (struct tunnel){.request = c->target, .protocol = protocol, .up = SOCK_NONE};
	t->request.phase = phase;
	t->ending =
		(struct ending){.outcome = CLOSE_CUT, .since_ms = c->opened_ms, .reason = "the VM's door was closed"};
	conn_enter(c, &tunnel_phase, t);
	t->entry = conn_record(c, protocol, v, NULL, on_written, c);
	if (!t->entry)
		refuse(c, CLOSE_LIMIT, "the audit journal takes nothing", TLS_ALERT_INTERNAL_ERROR);
}
