/* Theory of operation.
 *
 * A stream is in one of four states. WAITING: its client has not said EXEC. OPEN: the guest knows its id. ORPHAN: the
 * client is gone and CLOSE was sent; it waits for the guest's last word, and what comes until then is dropped,
 * uncredited. ENDING: the guest has said its last word; what is queued is written to the client and the socket is
 * closed.
 *
 * Toward the guest at most one datagram of the client's is held (`held`): while it is, the socket is not read, so the
 * kernel's buffer fills and the client waits. Its hang-up is still seen, by EV_CLOSED. Toward the client, what the
 * socket does not take is queued; only what the socket took is credited to the guest, so the queue is bounded by the
 * window.
 *
 * Streams die marked (`dead`) and are freed by sweep() at the end of each entry point, so no handler below it holds a
 * pointer to freed memory. */
#include "vm/bridge.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "os/ipc.h"

#define CREDIT_STEP (AGENT_WINDOW / 4)
#define TURN_MAX 16 /* datagrams of one client before others get their turn */

enum stream_state { WAITING, OPEN, ORPHAN, ENDING };

struct datagram {
	struct datagram *next;
	size_t len;
	uint8_t bytes[];
};

struct stream {
	struct stream *next;
	struct bridge *bridge;
	enum stream_state state;
	bool dead, eof, started, tty;
	int fd;
	struct event *readable, *writable, *hung_up;
	uint32_t id;
	struct buf held;
	struct datagram *head, **tail;
	uint32_t may_send, may_receive, owed;
};

struct bridge {
	struct event_base *base;
	struct agent_link *link;
	struct stream *head;
	size_t n;
	uint32_t last_id;
};

static void close_client(struct stream *s)
{
	if (s->readable)
		event_free(take_ptr(s->readable));
	if (s->writable)
		event_free(take_ptr(s->writable));
	if (s->hung_up)
		event_free(take_ptr(s->hung_up));
	if (s->fd >= 0)
		close(take_fd(s->fd));
	while (s->head) {
		struct datagram *d = s->head;
		s->head = d->next;
		free(d);
	}
	s->tail = &s->head;
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

/* Nobody listens any more. The guest's process learns it by SIGHUP. */
static void orphan(struct stream *s)
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

static void enqueue(struct stream *s, enum stream_kind kind, struct str payload)
{
	struct datagram *d = xmalloc(sizeof *d + 1 + payload.len);

	*d = (struct datagram){.len = 1 + payload.len};
	d->bytes[0] = (uint8_t)kind;
	if (payload.len)
		memcpy(d->bytes + 1, payload.p, payload.len);
	*s->tail = d;
	s->tail = &d->next;
	event_add(s->writable, NULL);
}

static void give_credit(struct stream *s, enum stream_kind kind, size_t len)
{
	if (s->state != OPEN || (kind != STREAM_STDOUT && kind != STREAM_STDERR))
		return;
	s->owed += (uint32_t)len;
	if (s->owed < CREDIT_STEP)
		return;
	s->may_receive += s->owed;
	agent_link_send_credit(s->bridge->link, s->id, s->owed);
	s->owed = 0;
}

static void deliver(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (s->fd < 0)
		return;
	int r = s->head ? -EAGAIN : send_datagram(s, kind, payload);
	if (r == 0)
		give_credit(s, kind, payload.len);
	else if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS)
		enqueue(s, kind, payload);
	else
		orphan(s);
}

static void end(struct stream *s)
{
	s->state = ENDING;
	if (!s->head) {
		s->dead = true;
		return;
	}
	event_del(s->readable);
	event_add(s->hung_up, NULL);
}

static void deliver_error(struct stream *s, const char *code, const char *message)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct stream_error e = {.code = str_of(code), .message = str_of(message)};

	e.message.len = MIN(e.message.len, (size_t)512);
	if (wire_encode(&stream_error_wire, &e, &b) == 0)
		deliver(s, STREAM_ERROR, buf_str(&b));
}

/* The client broke the protocol: it is told, and its process loses its listener. */
static void refuse(struct stream *s, const char *message)
{
	deliver_error(s, "bad_request", message);
	orphan(s);
}

/* --- from the client --- */

static void forward(struct stream *s, enum agent_type type, struct str payload)
{
	agent_link_send(s->bridge->link, type, s->id, payload);
}

