#include "os/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "os/fdutil.h"

#define QUEUE_MAX ((size_t)16 << 20)
#define TURN_MAX 64 /* messages handled before other events get their turn */

struct queued {
	struct queued *next;
	size_t len, nfds;
	int fds[MSG_MAX_FDS];
	uint8_t data[];
};

struct call {
	struct ipc_peer *peer;
	uint32_t txn;
	ipc_answer *on_answer;
	void *arg;
	struct event *timer;
};

struct ipc_peer {
	struct event_base *base;
	const char *name;
	int fd;
	struct event *readable, *writable, *full; /* full: active once the queue was: the loop closes the peer */
	const struct ipc_rule *rules;
	size_t nrules;
	ipc_closed *closed;
	void *user;
	struct queued *head, **tail;
	size_t queued_bytes, pause_bytes; /* above pause_bytes (0: never) nothing is read */
	bool overflowed, paused;
	struct map calls;
	uint32_t next_txn;
	unsigned busy;  /* handlers on the stack: the peer is not freed under them */
	bool destroyed; /* ipc_peer_destroy was called while busy */
};

static void close_fds(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static void queued_free(struct queued *q)
{
	close_fds(q->fds, q->nfds);
	free(q);
}

static void call_free(struct call *c)
{
	map_remove(&c->peer->calls, c->txn);
	if (c->timer)
		event_free(c->timer);
	free(c);
}

/* Every pending call learns that nothing comes any more. */
static void fail_calls(struct ipc_peer *p)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&p->calls, &i, &slot)) {
		struct call *c = slot->value;
		ipc_answer *on_answer = c->on_answer;
		void *arg = c->arg;
		call_free(c);
		on_answer(p, NULL, arg);
		i = 0;
	}
}

static void release_socket(struct ipc_peer *p)
{
	if (p->readable)
		event_free(take_ptr(p->readable));
	if (p->writable)
		event_free(take_ptr(p->writable));
	if (p->full)
		event_free(take_ptr(p->full));
	if (p->fd >= 0)
		close(take_fd(p->fd));
	while (p->head) {
		struct queued *q = p->head;
		p->head = q->next;
		queued_free(q);
	}
	p->tail = &p->head;
	p->queued_bytes = 0;
}

static void peer_free(struct ipc_peer *p)
{
	map_finish(&p->calls);
	free(p);
}

static void enter(struct ipc_peer *p)
{
	p->busy++;
}

static void leave(struct ipc_peer *p)
{
	if (--p->busy == 0 && p->destroyed)
		peer_free(p);
}

static void shut(struct ipc_peer *p, const char *reason)
{
	if (p->fd < 0)
		return;
	enter(p);
	release_socket(p);
	fail_calls(p);
	if (p->closed && !p->destroyed)
		p->closed(p, reason, p->user);
	leave(p);
}

static void violation(struct ipc_peer *p, const char *what, unsigned type)
{
	char reason[128];

	snprintf(reason, sizeof reason, "protocol: %s (type %u)", what, type);
	log_warn("channel closed", "peer=%s reason=%s", p->name, log_quote(reason));
	shut(p, reason);
}

void ipc_peer_destroy(struct ipc_peer *p)
{
	if (!p || p->destroyed)
		return;
	p->destroyed = true;
	enter(p);
	release_socket(p);
	fail_calls(p);
	leave(p);
}

/* The call is out of the map while its handler runs: one that closes the peer is not told of the end a second time. */
static void on_answer_message(struct ipc_peer *p, struct call *c, const struct ipc_msg *m)
{
	map_remove(&p->calls, c->txn);
	bool last = c->on_answer(p, m, c->arg);
	if (!last && p->fd >= 0) {
		map_put(&p->calls, c->txn, c);
		return;
	}
	if (!last)
		c->on_answer(p, NULL, c->arg);
	call_free(c);
}

