#include "agent/exec.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "base/clock.h"

#define CREDIT_STEP (AGENT_WINDOW / 4)
#define UNLIMITED SIZE_MAX

enum { REPORT, IN, OUT, ERR };
_Static_assert(ERR + 1 == EXEC_POLLFDS, "one pollfd a descriptor");

struct exec {
	struct exec *next;
	uint32_t stream; /* 0: nobody listens any more */
	pid_t pid;       /* 0: reaped */
	int status;
	int fd[EXEC_POLLFDS];      /* -1: closed */
	int polled[EXEC_POLLFDS];  /* index of its pollfd in this turn, -1: none */
	size_t left[EXEC_POLLFDS]; /* OUT, ERR: bytes that are still delivered */
	bool tty, started, eof, timed_out, over;
	struct buf input;
	size_t input_at;
	uint32_t may_send, may_receive, owed;    /* credit; owed: consumed and not given back yet */
	uint64_t deadline_ms, kill_ms, grace_ms; /* 0: none */
};

static void close_fd(struct exec *e, int which)
{
	if (e->fd[which] >= 0)
		close(take_fd(e->fd[which]));
}

static void close_all(struct exec *e)
{
	for (int i = 0; i < EXEC_POLLFDS; i++)
		close_fd(e, i);
	buf_finish(&e->input);
}

static void detach(struct exec_set *s, struct exec *e)
{
	close_all(e);
	if (e->stream) {
		e->stream = 0;
		s->attached--;
	}
}

static struct exec *find(const struct exec_set *s, uint32_t stream)
{
	for (struct exec *e = s->head; e; e = e->next)
		if (e->stream == stream)
			return e;
	return NULL;
}

/* The group outlives its leader, but its number is only ours while the leader is not reaped. */
static void signal_group(const struct exec *e, int number)
{
	if (e->pid > 0 && kill(-e->pid, number))
		kill(e->pid, number);
}

static void hang_up(struct exec_set *s, struct exec *e)
{
	signal_group(e, SIGHUP);
	signal_group(e, SIGCONT);
	detach(s, e);
}

void exec_signal(struct exec_set *s, int number, bool terminals_only)
{
	for (struct exec *e = s->head; e; e = e->next)
		if (e->tty || !terminals_only)
			signal_group(e, number);
}

void exec_hang_up(struct exec_set *s)
{
	for (struct exec *e = s->head; e; e = e->next)
		if (e->stream)
			hang_up(s, e);
	s->last_stream = 0;
}

void exec_set_finish(struct exec_set *s)
{
	while (s->head) {
		struct exec *e = s->head;
		s->head = e->next;
		close_all(e);
		free(e);
	}
	s->n = s->attached = 0;
}

static void send_error(struct exec_set *s, uint32_t stream, const char *code, const char *message)
{
	struct stream_error e = {.code = str_of(code), .message = str_of(message)};
	channel_send_record(s->channel, AGENT_ERROR, stream, &stream_error_wire, &e);
}

static void adopt(struct exec_set *s, uint32_t stream, const struct stream_exec *x, const struct spawned *p)
{
	struct exec *e = xcalloc(1, sizeof *e);

	*e = (struct exec){
		.next = s->head,
		.stream = stream,
		.pid = p->pid,
		.fd = {[REPORT] = p->report, [IN] = p->in, [OUT] = p->out, [ERR] = p->err},
		.left = {[OUT] = UNLIMITED, [ERR] = UNLIMITED},
		.tty = x->tty,
		.polled = {-1, -1, -1, -1},
		.input.max = AGENT_WINDOW + 64, /* the window, and ends of file on a terminal */
		.may_send = AGENT_WINDOW,
		.may_receive = AGENT_WINDOW,
		.deadline_ms = x->timeout_ms ? mono_ms() + x->timeout_ms : 0,
	};
	s->head = e;
	s->n++;
	s->attached++;
}

