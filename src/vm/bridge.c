/* Theory of operation.
 *
 * A stream is in one of four states. WAITING: its client has not made its request. OPEN: the guest knows its id. ORPHAN:
 * the client is gone and CLOSE was sent; it waits for the guest's last word, and what comes until then is dropped,
 * uncredited. ENDING: the last word was said; what is queued is written to the client and the socket is
 * closed.
 *
 * Toward the guest at most one datagram of the client's is held (`held`): while it is, the socket is not read, so the
 * kernel's buffer fills and the client waits. Its hang-up is still seen, by EV_CLOSED. Toward the client, what the
 * socket does not take is queued; only what the socket took is credited to the guest, so the queue is bounded by the
 * window. A guest that says little at a time makes it dearer than that: output is put together, and a stream for which
 * there is no memory left (QUEUED_MAX, all streams together) loses its client.
 *
 * Streams die marked (`dead`) and are freed by sweep() at the end of each entry point, so no handler below it holds a
 * pointer to freed memory. */
#include "vm/bridge.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "os/ipc.h"
#include "vm/bridge_internal.h"

#define CREDIT_STEP (AGENT_WINDOW / 4)
/* More than all windows, less than the memory that iron-vm has. */
#define QUEUED_MAX ((size_t)160 << 20)
#define MALLOC_OVERHEAD 16
#define TURN_MAX 16 /* datagrams of one client before others get their turn */

/* A socket that is closed over unread datagrams resets, and takes what was said last with it. */
static void close_socket(int fd)
{
	char nothing;

	shutdown(fd, SHUT_RD);
	while (recv(fd, &nothing, 1, MSG_DONTWAIT | MSG_TRUNC) > 0)
		;
	close(fd);
}

static size_t memory_of(size_t size)
{
	return sizeof(struct datagram) + size + MALLOC_OVERHEAD;
}

static void drop_first(struct stream *s)
{
	struct datagram *d = s->head;

	s->head = d->next;
	if (s->last == &d->next)
		s->last = &s->head;
	s->bridge->queued -= memory_of(d->size);
	free(d);
}

static void close_client(struct stream *s)
{
	if (s->readable)
		event_free(take_ptr(s->readable));
	if (s->writable)
		event_free(take_ptr(s->writable));
	if (s->hung_up)
		event_free(take_ptr(s->hung_up));
	if (s->fd >= 0)
		close_socket(take_fd(s->fd));
	while (s->head)
		drop_first(s);
	buf_finish(&s->held);
}

static void sweep(struct bridge *b)
{
	for (struct stream **p = &b->head; *p;) {
		struct stream *s = *p;
		if (!s->dead) {
			p = &s->next;
			continue;
		}
		*p = s->next;
		b->n--;
		close_client(s);
		free(s);
	}
}

void bridge_orphan(struct stream *s)
{
	close_client(s);
	if (s->state == OPEN && agent_link_send(s->bridge->link, AGENT_CLOSE, s->id, STR_NONE) == 0)
		s->state = ORPHAN;
	else if (s->state != ORPHAN)
		s->dead = true;
}