static void dispatch(struct ipc_peer *p, const struct ipc_msg *m)
{
	struct call *c = m->txn ? map_get(&p->calls, m->txn) : NULL;
	if (c) {
		on_answer_message(p, c, m);
		return;
	}
	for (size_t i = 0; i < p->nrules; i++) {
		const struct ipc_rule *r = &p->rules[i];
		if (r->type != m->info->type)
			continue;
		if (!(r->form & (m->txn ? IPC_REQUEST : IPC_NOTICE)))
			break;
		if (r->fds != m->nfds)
			break;
		r->handle(p, m, p->user);
		return;
	}
	/* a late answer to a call that timed out is no violation */
	if (m->txn & 0x80000000U)
		return;
	violation(p, "message not allowed here", m->info->type);
}

/* One datagram. >0: its size; -EAGAIN; -EPIPE: end of file; another error. */
static ssize_t receive(int fd, void *space, int fds[MSG_MAX_FDS], size_t *ret_nfds)
{
	struct iovec iov = {.iov_base = space, .iov_len = MSG_MAX};
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(MSG_MAX_FDS * sizeof(int))];
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};

	*ret_nfds = 0;
	ssize_t n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds + *ret_nfds, CMSG_DATA(c), k * sizeof(int));
		*ret_nfds += k;
	}
	if (n == 0) {
		close_fds(fds, *ret_nfds);
		return -EPIPE;
	}
	if (h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		close_fds(fds, *ret_nfds);
		return -EMSGSIZE;
	}
	return n;
}

/* Whether there is enough on its way to the peer for now; on_writable goes on. */
static bool pause_reading(struct ipc_peer *p)
{
	if (p->pause_bytes && p->queued_bytes > p->pause_bytes) {
		p->paused = true;
		event_del(p->readable);
	}
	return p->paused;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	static uint8_t space[MSG_MAX];
	struct ipc_peer *p = arg;

	enter(p);
	for (int i = 0; i < TURN_MAX && p->fd >= 0 && !p->overflowed && !pause_reading(p); i++) {
		_Alignas(16) char record[MSG_RECORD_MAX];
		int fds[MSG_MAX_FDS];
		struct ipc_msg m = {.record = record, .fds = fds};

		ssize_t n = receive(p->fd, space, fds, &m.nfds);
		if (n == -EAGAIN || n == -EINTR)
			break;
		if (n == -EMSGSIZE) {
			violation(p, "oversized message or too many descriptors", 0);
			break;
		}
		if (n < 0) {
			shut(p, n == -EPIPE || n == -ECONNRESET ? "closed by peer" : strerror((int)-n));
			break;
		}
		if (msg_decode(str_make(space, (size_t)n), &m.info, &m.txn, record))
			violation(p, "malformed record", (unsigned)(n >= 2 ? space[0] | space[1] << 8 : 0));
		else if (m.nfds > m.info->max_fds)
			violation(p, "surplus descriptors", m.info->type);
		else
			dispatch(p, &m);
		close_fds(fds, m.nfds);
	}
	leave(p);
}

static int send_now(int fd, const void *data, size_t len, const int *fds, size_t nfds, int flags)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(MSG_MAX_FDS * sizeof(int))] = {0};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	return sendmsg(fd, &h, MSG_NOSIGNAL | flags) < 0 ? -errno : 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct ipc_peer *p = arg;

	while (p->head) {
		struct queued *q = p->head;
		int r = send_now(p->fd, q->data, q->len, q->fds, q->nfds, MSG_DONTWAIT);
		if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS)
			return;
		if (r) {
			shut(p, "closed by peer");
			return;
		}
		p->head = q->next;
		if (!p->head)
			p->tail = &p->head;
		p->queued_bytes -= q->len;
		queued_free(q);
		if (p->paused && p->queued_bytes <= p->pause_bytes) {
			p->paused = false;
			event_add(p->readable, NULL);
		}
	}
	event_del(p->writable);
}

/* From the loop: whoever filled the queue may be in the middle of what the end of the peer takes away. */
static void on_full(evutil_socket_t fd, short what, void *arg)
{
	violation(arg, "does not read: queue full", 0);
}

