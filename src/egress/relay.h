#pragma once
/* Bytes from one socket to another and back by splice(2): the kernel moves pages, we only count. A direction holds a
 * pipe only while bytes are in it; pipes come from a pool. Half-close is carried over, backpressure is the pipe's room.
 */
#include <stdbool.h>
#include <stdint.h>

#include "egress/sock.h"

struct pipe_pool {
	int free_fds[64][2];
	unsigned n;
};

void pipe_pool_finish(struct pipe_pool *p);

struct flow {
	int pipe[2];    /* -1: none */
	size_t pending; /* bytes in the pipe */
	uint64_t total; /* bytes that reached the other side */
	bool done;      /* end of file carried over */
};

struct relay {
	struct pipe_pool *pool;
	struct sock *a, *b;
	struct flow a_to_b, b_to_a;
	bool hold; /* nothing is taken from a yet */
};

enum relay_state { RELAY_WAIT, RELAY_DONE, RELAY_A_FAILED, RELAY_B_FAILED, RELAY_NO_PIPE };

/* Both sockets stay the caller's. */
void relay_init(struct relay *r, struct pipe_pool *pool, struct sock *a, struct sock *b);
void relay_finish(struct relay *r);
/* Moves what can be moved now, at most about a MiB each way (then sock_later is asked for). RELAY_WAIT: call again when
 * one of the sockets is ready. RELAY_DONE: both directions ended. X_FAILED: that side was reset. */
enum relay_state relay_drive(struct relay *r);