/* 0, or a negative errno; -EAGAIN: it was not taken. */
static int send_datagram(const struct stream *s, enum stream_kind kind, struct str payload)
{
	uint8_t first = (uint8_t)kind;
	struct iovec iov[2] = {{.iov_base = &first, .iov_len = 1},
			       {.iov_base = (void *)(uintptr_t)payload.p, .iov_len = payload.len}};
	struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};

	return sendmsg(s->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Output goes into the last datagram where that is output of the same kind: a client does not tell them apart. */
static bool extend_last(struct stream *s, enum stream_kind kind, struct str payload)
{
	struct datagram *d = s->head ? *s->last : NULL;

	if (!d || d->bytes[0] != kind || (kind != STREAM_STDOUT && kind != STREAM_STDERR) ||
	    d->len + payload.len > 1 + STREAM_DATA_MAX)
		return false;
	if (d->len + payload.len > d->size) {
		size_t size = MIN(2 * (d->len + payload.len), 1 + STREAM_DATA_MAX);
		s->bridge->queued += size - d->size;
		d = *s->last = xrealloc(d, sizeof *d + size);
		d->size = (uint32_t)size;
	}
	memcpy(d->bytes + d->len, payload.p, payload.len);
	d->len += (uint32_t)payload.len;
	return true;
}

static void append_datagram(struct stream *s, enum stream_kind kind, struct str payload)
{
	uint32_t size = (uint32_t)(1 + payload.len);
	struct datagram *d = xmalloc(sizeof *d + size);

	*d = (struct datagram){.len = size, .size = size};
	d->bytes[0] = (uint8_t)kind;
	if (payload.len)
		memcpy(d->bytes + 1, payload.p, payload.len);
	s->last = s->head ? &(*s->last)->next : &s->head;
	*s->last = d;
	s->bridge->queued += memory_of(size);
}

static void enqueue(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (s->bridge->queued > QUEUED_MAX) {
		bridge_orphan(s);
		return;
	}
	if (!extend_last(s, kind, payload))
		append_datagram(s, kind, payload);
	event_add(s->writable, NULL);
}

static bool uses_credit(enum stream_kind kind)
{
	return kind == STREAM_STDOUT || kind == STREAM_STDERR || kind == STREAM_EXEC_ROW || kind == STREAM_INFO;
}

static void give_credit(struct stream *s, enum stream_kind kind, size_t len)
{
	if (s->state != OPEN || !uses_credit(kind))
		return;
	s->owed += (uint32_t)len;
	if (s->owed < CREDIT_STEP)
		return;
	s->may_receive += s->owed;
	agent_link_send_credit(s->bridge->link, s->id, s->owed);
	s->owed = 0;
}

void bridge_deliver(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (s->fd < 0)
		return;
	int r = s->head ? -EAGAIN : send_datagram(s, kind, payload);
	if (r == 0)
		give_credit(s, kind, payload.len);
	else if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS)
		enqueue(s, kind, payload);
	else
		bridge_orphan(s);
}

void bridge_end(struct stream *s)
{
	s->state = ENDING;
	if (!s->head) {
		s->dead = true;
		return;
	}
	event_del(s->readable);
	event_add(s->hung_up, NULL);
}

void bridge_deliver_error(struct stream *s, const char *code, const char *message)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct stream_error e = {.code = str_of(code), .message = str_of(message)};

	e.message.len = MIN(e.message.len, (size_t)512);
	if (wire_encode(&stream_error_wire, &e, &b) == 0)
		bridge_deliver(s, STREAM_ERROR, buf_str(&b));
}

static void hold(struct stream *s, struct str in)
{
	buf_append_str(&s->held, in);
	event_del(s->readable);
	event_add(s->hung_up, NULL);
}

void bridge_resume(struct stream *s)
{
	_cleanup_(buf_finish) struct buf in = {0};

	if (s->dead || s->fd < 0 || s->held.len == 0 || !bridge_fits(s, buf_str(&s->held)))
		return;
	in = s->held;
	s->held = (struct buf){.max = STREAM_DATAGRAM_MAX};
	event_del(s->hung_up);
	event_add(s->readable, NULL);
	bridge_on_datagram(s, buf_str(&in));
}

/* false: nothing more to read now. */
static bool read_client(struct stream *s)
{
	static uint8_t space[STREAM_DATAGRAM_MAX];
	ssize_t n = recv(s->fd, space, sizeof space, MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		bridge_orphan(s);
		return false;
	}
	if ((size_t)n > sizeof space) {
		bridge_refuse(s, "datagram too large");
		return false;
	}
	struct str in = str_make(space, (size_t)n);
	if (!bridge_fits(s, in)) {
		hold(s, in);
		return false;
	}
	bridge_on_datagram(s, in);
	return s->fd >= 0;
}