static int enqueue(struct ipc_peer *p, const struct buf *b, const int *fds, size_t nfds)
{
	if (p->queued_bytes + b->len > QUEUE_MAX) {
		p->overflowed = true;
		event_active(p->full, 0, 0);
		return -ENOBUFS;
	}
	struct queued *q = xmalloc(sizeof *q + b->len);
	*q = (struct queued){.len = b->len};
	memcpy(q->data, b->data, b->len);
	for (size_t i = 0; i < nfds; i++) {
		int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (copy < 0) {
			int r = -errno;
			queued_free(q);
			return r;
		}
		q->fds[q->nfds++] = copy;
	}
	*p->tail = q;
	p->tail = &q->next;
	p->queued_bytes += q->len;
	event_add(p->writable, NULL);
	return 0;
}

static int transmit(struct ipc_peer *p, uint32_t txn, enum msg_type type, const void *record, const int *fds, size_t nfds)
{
	_cleanup_(buf_finish) struct buf b = {.max = MSG_MAX};

	if (!p || p->fd < 0)
		return -EPIPE;
	if (p->overflowed)
		return -ENOBUFS;
	if (nfds > MSG_MAX_FDS)
		return -EINVAL;
	int r = msg_encode(type, txn, record, &b);
	if (r)
		return r;
	if (!p->head) {
		r = send_now(p->fd, b.data, b.len, fds, nfds, MSG_DONTWAIT);
		if (r == 0)
			return 0;
		if (r != -EAGAIN && r != -EINTR && r != -ENOBUFS) {
			/* the reader's side of the loop notices the end and says so */
			return r == -EPIPE || r == -ECONNRESET ? -EPIPE : r;
		}
	}
	return enqueue(p, &b, fds, nfds);
}

struct ipc_peer *ipc_peer_create(struct event_base *base, int fd, const char *name, const struct ipc_rule *rules,
				 size_t nrules, ipc_closed *closed, void *user)
{
	struct ipc_peer *p = xcalloc(1, sizeof *p);

	*p = (struct ipc_peer){.base = base, .fd = fd, .name = name, .rules = rules, .nrules = nrules, .closed = closed, .user = user};
	p->tail = &p->head;
	p->next_txn = 1;
	evutil_make_socket_nonblocking(fd);
	p->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, p);
	p->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, p);
	p->full = event_new(base, -1, 0, on_full, p);
	if (!p->readable || !p->writable || !p->full || event_add(p->readable, NULL)) {
		release_socket(p);
		peer_free(p);
		return NULL;
	}
	return p;
}

int ipc_notify(struct ipc_peer *p, enum msg_type type, const void *record, const int *fds, size_t nfds)
{
	return transmit(p, 0, type, record, fds, nfds);
}

/* An answer carries the request's txn with the top bit, so that the two directions' numbers cannot meet. */
int ipc_reply(struct ipc_peer *p, uint32_t txn, enum msg_type type, const void *record, const int *fds, size_t nfds)
{
	return transmit(p, txn | 0x80000000U, type, record, fds, nfds);
}

int ipc_reply_result(struct ipc_peer *p, uint32_t txn, int code, const char *reason, uint64_t value)
{
	struct str text = str_of(reason);
	if (text.len > 512)
		text.len = 512;
	return ipc_reply(p, txn, MSG_TYPE_msg_result, &(struct msg_result){.code = code, .reason = text, .value = value}, NULL, 0);
}

static void on_call_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct call *c = arg;
	struct ipc_peer *p = c->peer;
	ipc_answer *on_answer = c->on_answer;
	void *user = c->arg;

	enter(p);
	call_free(c);
	on_answer(p, NULL, user);
	leave(p);
}

int ipc_call(struct ipc_peer *p, enum msg_type type, const void *record, const int *fds, size_t nfds,
	     unsigned timeout_ms, ipc_answer *on_answer, void *arg)
{
	if (!p || p->fd < 0)
		return -EPIPE;
	do {
		p->next_txn = (p->next_txn + 1) & 0x7fffffffU;
	} while (p->next_txn == 0 || map_get(&p->calls, p->next_txn | 0x80000000U));

	uint32_t txn = p->next_txn;
	struct call *c = xcalloc(1, sizeof *c);
	*c = (struct call){.peer = p, .txn = txn | 0x80000000U, .on_answer = on_answer, .arg = arg};
	map_put(&p->calls, c->txn, c);
	int r = transmit(p, txn, type, record, fds, nfds);
	if (r == 0 && timeout_ms) {
		struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (long)(timeout_ms % 1000) * 1000};
		c->timer = evtimer_new(p->base, on_call_timeout, c);
		if (!c->timer || event_add(c->timer, &tv))
			r = -ENOMEM;
	}
	if (r && map_get(&p->calls, txn | 0x80000000U) == c)
		call_free(c);
	return r;
}

