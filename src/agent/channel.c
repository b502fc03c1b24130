#include "agent/channel.h"

#include <errno.h>
#include <unistd.h>

#include "base/log.h"

#define READ_MAX ((size_t)128 << 10)

void channel_init(struct channel *c)
{
	*c = (struct channel){.fd = -1, .in.max = AGENT_FLUSH_SIZE + READ_MAX, .out.max = 2 * CHANNEL_FULL};
}

void channel_finish(struct channel *c)
{
	if (c->fd >= 0)
		close(take_fd(c->fd));
	buf_finish(&c->in);
	buf_finish(&c->out);
}

void channel_attach(struct channel *c, int fd)
{
	c->fd = fd;
	channel_reset(c);
	buf_clear(&c->in);
}

void channel_reset(struct channel *c)
{
	c->synced = c->held = false;
	buf_clear(&c->out);
	c->out_at = 0;
	c->on_reset(c, c->user);
}

static size_t queued(const struct channel *c)
{
	return c->out.len - c->out_at;
}

bool channel_wants_input(const struct channel *c)
{
	return c->fd >= 0 && queued(c) < CHANNEL_FULL;
}

bool channel_wants_output(const struct channel *c)
{
	return c->fd >= 0 && queued(c) > 0;
}

bool channel_has_room(const struct channel *c)
{
	return c->fd >= 0 && c->synced && !c->held && queued(c) < CHANNEL_HIGH;
}

static void violation(struct channel *c, const char *what)
{
	log_limited(LOG_LEVEL_WARN, 2, "channel reset", "reason=%s", log_quote(what));
	channel_reset(c);
}

static void accept_hello(struct channel *c, uint32_t version, const uint8_t nonce[AGENT_NONCE_SIZE])
{
	bool again = c->synced && memcmp(nonce, c->nonce, AGENT_NONCE_SIZE) == 0;

	if (!again)
		channel_reset(c);
	memcpy(c->nonce, nonce, AGENT_NONCE_SIZE);
	c->held = false;
	/* Another version's host reads ours in the answer, and says so to its people. */
	c->synced = version == AGENT_VERSION;
	agent_hello_encode(AGENT_HELLO_ACK, nonce, &c->out);
}

/* Held: the host has promised silence. */
static bool allowed_now(const struct channel *c, enum agent_type type)
{
	return !c->held || type == AGENT_RESUME || type == AGENT_HELLO;
}

static bool dispatch(struct channel *c, const struct agent_frame *f)
{
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint32_t version;

	if (!allowed_now(c, f->type))
		return false;
	if (f->type != AGENT_HELLO)
		return c->on_frame(c, f, c->user);
	if (agent_hello_decode(f->payload, &version, nonce))
		return false;
	accept_hello(c, version, nonce);
	return true;
}

static void digest(struct channel *c)
{
	struct str in = buf_str(&c->in);
	uint8_t nonce[AGENT_NONCE_SIZE];
	struct agent_frame f;
	uint32_t version;

	while (queued(c) < CHANNEL_FULL) {
		if (!c->synced) {
			if (agent_sync(&in, AGENT_HELLO, &version, nonce) != 1)
				break;
			accept_hello(c, version, nonce);
			continue;
		}
		int r = agent_frame_next(&in, AGENT_HOST, &f);
		if (r == 0)
			break;
		if (r < 0 && in.p[0] == '\xff')
			channel_reset(c); /* a flush: the host begins anew */
		else if (r < 0)
			violation(c, "malformed frame");
		else if (!dispatch(c, &f))
			violation(c, agent_type_name(f.type));
	}
	buf_consume(&c->in, c->in.len - in.len);
}

/* A virtio port gives a page a read: several are taken before they are looked at. */
static int fill(struct channel *c)
{
	size_t room = MIN(c->in.max - c->in.len, READ_MAX);
	void *to = room ? buf_reserve(&c->in, room) : NULL;
	size_t got = 0;

	while (to && got < room) {
		ssize_t n = read(c->fd, (char *)to + got, room - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || got))
			break;
		if (n <= 0 && got == 0)
			return n < 0 ? -errno : -EPIPE;
		if (n == 0)
			break; /* said again, when what came before is through */
		got += (size_t)n;
	}
	buf_commit(&c->in, got);
	return 0;
}

int channel_read(struct channel *c)
{
	int r = fill(c);

	if (r == 0)
		digest(c);
	return r;
}

int channel_write(struct channel *c)
{
	while (queued(c)) {
		ssize_t n = write(c->fd, c->out.data + c->out_at, queued(c));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_at += (size_t)n;
	}
	buf_clear(&c->out);
	c->out_at = 0;
	return 0;
}

/* What is written already makes room before the buffer grows. */
static void compact(struct channel *c)
{
	if (c->out_at >= CHANNEL_HIGH || c->out_at == c->out.len) {
		buf_consume(&c->out, c->out_at);
		c->out_at = 0;
	}
}

void channel_send(struct channel *c, enum agent_type type, uint32_t stream, struct str payload)
{
	compact(c);
	if (agent_frame_encode(type, stream, payload, &c->out))
		violation(c, "output overflow");
}

void channel_send_record(struct channel *c, enum agent_type type, uint32_t stream, const struct wire_type *t,
			 const void *record)
{
	compact(c);
	if (agent_record_encode(type, stream, t, record, &c->out))
		violation(c, "output overflow");
}

void channel_send_credit(struct channel *c, uint32_t stream, uint32_t bytes)
{
	compact(c);
	if (agent_credit_encode(stream, bytes, &c->out))
		violation(c, "output overflow");
}

ssize_t channel_send_from(struct channel *c, enum agent_type type, uint32_t stream, int fd, size_t max)
{
	compact(c);
	uint8_t *to = buf_reserve(&c->out, AGENT_HEADER_SIZE + AGENT_DATA_MAX);
	if (!to)
		return -EAGAIN;
	ssize_t n = read(fd, to + AGENT_HEADER_SIZE, MIN(max, AGENT_DATA_MAX));
	if (n <= 0)
		return n < 0 ? -errno : 0;
	if (agent_header_encode(type, stream, (size_t)n, to))
		return -EINVAL;
	buf_commit(&c->out, AGENT_HEADER_SIZE + (size_t)n);
	return n;
}