static void on_client(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;
	struct bridge *b = s->bridge;

	if (what & EV_TIMEOUT)
		bridge_refuse(s, "no request came");
	else
		for (int i = 0; i < TURN_MAX && read_client(s); i++)
			;
	sweep(b);
}

static void on_hang_up(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;
	struct bridge *b = s->bridge;

	bridge_orphan(s);
	sweep(b);
}

static void flush(struct stream *s)
{
	while (s->head) {
		struct datagram *d = s->head;
		int r = send_datagram(s, d->bytes[0], str_make(d->bytes + 1, d->len - 1));
		if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS)
			return;
		if (r) {
			bridge_orphan(s);
			return;
		}
		give_credit(s, d->bytes[0], d->len - 1);
		drop_first(s);
	}
	event_del(s->writable);
	if (s->state == ENDING)
		s->dead = true;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;
	struct bridge *b = s->bridge;

	flush(s);
	sweep(b);
}

bool bridge_on_frame(struct bridge *b, const struct agent_frame *f)
{
	struct stream *s = b->head;

	while (s && (s->id != f->stream || (s->state != OPEN && s->state != ORPHAN)))
		s = s->next;
	bool ok = s && bridge_on_guest(s, f->type, f->payload);
	sweep(b);
	return ok;
}

void bridge_on_room(struct bridge *b)
{
	for (struct stream *s = b->head; s; s = s->next)
		bridge_resume(s);
	sweep(b);
}

void bridge_lost(struct bridge *b, const char *reason)
{
	for (struct stream *s = b->head; s; s = s->next) {
		if (s->dead || s->state == ENDING)
			continue;
		bridge_deliver_error(s, "vm_gone", reason);
		if (s->fd >= 0)
			bridge_end(s);
		else
			s->dead = true;
	}
	b->last_id = 0;
	sweep(b);
}

size_t bridge_count(const struct bridge *b)
{
	return b->n;
}

static struct stream *make_stream(struct bridge *b, int fd)
{
	struct stream *s = xcalloc(1, sizeof *s);
	struct timeval wait = {.tv_sec = BRIDGE_REQUEST_WAIT_MS / 1000};

	*s = (struct stream){.bridge = b,
			     .fd = fd,
			     .held.max = STREAM_DATAGRAM_MAX,
			     .may_send = AGENT_WINDOW,
			     .may_receive = AGENT_WINDOW};
	s->readable = event_new(b->base, fd, EV_READ | EV_PERSIST, on_client, s);
	s->writable = event_new(b->base, fd, EV_WRITE | EV_PERSIST, on_writable, s);
	s->hung_up = event_new(b->base, fd, EV_CLOSED | EV_PERSIST, on_hang_up, s);
	if (!s->readable || !s->writable || !s->hung_up || event_add(s->readable, &wait)) {
		close_client(s);
		free(s);
		return NULL;
	}
	return s;
}

int bridge_open(struct bridge *b, int *ret_fd, struct error *reterr)
{
	int pair[2];

	if (b->n >= AGENT_STREAMS_MAX)
		return error_set(reterr, -EAGAIN, "this machine has %d streams open already; end some first",
				 AGENT_STREAMS_MAX);
	int r = ipc_socketpair(pair);
	if (r)
		return error_set(reterr, r, "no socket for the stream: %s", strerror(-r));
	struct stream *s = make_stream(b, pair[0]);
	if (!s) {
		close(pair[1]);
		return error_set(reterr, -ENOMEM, "no memory for the stream");
	}
	s->next = b->head;
	b->head = s;
	b->n++;
	*ret_fd = pair[1];
	return 0;
}

struct bridge *bridge_create(struct event_base *base, struct agent_link *link, const struct bridge_ops *ops, void *user)
{
	struct bridge *b = xcalloc(1, sizeof *b);

	*b = (struct bridge){.base = base, .link = link, .ops = ops, .user = user};
	return b;
}

void bridge_destroy(struct bridge *b)
{
	if (!b)
		return;
	for (struct stream *s = b->head; s; s = s->next)
		s->dead = true;
	sweep(b);
	free(b);
}