static void on_exec(struct stream *s, struct str payload)
{
	struct stream_exec x;

	if (s->state != WAITING || wire_decode(&stream_exec_wire, payload, &x)) {
		refuse(s, "the first message, and only it, is a well-formed EXEC");
		return;
	}
	if ((x.argv.len == 0) == (x.command.len == 0)) {
		refuse(s, "give either argv or command");
		return;
	}
	s->id = ++s->bridge->last_id;
	s->tty = x.tty;
	s->state = OPEN;
	event_remove_timer(s->readable);
	forward(s, AGENT_EXEC, payload);
}

static void on_stdin(struct stream *s, struct str payload)
{
	if (payload.len > STREAM_DATA_MAX || s->eof) {
		refuse(s, s->eof ? "input after its end" : "input datagram too large");
		return;
	}
	if (payload.len == 0)
		return;
	s->may_send -= (uint32_t)payload.len;
	forward(s, AGENT_STDIN, payload);
}

static void on_stdin_eof(struct stream *s, struct str payload)
{
	if (payload.len || s->eof) {
		refuse(s, "input ends once");
		return;
	}
	s->eof = !s->tty;
	forward(s, AGENT_STDIN_EOF, STR_NONE);
}

static void on_signal(struct stream *s, struct str payload)
{
	struct stream_signal x;

	if (wire_decode(&stream_signal_wire, payload, &x) || x.number == 0)
		refuse(s, "a signal is a number from 1 to 64");
	else
		forward(s, AGENT_SIGNAL, payload);
}

static void on_resize(struct stream *s, struct str payload)
{
	struct stream_resize x;

	if (wire_decode(&stream_resize_wire, payload, &x))
		refuse(s, "a size is rows and columns");
	else
		forward(s, AGENT_RESIZE, payload);
}

static void on_datagram(struct stream *s, struct str in)
{
	static const struct {
		enum stream_kind kind;
		void (*handle)(struct stream *s, struct str payload);
	} handlers[] = {
		{STREAM_STDIN, on_stdin},
		{STREAM_STDIN_EOF, on_stdin_eof},
		{STREAM_SIGNAL, on_signal},
		{STREAM_RESIZE, on_resize},
	};
	struct str payload = str_make(in.p + 1, in.len - 1);

	if (in.p[0] == STREAM_EXEC || s->state == WAITING) {
		on_exec(s, in.p[0] == STREAM_EXEC ? payload : STR_NONE);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].kind == (uint8_t)in.p[0]) {
			handlers[i].handle(s, payload);
			return;
		}
	}
	refuse(s, "no such message");
}

/* Whether the guest takes this datagram now: credit for input, and room on the channel for anything. */
static bool fits(const struct stream *s, struct str in)
{
	return agent_link_has_room(s->bridge->link) &&
	       (in.p[0] != STREAM_STDIN || in.len - 1 <= s->may_send || in.len - 1 > STREAM_DATA_MAX);
}

static void hold(struct stream *s, struct str in)
{
	buf_append_str(&s->held, in);
	event_del(s->readable);
	event_add(s->hung_up, NULL);
}

static void resume(struct stream *s)
{
	_cleanup_(buf_finish) struct buf in = {0};

	if (s->dead || s->fd < 0 || s->held.len == 0 || !fits(s, buf_str(&s->held)))
		return;
	in = s->held;
	s->held = (struct buf){.max = STREAM_DATAGRAM_MAX};
	event_del(s->hung_up);
	event_add(s->readable, NULL);
	on_datagram(s, buf_str(&in));
}

/* false: nothing more to read now. */
static bool read_client(struct stream *s)
{
	static uint8_t space[STREAM_DATAGRAM_MAX];
	ssize_t n = recv(s->fd, space, sizeof space, MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		orphan(s);
		return false;
	}
	if ((size_t)n > sizeof space) {
		refuse(s, "datagram too large");
		return false;
	}
	struct str in = str_make(space, (size_t)n);
	if (!fits(s, in)) {
		hold(s, in);
		return false;
	}
	on_datagram(s, in);
	return s->fd >= 0;
}

static void on_client(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;
	struct bridge *b = s->bridge;

	if (what & EV_TIMEOUT)
		refuse(s, "no EXEC came");
	else
		for (int i = 0; i < TURN_MAX && read_client(s); i++)
			;
	sweep(b);
}

