#include "egress/sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct sock *s = arg;

	if (what & EV_READ)
		s->readable = true;
	if (what & EV_WRITE)
		s->writable = true;
	s->on_ready(s->arg);
}

int sock_open(struct sock *s, struct event_base *base, int fd, void (*on_ready)(void *arg), void *arg)
{
	int one = 1;

	*s = (struct sock){.fd = fd, .on_ready = on_ready, .arg = arg};
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (event_assign(&s->event, base, fd, EV_READ | EV_WRITE | EV_ET | EV_PERSIST, on_event, s) ||
	    event_add(&s->event, NULL)) {
		close(fd);
		s->fd = -1;
		return -ENOMEM;
	}
	return 0;
}

void sock_redirect(struct sock *s, void (*on_ready)(void *arg), void *arg)
{
	s->on_ready = on_ready;
	s->arg = arg;
}

int sock_move(struct sock *s, struct sock *ret, void (*on_ready)(void *arg), void *arg)
{
	struct event_base *base = event_get_base(&s->event);
	bool eof = s->eof, shut = s->shut;
	int fd = s->fd;

	event_del(&s->event);
	s->fd = -1;
	int r = sock_open(ret, base, fd, on_ready, arg);
	ret->eof = eof;
	ret->shut = shut;
	return r;
}

void sock_close(struct sock *s)
{
	if (s->fd < 0)
		return;
	event_del(&s->event);
	close(s->fd);
	s->fd = -1;
}

void sock_reset(struct sock *s)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (s->fd >= 0)
		setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	sock_close(s);
}

void sock_shutdown(struct sock *s)
{
	if (s->fd >= 0 && !s->shut)
		shutdown(s->fd, SHUT_WR);
	s->shut = true;
}

void sock_later(struct sock *s)
{
	event_active(&s->event, 0, 0);
}

static ssize_t receive(struct sock *s, void *buf, size_t n, int flags)
{
	ssize_t r;

	if (s->fd < 0)
		return -EBADF;
	do {
		r = recv(s->fd, buf, n, flags);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		s->readable = false;
	if (r == 0)
		s->eof = true;
	return r < 0 ? -errno : r;
}

ssize_t sock_recv(struct sock *s, void *buf, size_t n)
{
	return receive(s, buf, n, 0);
}

ssize_t sock_peek(struct sock *s, void *buf, size_t n)
{
	return receive(s, buf, n, MSG_PEEK);
}

ssize_t sock_send(struct sock *s, const void *buf, size_t n)
{
	ssize_t r;

	if (s->fd < 0)
		return -EBADF;
	do {
		r = send(s->fd, buf, n, MSG_NOSIGNAL);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EAGAIN)
		s->writable = false;
	return r < 0 ? -errno : r;
}
