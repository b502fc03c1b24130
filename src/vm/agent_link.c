#include "vm/agent_link.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"

#define READ_MAX ((size_t)256 << 10)
#define OUT_MAX ((size_t)4 << 20)
#define HELLO_INTERVAL_MS 300
#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS 5000
#define STALE_MAX ((uint64_t)64 << 20) /* bytes before the echo that an honest guest may have left over */

enum link_state { IDLE, CONNECTING, UP, PAUSED, STOPPED };

struct agent_link {
	int fd;
	enum link_state state;
	struct event *readable, *writable, *timer;
	const struct agent_link_ops *ops;
	void *user;
	uint8_t nonce[AGENT_NONCE_SIZE];
	struct buf in, out;
	size_t out_at;
	uint64_t stale; /* bytes dropped in this attempt */
	unsigned hellos, violations;
	uint64_t last_ms;
	bool crowded;   /* output went past AGENT_LINK_ROOM: somebody waits for on_room */
	unsigned epoch; /* of the connection, to see a reset below a callback */
};

static size_t queued(const struct agent_link *l)
{
	return l->out.len - l->out_at;
}

static void arm(struct agent_link *l, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};
	evtimer_add(l->timer, &tv);
}

static void drop_all(struct agent_link *l)
{
	buf_clear(&l->in);
	buf_clear(&l->out);
	l->out_at = 0;
	l->stale = 0;
	l->hellos = 0;
	l->crowded = false;
	l->epoch++;
	if (l->writable)
		event_del(l->writable);
	if (l->timer)
		evtimer_del(l->timer);
}

/* A half-sent frame of ours stays half-sent at the guest's: the flush before a repeated hello ends it. */
static void say_hello(struct agent_link *l)
{
	void *flush = l->hellos++ ? buf_reserve(&l->out, AGENT_FLUSH_SIZE) : NULL;
	if (flush) {
		memset(flush, 0xff, AGENT_FLUSH_SIZE);
		buf_commit(&l->out, AGENT_FLUSH_SIZE);
	}
	agent_hello_encode(AGENT_HELLO, l->nonce, &l->out);
	event_add(l->writable, NULL);
	arm(l, HELLO_INTERVAL_MS);
}

static void start(struct agent_link *l)
{
	drop_all(l);
	l->state = CONNECTING;
	if (getrandom(l->nonce, sizeof l->nonce, 0) != (ssize_t)sizeof l->nonce)
		abort();
	event_add(l->readable, NULL);
	say_hello(l);
}

static void give_up(struct agent_link *l, const char *reason)
{
	drop_all(l);
	l->state = STOPPED;
	event_del(l->readable);
	l->ops->failed(reason, l->user);
}

void agent_link_violation(struct agent_link *l, const char *reason)
{
	bool was_up = l->state == UP;
	unsigned pause = (unsigned)PAUSE_FIRST_MS << MIN(l->violations, 6U);

	if (l->state != UP && l->state != CONNECTING)
		return;
	log_limited(LOG_LEVEL_WARN, 2, "agent channel reset", "reason=%s", log_quote(reason));
	if (++l->violations >= AGENT_LINK_TRIES) {
		give_up(l, reason);
		return;
	}
	drop_all(l);
	l->state = PAUSED;
	event_del(l->readable);
	arm(l, MIN(pause, (unsigned)PAUSE_MAX_MS));
	if (was_up)
		l->ops->lost(reason, l->user);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct agent_link *l = arg;

	if (l->state == PAUSED)
		start(l);
	else if (l->state == CONNECTING && queued(l) == 0)
		say_hello(l);
	else if (l->state == CONNECTING)
		arm(l, HELLO_INTERVAL_MS);
}

static void look_for_echo(struct agent_link *l, struct str *in)
{
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint32_t version = 0;
	char reason[64];
	size_t before = in->len;

	int found = agent_sync(in, AGENT_HELLO_ACK, &version, nonce);
	l->stale += before - in->len;
	if (found && memcmp(nonce, l->nonce, sizeof nonce) == 0) {
		if (version != AGENT_VERSION) {
			snprintf(reason, sizeof reason, "the guest's agent speaks version %u, not %d", version,
				 AGENT_VERSION);
			give_up(l, reason);
			return;
		}
		l->state = UP;
		evtimer_del(l->timer);
		l->ops->up(l->user);
	} else if (l->stale > STALE_MAX) {
		agent_link_violation(l, "a flood of bytes before the nonce's echo");
	}
}

/* A hello that was repeated is answered again. */
static bool is_late_echo(const struct agent_link *l, const struct agent_frame *f)
{
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint32_t version;

	return f->type == AGENT_HELLO_ACK && agent_hello_decode(f->payload, &version, nonce) == 0 &&
	       memcmp(nonce, l->nonce, sizeof nonce) == 0;
}

