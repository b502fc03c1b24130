/* Bytes to and from a process: input under a stream's credit, output to the stream that opened it, or into the ring. */
#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "agent/exec_internal.h"

void exec_close_fd(struct exec *e, int which)
{
	if (e->fd[which] >= 0)
		close(take_fd(e->fd[which]));
}

static void give_credit(struct exec *e, size_t n)
{
	size_t orphaned = MIN(n, e->orphaned);
	size_t eofs = MIN(n - orphaned, e->eofs);

	e->orphaned -= orphaned;
	e->eofs -= eofs;
	n -= orphaned + eofs;
	if (e->feeder && n)
		stream_give_credit(e->feeder, n);
}

void exec_lose_feeder(struct exec *e)
{
	e->feeder = NULL;
	e->orphaned = e->input.len - e->input_at;
	e->eofs = 0;
}

/* The program does not read any more: what comes is taken and dropped, as a shell's pipe into `true` would. */
static void drop_input(struct exec *e)
{
	size_t n = e->input.len - e->input_at;

	exec_close_fd(e, IN);
	buf_finish(&e->input);
	e->input_at = 0;
	if (n)
		give_credit(e, n);
}

void exec_write_input(struct exec *e)
{
	while (e->fd[IN] >= 0 && e->input_at < e->input.len) {
		ssize_t n = write(e->fd[IN], e->input.data + e->input_at, e->input.len - e->input_at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			drop_input(e);
			return;
		}
		e->input_at += (size_t)n;
		give_credit(e, (size_t)n);
	}
	buf_clear(&e->input);
	e->input_at = 0;
	if (e->eof)
		exec_close_fd(e, IN);
}

static bool append_input(struct exec *e, struct str data)
{
	if (e->input_at) {
		buf_consume(&e->input, e->input_at);
		e->input_at = 0;
	}
	return buf_append_str(&e->input, data) == 0;
}

bool exec_on_stdin(struct exec *e, struct stream *from, struct str data)
{
	if (!stream_take_input(from, data.len))
		return false;
	if (e->fd[IN] < 0 || e->eof) {
		stream_give_credit(from, data.len);
		return true;
	}
	/* Credit bounds it: there is room. */
	if (!append_input(e, data))
		return false;
	exec_write_input(e);
	return true;
}

/* A terminal has no end of file but the character that its driver takes for one. Nobody sent that byte, so it uses up
 * no credit and earns none; at most EXEC_EOFS_MAX wait for a program that does not read, and more are dropped. */
bool exec_on_stdin_eof(struct exec *e)
{
	struct termios t;

	if (e->fd[IN] < 0 || e->eof)
		return true;
	if (e->tty) {
		cc_t eof = tcgetattr(e->fd[IN], &t) ? 4 : t.c_cc[VEOF];
		if (e->eofs == EXEC_EOFS_MAX)
			return true;
		if (!append_input(e, str_make(&eof, 1)))
			return false;
		e->eofs++;
	} else {
		e->eof = true;
	}
	exec_write_input(e);
	return true;
}

void exec_send_signal(struct exec *e, int number)
{
	pid_t front = -1;

	if (e->tty && e->fd[OUT] >= 0 && ioctl(e->fd[OUT], TIOCGPGRP, &front) == 0 && front > 1 && e->pid > 0)
		kill(-front, number);
	else
		exec_signal_group(e, number);
}

bool exec_on_signal(struct exec *e, struct str payload)
{
	struct stream_signal x;

	if (wire_decode(&stream_signal_wire, payload, &x) || x.number == 0)
		return false;
	exec_send_signal(e, x.number);
	return true;
}

bool exec_on_resize(struct exec *e, struct str payload)
{
	struct stream_resize x;

	if (wire_decode(&stream_resize_wire, payload, &x))
		return false;
	if (e->tty && e->fd[OUT] >= 0)
		ioctl(e->fd[OUT], TIOCSWINSZ, &(struct winsize){.ws_row = x.rows, .ws_col = x.cols});
	return true;
}

bool exec_takes_output(const struct exec *e)
{
	return e->started && (e->detached || (e->stream && stream_may_send(e->stream, 1)));
}

/* The pool is shared: what has ended gives first, the oldest before others; then the one that has the most. */
static void make_room(struct exec_set *s, const struct ring *r)
{
	while (ring_is_short(r)) {
		struct exec *victim = NULL;
		for (struct exec *e = s->head; e; e = e->next) {
			if (e->ring.chunks == 0)
				continue;
			bool better = !victim || (e->ended && !victim->ended) ||
				      (e->ended == victim->ended &&
				       (e->ended || e->ring.chunks > victim->ring.chunks));
			if (better)
				victim = e;
		}
		if (!victim)
			return;
		ring_drop_oldest(&victim->ring);
	}
}

static ssize_t keep_output(struct exec *e, int which)
{
	static char space[AGENT_DATA_MAX];
	ssize_t n = read(e->fd[which], space, MIN(sizeof space, e->left[which]));

	if (n < 0)
		return -errno;
	if (n > 0 && !e->removed) {
		make_room(e->set, &e->ring);
		ring_append(&e->ring, which == ERR, str_make(space, (size_t)n));
	}
	return n;
}

static ssize_t send_output(struct exec *e, int which)
{
	struct stream *to = e->stream;
	enum agent_type type = which == OUT ? AGENT_STDOUT : AGENT_STDERR;
	size_t max = MIN((size_t)to->may_send, e->left[which]);

	ssize_t n = channel_send_from(to->set->channel, type, to->id, e->fd[which], max);
	if (n > 0)
		to->may_send -= (uint32_t)n;
	return n;
}

void exec_read_output(struct exec *e, int which)
{
	if (!exec_takes_output(e))
		return;
	ssize_t n = e->detached ? keep_output(e, which) : send_output(e, which);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) { /* also EIO: no process has the terminal open */
		exec_close_fd(e, which);
		return;
	}
	e->output += (uint64_t)n;
	if (e->left[which] != UNLIMITED && (e->left[which] -= (size_t)n) == 0)
		exec_close_fd(e, which);
}