static bool open_exec(struct exec_set *s, const struct agent_frame *f)
{
	struct stream_exec x;
	struct spawned p;

	if (f->stream <= s->last_stream || wire_decode(&stream_exec_wire, f->payload, &x))
		return false;
	s->last_stream = f->stream;
	if (s->attached >= AGENT_STREAMS_MAX || s->n >= EXEC_MAX) {
		send_error(s, f->stream, "limit", "too many processes run in this machine by iron already");
		return true;
	}
	int r = spawn(&x, &s->options, &p);
	if (r)
		send_error(s, f->stream, "exec_failed", strerror(-r));
	else
		adopt(s, f->stream, &x, &p);
	return true;
}

/* In steps: what is owed is always less than the window by more than a frame, so that the host never starves. */
static void give_credit(struct exec_set *s, struct exec *e, size_t n)
{
	e->owed += (uint32_t)n;
	if (e->owed < CREDIT_STEP)
		return;
	e->may_receive += e->owed;
	channel_send_credit(s->channel, e->stream, e->owed);
	e->owed = 0;
}

/* The program does not read any more: what comes is taken and dropped, as a shell's pipe into `true` would. */
static void drop_input(struct exec_set *s, struct exec *e)
{
	size_t n = e->input.len - e->input_at;

	close_fd(e, IN);
	buf_finish(&e->input);
	e->input_at = 0;
	if (n)
		give_credit(s, e, n);
}

static void write_input(struct exec_set *s, struct exec *e)
{
	while (e->fd[IN] >= 0 && e->input_at < e->input.len) {
		ssize_t n = write(e->fd[IN], e->input.data + e->input_at, e->input.len - e->input_at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			drop_input(s, e);
			return;
		}
		e->input_at += (size_t)n;
		give_credit(s, e, (size_t)n);
	}
	buf_clear(&e->input);
	e->input_at = 0;
	if (e->eof)
		close_fd(e, IN);
}

static bool on_stdin(struct exec_set *s, struct exec *e, struct str data)
{
	if (data.len > e->may_receive || e->eof)
		return false;
	e->may_receive -= (uint32_t)data.len;
	if (e->fd[IN] < 0) {
		give_credit(s, e, data.len);
		return true;
	}
	if (e->input_at) {
		buf_consume(&e->input, e->input_at);
		e->input_at = 0;
	}
	/* Credit bounds it: there is room. */
	if (buf_append_str(&e->input, data))
		return false;
	write_input(s, e);
	return true;
}

/* A terminal has no end of file but the character that its driver takes for one. */
static bool on_stdin_eof(struct exec_set *s, struct exec *e, struct str nothing)
{
	struct termios t;

	if (e->eof)
		return false;
	if (e->fd[IN] < 0)
		return true;
	if (e->tty) {
		cc_t eof = tcgetattr(e->fd[IN], &t) ? 4 : t.c_cc[VEOF];
		if (buf_append_byte(&e->input, eof))
			return false;
		e->owed--; /* a byte that nobody sent earns no credit when it is written */
	} else {
		e->eof = true;
	}
	write_input(s, e);
	return true;
}

static bool on_signal(struct exec_set *s, struct exec *e, struct str payload)
{
	struct stream_signal x;
	pid_t front = -1;

	if (wire_decode(&stream_signal_wire, payload, &x) || x.number == 0)
		return false;
	if (e->tty && e->fd[OUT] >= 0 && ioctl(e->fd[OUT], TIOCGPGRP, &front) == 0 && front > 1 && e->pid > 0)
		kill(-front, x.number);
	else
		signal_group(e, x.number);
	return true;
}

static bool on_resize(struct exec_set *s, struct exec *e, struct str payload)
{
	struct stream_resize x;

	if (wire_decode(&stream_resize_wire, payload, &x))
		return false;
	if (e->tty && e->fd[OUT] >= 0)
		ioctl(e->fd[OUT], TIOCSWINSZ, &(struct winsize){.ws_row = x.rows, .ws_col = x.cols});
	return true;
}

