#include "api/vmstream.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/buf.h"

#define TURN_MAX 16

struct vmstream {
	int fd;
	struct event *readable, *writable;
	const struct vmstream_ops *ops;
	void *user;
	struct buf waiting; /* a datagram that the socket did not take yet */
	bool reading, busy, destroyed;
};

static void stream_free(struct vmstream *s)
{
	if (s->readable)
		event_free(s->readable);
	if (s->writable)
		event_free(s->writable);
	close(s->fd);
	buf_finish(&s->waiting);
	free(s);
}

void vmstream_destroy(struct vmstream *s)
{
	if (!s)
		return;
	s->destroyed = true;
	if (!s->busy)
		stream_free(s);
}

static void tell_end(struct vmstream *s)
{
	event_del(s->readable);
	event_del(s->writable);
	s->ops->ended(s->user);
}

/* False: nothing more now. */
static bool receive_one(struct vmstream *s)
{
	static uint8_t space[STREAM_DATAGRAM_MAX + 1];
	ssize_t n = recv(s->fd, space, sizeof space, MSG_DONTWAIT);

	/* It closed with something of ours unread. Told once; what it said before is still there. */
	if (n < 0 && errno == ECONNRESET)
		n = recv(s->fd, space, sizeof space, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		tell_end(s);
		return false;
	}
	s->ops->data((enum stream_kind)space[0], str_make(space + 1, (size_t)n - 1), s->user);
	return true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct vmstream *s = arg;

	s->busy = true;
	for (int i = 0; i < TURN_MAX && !s->destroyed && s->reading; i++)
		if (!receive_one(s))
			break;
	s->busy = false;
	if (s->destroyed)
		stream_free(s);
}

static int send_waiting(struct vmstream *s)
{
	if (send(s->fd, s->waiting.data, s->waiting.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) {
			event_add(s->writable, NULL);
			return 0;
		}
		/* the reading side sees the end, after what was said before it */
	}
	buf_clear(&s->waiting);
	return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct vmstream *s = arg;

	s->busy = true;
	send_waiting(s);
	if (s->waiting.len == 0)
		s->ops->writable(s->user);
	s->busy = false;
	if (s->destroyed)
		stream_free(s);
}

struct vmstream *vmstream_create(struct event_base *base, int fd, const struct vmstream_ops *ops, void *user)
{
	struct vmstream *s = xcalloc(1, sizeof *s);

	*s = (struct vmstream){.fd = fd, .ops = ops, .user = user, .waiting = BUF_MAX(STREAM_DATAGRAM_MAX + 1), .reading = true};
	evutil_make_socket_nonblocking(fd);
	s->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, s);
	s->writable = event_new(base, fd, EV_WRITE, on_writable, s);
	if (!s->readable || !s->writable || event_add(s->readable, NULL)) {
		stream_free(s);
		return NULL;
	}
	return s;
}

bool vmstream_can_send(const struct vmstream *s)
{
	return s->waiting.len == 0;
}

int vmstream_send(struct vmstream *s, enum stream_kind kind, struct str data)
{
	buf_append_byte(&s->waiting, (uint8_t)kind);
	if (buf_append_str(&s->waiting, data)) {
		buf_clear(&s->waiting);
		return -EMSGSIZE;
	}
	return send_waiting(s);
}

int vmstream_send_record(struct vmstream *s, enum stream_kind kind, const struct wire_type *t, const void *record)
{
	_cleanup_(buf_finish) struct buf b = BUF_MAX(STREAM_DATAGRAM_MAX);

	int r = wire_encode(t, record, &b);
	return r ? r : vmstream_send(s, kind, buf_str(&b));
}

void vmstream_read_enable(struct vmstream *s, bool on)
{
	if (s->reading == on)
		return;
	s->reading = on;
	if (on)
		event_add(s->readable, NULL);
	else
		event_del(s->readable);
}
