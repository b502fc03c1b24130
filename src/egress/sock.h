#pragma once
/* A non-blocking stream socket on the loop, edge-triggered and registered once for its life: the kernel's readiness is
 * remembered in two flags, and whoever meets EAGAIN clears the flag. So no epoll_ctl is ever paid for a change of
 * interest. epoll(7), "edge-triggered". */
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct sock {
	int fd; /* -1: closed */
	bool readable, writable;
	bool eof;  /* the peer has sent its FIN */
	bool shut; /* we have sent ours */
	struct event event;
	void (*on_ready)(void *arg);
	void *arg;
};

#define SOCK_NONE ((struct sock){.fd = -1})

/* Owns fd from now on, also on failure. on_ready runs from the loop whenever readiness came. It may close the socket.
 */
int sock_open(struct sock *s, struct event_base *base, int fd, void (*on_ready)(void *arg), void *arg);
/* Another owner takes over the callbacks. */
void sock_redirect(struct sock *s, void (*on_ready)(void *arg), void *arg);
/* Moves the socket to *ret (which must be closed) under a new owner; *s is closed afterwards. -ENOMEM closes both. */
int sock_move(struct sock *s, struct sock *ret, void (*on_ready)(void *arg), void *arg);
void sock_close(struct sock *s);
/* Closes with a reset instead of a FIN: the peer must not take what it has for the whole. */
void sock_reset(struct sock *s);
/* FIN once. */
void sock_shutdown(struct sock *s);
/* on_ready runs from the loop soon: for work that was left, so that other connections get their turn. */
void sock_later(struct sock *s);

/* As recv and send: >0, 0 (end of file; sets eof), -EAGAIN (flag cleared), or another negative errno. */
ssize_t sock_recv(struct sock *s, void *buf, size_t n);
ssize_t sock_peek(struct sock *s, void *buf, size_t n);
ssize_t sock_send(struct sock *s, const void *buf, size_t n);