static void on_hang_up(evutil_socket_t fd, short what, void *arg)
{
	struct stream *s = arg;
	struct bridge *b = s->bridge;

	orphan(s);
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
			orphan(s);
			return;
		}
		s->head = d->next;
		if (!s->head)
			s->tail = &s->head;
		give_credit(s, d->bytes[0], d->len - 1);
		free(d);
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

/* --- from the guest --- */

static bool on_started(struct stream *s, struct str payload)
{
	if (s->started)
		return false;
	s->started = true;
	deliver(s, STREAM_STARTED, STR_NONE);
	return true;
}

static bool on_output(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (!s->started || payload.len > s->may_receive)
		return false;
	s->may_receive -= (uint32_t)payload.len;
	deliver(s, kind, payload);
	return true;
}

static bool on_stdout(struct stream *s, struct str payload)
{
	return on_output(s, STREAM_STDOUT, payload);
}

static bool on_stderr(struct stream *s, struct str payload)
{
	return on_output(s, STREAM_STDERR, payload);
}

static void last_word(struct stream *s, enum stream_kind kind, struct str payload)
{
	if (s->state == ORPHAN) {
		s->dead = true;
		return;
	}
	deliver(s, kind, payload);
	if (s->fd >= 0)
		end(s);
	else
		s->dead = true;
}

static bool on_exit_frame(struct stream *s, struct str payload)
{
	struct stream_exit x;

	if (!s->started || wire_decode(&stream_exit_wire, payload, &x))
		return false;
	last_word(s, STREAM_EXIT, payload);
	return true;
}

static bool on_error_frame(struct stream *s, struct str payload)
{
	static const char *const codes[] = {"exec_failed", "no_such_user", "no_such_directory", "bad_request", "limit"};
	struct stream_error x;

	if (s->started || wire_decode(&stream_error_wire, payload, &x))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (str_eq(x.code, str_of(codes[i]))) {
			last_word(s, STREAM_ERROR, payload);
			return true;
		}
	}
	return false;
}

static bool on_credit(struct stream *s, struct str payload)
{
	uint32_t n;

	if (agent_credit_decode(payload, &n) || n > AGENT_WINDOW - s->may_send)
		return false;
	s->may_send += n;
	resume(s);
	return true;
}

static bool on_closed(struct stream *s, struct str payload)
{
	if (s->state != ORPHAN)
		return false;
	s->dead = true;
	return true;
}

bool bridge_on_frame(struct bridge *b, const struct agent_frame *f)
{
	static const struct {
		enum agent_type type;
		bool (*handle)(struct stream *s, struct str payload);
	} handlers[] = {
		{AGENT_STDOUT, on_stdout},   {AGENT_STDERR, on_stderr},   {AGENT_CREDIT, on_credit},
		{AGENT_STARTED, on_started}, {AGENT_EXIT, on_exit_frame}, {AGENT_ERROR, on_error_frame},
		{AGENT_CLOSED, on_closed},
	};
	struct stream *s = b->head;

	while (s && (s->id != f->stream || (s->state != OPEN && s->state != ORPHAN)))
		s = s->next;
	for (size_t i = 0; s && i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].type != f->type)
			continue;
		bool ok = handlers[i].handle(s, f->payload);
		sweep(b);
		return ok;
	}
	return false;
}

void bridge_on_room(struct bridge *b)
{
	for (struct stream *s = b->head; s; s = s->next)
		resume(s);
	sweep(b);
}

void bridge_lost(struct bridge *b, const char *reason)
{
	for (struct stream *s = b->head; s; s = s->next) {
		if (s->dead || s->state == ENDING)
			continue;
		deliver_error(s, "vm_gone", reason);
		if (s->fd >= 0)
			end(s);
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
	struct timeval wait = {.tv_sec = BRIDGE_EXEC_WAIT_MS / 1000};

	*s = (struct stream){.bridge = b,
			     .fd = fd,
			     .held.max = STREAM_DATAGRAM_MAX,
			     .tail = &s->head,
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

struct bridge *bridge_create(struct event_base *base, struct agent_link *link)
{
	struct bridge *b = xcalloc(1, sizeof *b);

	*b = (struct bridge){.base = base, .link = link};
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