static bool on_credit(struct exec_set *s, struct exec *e, struct str payload)
{
	uint32_t n;

	if (agent_credit_decode(payload, &n) || n > AGENT_WINDOW - e->may_send)
		return false;
	e->may_send += n;
	return true;
}

static bool on_close(struct exec_set *s, struct exec *e, struct str nothing)
{
	channel_send(s->channel, AGENT_CLOSED, e->stream, STR_NONE);
	hang_up(s, e);
	return true;
}

bool exec_on_frame(struct exec_set *s, const struct agent_frame *f)
{
	static const struct {
		enum agent_type type;
		bool (*handle)(struct exec_set *s, struct exec *e, struct str payload);
	} handlers[] = {
		{AGENT_STDIN, on_stdin},   {AGENT_STDIN_EOF, on_stdin_eof}, {AGENT_SIGNAL, on_signal},
		{AGENT_RESIZE, on_resize}, {AGENT_CREDIT, on_credit},       {AGENT_CLOSE, on_close},
	};

	if (f->type == AGENT_EXEC)
		return open_exec(s, f);
	if (f->stream > s->last_stream)
		return false;
	struct exec *e = find(s, f->stream);
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
		if (handlers[i].type == f->type)
			return !e || handlers[i].handle(s, e, f->payload);
	return false;
}

void exec_on_reaped(struct exec_set *s, pid_t pid, int status)
{
	for (struct exec *e = s->head; e; e = e->next) {
		if (e->pid != pid)
			continue;
		e->pid = 0;
		e->status = status;
		e->grace_ms = mono_ms() + EXEC_GRACE_MS;
		return;
	}
}

static void poll_one(struct exec_set *s, struct exec *e, int which, short events, struct pollfd *fds, size_t *n)
{
	e->polled[which] = -1;
	if (e->fd[which] < 0 || events == 0)
		return;
	e->polled[which] = (int)*n;
	fds[(*n)++] = (struct pollfd){.fd = e->fd[which], .events = events};
}

/* A descriptor that must wait is not polled at all: its hang-up would wake the loop for nothing. */
size_t exec_poll_prepare(struct exec_set *s, struct pollfd *fds)
{
	bool room = channel_has_room(s->channel);
	size_t n = 0;

	for (struct exec *e = s->head; e; e = e->next) {
		short output = room && e->started && e->may_send ? POLLIN : 0;
		poll_one(s, e, REPORT, room ? POLLIN : 0, fds, &n);
		poll_one(s, e, IN, e->input_at < e->input.len ? POLLOUT : 0, fds, &n);
		poll_one(s, e, OUT, output, fds, &n);
		poll_one(s, e, ERR, output, fds, &n);
	}
	return n;
}

static void read_report(struct exec_set *s, struct exec *e)
{
	char space[SPAWN_REPORT_MAX];
	struct stream_error error;
	ssize_t n = read(e->fd[REPORT], space, sizeof space);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		e->started = true;
		close_fd(e, REPORT);
		channel_send(s->channel, AGENT_STARTED, e->stream, STR_NONE);
		return;
	}
	/* The writer is our own child, in one write. */
	if (wire_decode(&stream_error_wire, str_make(space, (size_t)n), &error))
		error = (struct stream_error){.code = STR("exec_failed"), .message = STR("it did not start")};
	channel_send_record(s->channel, AGENT_ERROR, e->stream, &stream_error_wire, &error);
	detach(s, e);
}

static void read_output(struct exec_set *s, struct exec *e, int which)
{
	size_t max = MIN((size_t)e->may_send, e->left[which]);

	if (max == 0 || !channel_has_room(s->channel))
		return;
	enum agent_type type = which == OUT ? AGENT_STDOUT : AGENT_STDERR;
	ssize_t n = channel_send_from(s->channel, type, e->stream, e->fd[which], max);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) { /* also EIO: no process has the terminal open */
		close_fd(e, which);
		return;
	}
	e->may_send -= (uint32_t)n;
	if (e->left[which] != UNLIMITED && (e->left[which] -= (size_t)n) == 0)
		close_fd(e, which);
}