static void take_frame(struct agent_link *l, struct str *in, bool *ret_more)
{
	struct agent_frame f;

	int r = agent_frame_next(in, AGENT_GUEST, &f);
	*ret_more = r == 1;
	if (r < 0) {
		agent_link_violation(l, "a malformed frame");
		return;
	}
	if (r == 0 || is_late_echo(l, &f))
		return;
	l->last_ms = mono_ms();
	unsigned epoch = l->epoch;
	if (!l->ops->on_frame(&f, l->user) && epoch == l->epoch) {
		char reason[64];
		snprintf(reason, sizeof reason, "a %s that was not allowed", agent_type_name(f.type));
		agent_link_violation(l, reason);
	}
}

static void digest(struct agent_link *l)
{
	unsigned epoch = l->epoch;
	struct str in = buf_str(&l->in);
	bool more = true;

	/* A reset, by whatever callback, has emptied the buffer: what is left of it is no longer ours to read. */
	while (more && epoch == l->epoch) {
		size_t before = in.len;
		if (l->state == CONNECTING) {
			look_for_echo(l, &in);
			more = l->state == UP || in.len != before;
		} else {
			take_frame(l, &in, &more);
		}
	}
	if (epoch == l->epoch)
		buf_consume(&l->in, l->in.len - in.len);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct agent_link *l = arg;
	void *to = buf_reserve(&l->in, READ_MAX);

	if (!to) {
		agent_link_violation(l, "a frame without end");
		return;
	}
	ssize_t n = recv(fd, to, READ_MAX, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		give_up(l, "the channel to the agent was closed");
		return;
	}
	buf_commit(&l->in, (size_t)n);
	digest(l);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct agent_link *l = arg;
	ssize_t n = send(fd, l->out.data + l->out_at, queued(l), MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		give_up(l, "the channel to the agent was closed");
		return;
	}
	l->out_at += n > 0 ? (size_t)n : 0;
	if (queued(l) == 0) {
		buf_clear(&l->out);
		l->out_at = 0;
		event_del(l->writable);
	} else if (l->out_at > AGENT_LINK_ROOM / 2) {
		buf_consume(&l->out, l->out_at);
		l->out_at = 0;
	}
	if (l->crowded && queued(l) < AGENT_LINK_ROOM / 2) {
		l->crowded = false;
		l->ops->on_room(l->user);
	}
}

struct agent_link *agent_link_create(struct event_base *base, int fd, const struct agent_link_ops *ops, void *user)
{
	struct agent_link *l = xcalloc(1, sizeof *l);

	*l = (struct agent_link){
		.fd = fd, .ops = ops, .user = user, .in.max = AGENT_FRAME_MAX + READ_MAX, .out.max = OUT_MAX};
	l->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, l);
	l->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, l);
	l->timer = evtimer_new(base, on_timer, l);
	if (!l->readable || !l->writable || !l->timer) {
		agent_link_destroy(l);
		return NULL;
	}
	return l;
}

void agent_link_destroy(struct agent_link *l)
{
	if (!l)
		return;
	if (l->readable)
		event_free(l->readable);
	if (l->writable)
		event_free(l->writable);
	if (l->timer)
		event_free(l->timer);
	closep(&l->fd);
	buf_finish(&l->in);
	buf_finish(&l->out);
	free(l);
}

void agent_link_connect(struct agent_link *l)
{
	l->violations = 0;
	start(l);
}

void agent_link_settle(struct agent_link *l)
{
	l->violations = 0;
}

void agent_link_stop(struct agent_link *l)
{
	drop_all(l);
	l->state = STOPPED;
	event_del(l->readable);
}

bool agent_link_is_up(const struct agent_link *l)
{
	return l->state == UP;
}

bool agent_link_has_room(const struct agent_link *l)
{
	return l->state == UP && queued(l) < AGENT_LINK_ROOM;
}

uint64_t agent_link_last_ms(const struct agent_link *l)
{
	return l->last_ms;
}

static int sent(struct agent_link *l, int r)
{
	if (r == 0)
		event_add(l->writable, NULL);
	if (queued(l) >= AGENT_LINK_ROOM)
		l->crowded = true;
	return r;
}

int agent_link_send(struct agent_link *l, enum agent_type type, uint32_t stream, struct str payload)
{
	return l->state == UP ? sent(l, agent_frame_encode(type, stream, payload, &l->out)) : -EPIPE;
}

int agent_link_send_record(struct agent_link *l, enum agent_type type, uint32_t stream, const struct wire_type *t,
			   const void *record)
{
	return l->state == UP ? sent(l, agent_record_encode(type, stream, t, record, &l->out)) : -EPIPE;
}

int agent_link_send_credit(struct agent_link *l, uint32_t stream, uint32_t bytes)
{
	return l->state == UP ? sent(l, agent_credit_encode(stream, bytes, &l->out)) : -EPIPE;
}
