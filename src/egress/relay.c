#include "egress/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define PIPE_BYTES (256 << 10)
#define SPLICE_MAX ((size_t)256 << 10)
#define TURN_MAX ((size_t)1 << 20)

static int pipe_take(struct pipe_pool *p, int ret[2])
{
	if (p->n) {
		p->n--;
		ret[0] = p->free_fds[p->n][0];
		ret[1] = p->free_fds[p->n][1];
		return 0;
	}
	if (pipe2(ret, O_NONBLOCK | O_CLOEXEC)) {
		ret[0] = ret[1] = -1;
		return -errno;
	}
	/* past the user's soft limit of pipe pages the default size has to do */
	(void)fcntl(ret[1], F_SETPIPE_SZ, PIPE_BYTES);
	return 0;
}

/* A pipe that still holds bytes is of no use to anybody else. */
static void flow_release(struct pipe_pool *p, struct flow *f)
{
	if (f->pipe[0] < 0)
		return;
	if (f->pending == 0 && p->n < sizeof p->free_fds / sizeof p->free_fds[0]) {
		p->free_fds[p->n][0] = f->pipe[0];
		p->free_fds[p->n][1] = f->pipe[1];
		p->n++;
	} else {
		close(f->pipe[0]);
		close(f->pipe[1]);
	}
	f->pipe[0] = f->pipe[1] = -1;
}

void pipe_pool_finish(struct pipe_pool *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		close(p->free_fds[i][0]);
		close(p->free_fds[i][1]);
	}
	p->n = 0;
}

void relay_init(struct relay *r, struct pipe_pool *pool, struct sock *a, struct sock *b)
{
	*r = (struct relay){.pool = pool, .a = a, .b = b};
	r->a_to_b.pipe[0] = r->a_to_b.pipe[1] = -1;
	r->b_to_a.pipe[0] = r->b_to_a.pipe[1] = -1;
}

void relay_finish(struct relay *r)
{
	flow_release(r->pool, &r->a_to_b);
	flow_release(r->pool, &r->b_to_a);
}

static ssize_t splice_now(int from, int to, size_t n)
{
	ssize_t r;

	do {
		r = splice(from, NULL, to, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

enum step { STEP_STUCK, STEP_MOVED, STEP_IN_FAILED, STEP_OUT_FAILED, STEP_NO_PIPE };

/* EAGAIN with bytes in the pipe may mean a full pipe: only with an empty one it is the socket's. */
static enum step fill(struct pipe_pool *pool, struct flow *f, struct sock *in)
{
	if (!in->readable || in->eof)
		return STEP_STUCK;
	if (f->pipe[0] < 0 && pipe_take(pool, f->pipe))
		return STEP_NO_PIPE;
	ssize_t n = splice_now(in->fd, f->pipe[1], SPLICE_MAX);
	if (n > 0) {
		f->pending += (size_t)n;
		return STEP_MOVED;
	}
	if (n == 0) {
		in->eof = true;
		return STEP_MOVED;
	}
	if (n != -EAGAIN)
		return STEP_IN_FAILED;
	if (f->pending == 0) {
		in->readable = false;
		flow_release(pool, f);
	}
	return STEP_STUCK;
}

static enum step drain(struct flow *f, struct sock *out)
{
	if (!out->writable || f->pending == 0)
		return STEP_STUCK;
	ssize_t n = splice_now(f->pipe[0], out->fd, f->pending);
	if (n > 0) {
		f->pending -= (size_t)n;
		f->total += (uint64_t)n;
		return STEP_MOVED;
	}
	if (n != -EAGAIN)
		return STEP_OUT_FAILED;
	out->writable = false;
	return STEP_STUCK;
}

static enum step flow_drive(struct relay *r, struct flow *f, struct sock *in, struct sock *out)
{
	uint64_t end = f->total + TURN_MAX;

	while (!f->done) {
		enum step took = fill(r->pool, f, in);
		if (took > STEP_MOVED)
			return took;
		enum step gave = drain(f, out);
		if (gave > STEP_MOVED)
			return gave;
		if (in->eof && f->pending == 0) {
			sock_shutdown(out);
			f->done = true;
			flow_release(r->pool, f);
		}
		if (took == STEP_STUCK && gave == STEP_STUCK)
			break;
		if (f->total >= end) {
			sock_later(in);
			break;
		}
	}
	return STEP_STUCK;
}

enum relay_state relay_drive(struct relay *r)
{
	enum step s = r->hold ? STEP_STUCK : flow_drive(r, &r->a_to_b, r->a, r->b);
	if (s == STEP_STUCK) {
		s = flow_drive(r, &r->b_to_a, r->b, r->a);
		if (s == STEP_IN_FAILED)
			return RELAY_B_FAILED;
		if (s == STEP_OUT_FAILED)
			return RELAY_A_FAILED;
	}
	switch (s) {
	case STEP_IN_FAILED:
		return RELAY_A_FAILED;
	case STEP_OUT_FAILED:
		return RELAY_B_FAILED;
	case STEP_NO_PIPE:
		return RELAY_NO_PIPE;
	case STEP_STUCK:
	case STEP_MOVED:
		break;
	}
	return r->a_to_b.done && r->b_to_a.done ? RELAY_DONE : RELAY_WAIT;
}