static bool ready(const struct exec *e, int which, const struct pollfd *fds)
{
	return e->fd[which] >= 0 && e->polled[which] >= 0 && fds[e->polled[which]].revents;
}

static void serve(struct exec_set *s, struct exec *e, const struct pollfd *fds)
{
	if (ready(e, REPORT, fds))
		read_report(s, e);
	if (ready(e, IN, fds))
		write_input(s, e);
	if (ready(e, OUT, fds))
		read_output(s, e, OUT);
	if (ready(e, ERR, fds))
		read_output(s, e, ERR);
}

void exec_poll_done(struct exec_set *s, const struct pollfd *fds)
{
	size_t first = s->n ? s->turn++ % s->n : 0, i = 0;

	for (struct exec *e = s->head; e; e = e->next, i++)
		if (i >= first)
			serve(s, e, fds);
	i = 0;
	for (struct exec *e = s->head; e && i < first; e = e->next, i++)
		serve(s, e, fds);
}

static uint64_t next_deadline(const struct exec *e)
{
	if (e->pid == 0)
		return e->stream ? e->grace_ms : 0;
	return e->kill_ms ? e->kill_ms : e->deadline_ms;
}

int exec_timeout_ms(const struct exec_set *s, uint64_t now_ms)
{
	uint64_t first = UINT64_MAX;

	for (const struct exec *e = s->head; e; e = e->next)
		if (next_deadline(e))
			first = MIN(first, next_deadline(e));
	if (first == UINT64_MAX)
		return -1;
	return first <= now_ms ? 0 : (int)MIN(first - now_ms, (uint64_t)60000);
}

static void check_deadline(struct exec *e, uint64_t now_ms)
{
	if (e->deadline_ms && now_ms >= e->deadline_ms) {
		e->deadline_ms = 0;
		e->timed_out = true;
		e->kill_ms = now_ms + EXEC_KILL_MS;
		signal_group(e, SIGTERM);
		signal_group(e, SIGCONT);
	} else if (e->kill_ms && now_ms >= e->kill_ms) {
		e->kill_ms = 0;
		signal_group(e, SIGKILL);
	}
}

static void end_grace(struct exec *e)
{
	e->grace_ms = 0;
	for (int which = OUT; which <= ERR; which++) {
		int n = 0;
		if (e->fd[which] < 0)
			continue;
		if (ioctl(e->fd[which], FIONREAD, &n) || n <= 0)
			close_fd(e, which);
		else
			e->left[which] = (size_t)n;
	}
}

static void send_exit(struct exec_set *s, struct exec *e)
{
	struct stream_exit x = {.timed_out = e->timed_out};

	if (WIFSIGNALED(e->status)) {
		x.signal = (uint8_t)WTERMSIG(e->status);
		x.code = (uint16_t)(128 + x.signal);
	} else {
		x.code = (uint16_t)WEXITSTATUS(e->status);
	}
	channel_send_record(s->channel, AGENT_EXIT, e->stream, &stream_exit_wire, &x);
	detach(s, e);
}

static void settle_reaped(struct exec_set *s, struct exec *e, uint64_t now_ms)
{
	if (!e->stream) {
		e->over = true;
		return;
	}
	if (e->grace_ms && now_ms >= e->grace_ms)
		end_grace(e);
	if (e->started && e->fd[OUT] < 0 && e->fd[ERR] < 0 && channel_has_room(s->channel)) {
		send_exit(s, e);
		e->over = true;
	}
}

void exec_settle(struct exec_set *s, uint64_t now_ms)
{
	for (struct exec *e = s->head; e; e = e->next) {
		if (e->pid)
			check_deadline(e, now_ms);
		else
			settle_reaped(s, e, now_ms);
	}
	for (struct exec **p = &s->head; *p;) {
		struct exec *e = *p;
		if (!e->over) {
			p = &e->next;
			continue;
		}
		*p = e->next;
		s->n--;
		free(e);
	}
}