bool ipc_peer_is_open(const struct ipc_peer *p)
{
	return p && p->fd >= 0;
}

void ipc_peer_pause_above(struct ipc_peer *p, size_t bytes)
{
	p->pause_bytes = bytes;
}

size_t ipc_peer_queued(const struct ipc_peer *p)
{
	return p->queued_bytes;
}

static void enlarge(int fd)
{
	int size = 1 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

int ipc_socketpair(int ret[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret))
		return -errno;
	enlarge(ret[0]);
	enlarge(ret[1]);
	return 0;
}

static int open_at(const char *path, struct sockaddr_un *ret_address, int *ret_fd)
{
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	int r = str_copy(str_of(path), ret_address->sun_path, sizeof ret_address->sun_path);

	if (r < 0)
		return r == -EMSGSIZE ? -ENAMETOOLONG : r;
	*ret_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return *ret_fd < 0 ? -errno : 0;
}

int ipc_listen(const char *path, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct sockaddr_un address;
	int r = open_at(path, &address, &fd);

	if (r < 0)
		return r;
	/* before bind, so that there is no moment in which anyone but root could connect */
	if (fchmod(fd, 0600) < 0 || (unlink(path) < 0 && errno != ENOENT) ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0)
		return -errno;
	*ret_fd = take_fd(fd);
	return 0;
}

int ipc_accept(int listener, int *ret_fd)
{
	_cleanup_close_ int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who;
	socklen_t len = sizeof who;

	if (fd < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.uid != 0)
		return -EPERM;
	enlarge(fd);
	*ret_fd = take_fd(fd);
	return 0;
}

int ipc_connect(const char *path, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct sockaddr_un address;
	int r = open_at(path, &address, &fd);

	if (r < 0)
		return r;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return -errno;
	enlarge(fd);
	*ret_fd = take_fd(fd);
	return 0;
}

int ipc_send_blocking(int fd, enum msg_type type, uint32_t txn, const void *record, const int *fds, size_t nfds)
{
	_cleanup_(buf_finish) struct buf b = {.max = MSG_MAX};

	if (nfds > MSG_MAX_FDS)
		return -EINVAL;
	int r = msg_encode(type, txn, record, &b);
	while (r == 0) {
		r = send_now(fd, b.data, b.len, fds, nfds, MSG_DONTWAIT);
		if (r != -EAGAIN && r != -EINTR)
			break;
		r = fd_wait(fd, POLLOUT, -1);
	}
	return r;
}

int ipc_recv_blocking(int fd, int timeout_ms, void *space, const struct msg_info **ret_info, uint32_t *ret_txn,
		      void *ret_record, int ret_fds[MSG_MAX_FDS], size_t *ret_nfds)
{
	uint64_t end = mono_ms() + (uint64_t)MAX(timeout_ms, 0);

	for (;;) {
		ssize_t n = receive(fd, space, ret_fds, ret_nfds);
		if (n > 0) {
			int r = msg_decode(str_make(space, (size_t)n), ret_info, ret_txn, ret_record);
			if (r == 0 && *ret_nfds > (*ret_info)->max_fds)
				r = -EBADMSG;
			if (r)
				close_fds(ret_fds, *ret_nfds);
			else
				*ret_txn &= 0x7fffffffU;
			return r;
		}
		if (n != -EAGAIN && n != -EINTR)
			return (int)n;
		uint64_t now = mono_ms();
		if (timeout_ms >= 0 && now >= end)
			return -ETIMEDOUT;
		fd_wait(fd, POLLIN, timeout_ms < 0 ? -1 : (int)(end - now));
	}
}
