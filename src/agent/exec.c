#include "agent/exec.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#include "agent/exec_internal.h"
#include "base/clock.h"

#define POOL_LEAST ((uint64_t)2 << 20)

static void close_all(struct exec *e)
{
	for (int i = 0; i < EXEC_POLLFDS; i++)
		exec_close_fd(e, i);
	buf_finish(&e->input);
	e->input_at = e->orphaned = 0;
}

static void exec_free(struct exec *e)
{
	close_all(e);
	ring_finish(&e->ring);
	buf_finish(&e->argv);
	buf_finish(&e->command);
	free(e);
}

/* The group outlives its leader, but its number is only ours while the leader is not reaped. */
void exec_signal_group(const struct exec *e, int number)
{
	if (e->pid > 0 && kill(-e->pid, number))
		kill(e->pid, number);
}

void exec_signal(struct exec_set *s, int number, bool terminals_only)
{
	for (struct exec *e = s->head; e; e = e->next)
		if (e->tty || !terminals_only)
			exec_signal_group(e, number);
}

void exec_set_init(struct exec_set *s, struct stream_set *streams, const struct spawn_options *o)
{
	struct sysinfo info = {0};

	sysinfo(&info);
	uint64_t share = (uint64_t)info.totalram * info.mem_unit / 16;
	*s = (struct exec_set){.options = *o,
			       .streams = streams,
			       .pool.max = (size_t)(MAX(share, POOL_LEAST) / RING_CHUNK)};
}

void exec_set_finish(struct exec_set *s)
{
	while (s->head) {
		struct exec *e = s->head;
		s->head = e->next;
		exec_free(e);
	}
	s->n = s->running = s->detached = 0;
}

/* --- a stream of EXEC --- */

static bool on_frame(struct stream *st, const struct agent_frame *f)
{
	struct exec *e = st->user;

	if (f->type == AGENT_STDIN)
		return exec_on_stdin(e, st, f->payload);
	if (f->type == AGENT_STDIN_EOF)
		return exec_on_stdin_eof(e);
	if (f->type == AGENT_SIGNAL)
		return exec_on_signal(e, f->payload);
	return f->type == AGENT_RESIZE && exec_on_resize(e, f->payload);
}

static void lose_stream(struct exec *e)
{
	if (e->feeder == e->stream)
		exec_lose_feeder(e);
	e->stream = NULL;
}

static void on_close(struct stream *st)
{
	struct exec *e = st->user;

	lose_stream(e);
	if (e->detached)
		return;
	exec_signal_group(e, SIGHUP);
	exec_signal_group(e, SIGCONT);
	close_all(e);
}

static const struct stream_ops exec_ops = {on_frame, on_close};

static void keep_text(struct buf *to, struct str text)
{
	buf_append(to, text.p, MIN(text.len, EXEC_TEXT_KEPT));
}

/* As many items as fit. */
static void keep_list(struct buf *to, struct str list)
{
	struct str item;

	while (wire_list_next(&list, &item)) {
		item.len = MIN(item.len, EXEC_TEXT_KEPT / 4);
		if (to->len + 4 + item.len > EXEC_TEXT_KEPT)
			return;
		wire_list_add(to, item);
	}
}

static struct exec *adopt(struct exec_set *s, const struct stream_exec *x, const struct spawned *p)
{
	struct exec *e = xcalloc(1, sizeof *e);
	struct str user = x->user.len ? x->user : str_of(s->options.default_user);

	*e = (struct exec){
		.next = s->head,
		.set = s,
		.id = x->exec,
		.seq = ++s->last_seq,
		.pid = p->pid,
		.fd = {[REPORT] = p->report, [IN] = p->in, [OUT] = p->out, [ERR] = p->err},
		.left = {[OUT] = UNLIMITED, [ERR] = UNLIMITED},
		.tty = x->tty,
		.detached = x->detach,
		.polled = {-1, -1, -1, -1},
		/* The window, ends of file on a terminal, and what an earlier feeder left (exec_table.c). */
		.input.max = 2 * (AGENT_WINDOW + EXEC_EOFS_MAX),
		.deadline_ms = x->timeout_ms ? mono_ms() + x->timeout_ms : 0,
		.ring.pool = &s->pool,
		.started_at_ms = real_ms(),
	};
	if (str_copy(user, e->user, sizeof e->user))
		e->user[0] = '\0';
	keep_list(&e->argv, x->argv);
	keep_text(&e->command, x->command);
	s->head = e;
	s->n++;
	s->running++;
	s->detached += e->detached;
	return e;
}

static const char *refusal(const struct exec_set *s, const struct stream_exec *x, const char **ret_code)
{
	*ret_code = "limit";
	if (s->running >= EXEC_MAX)
		return "too many processes run in this machine by iron already";
	if (x->detach && s->detached >= EXEC_DETACHED_MAX)
		return "64 detached commands run in this machine already; end one first";
	*ret_code = "bad_request";
	if (x->detach && x->exec == 0)
		return "a detached command has an id";
	if (x->exec && exec_find(s, x->exec))
		return "there is a command of this id already";
	return NULL;
}

static bool open_exec(struct exec_set *s, const struct agent_frame *f)
{
	struct stream_exec x;
	struct spawned p;
	const char *code;

	if (wire_decode(&stream_exec_wire, f->payload, &x))
		return false;
	const char *no = refusal(s, &x, &code);
	if (no) {
		stream_refuse(s->streams, f->stream, code, no);
		return true;
	}
	int r = spawn(&x, &s->options, &p);
	if (r) {
		stream_refuse(s->streams, f->stream, "exec_failed", strerror(-r));
		return true;
	}
	struct exec *e = adopt(s, &x, &p);
	e->stream = stream_open(s->streams, f->stream, &exec_ops, e);
	e->feeder = e->stream;
	return true;
}

bool exec_open(struct exec_set *s, const struct agent_frame *f)
{
	if (f->type == AGENT_EXEC)
		return open_exec(s, f);
	if (f->type == AGENT_ATTACH)
		return exec_open_attach(s, f);
	if (f->type == AGENT_EXECS)
		return exec_open_list(s, f);
	if (f->type == AGENT_EXEC_SIGNAL)
		return exec_open_signal(s, f);
	return f->type == AGENT_EXEC_REMOVE && exec_open_remove(s, f);
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

/* --- the loop --- */

static void poll_one(struct exec *e, int which, short events, struct pollfd *fds, size_t *n)
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
	bool room = channel_has_room(s->streams->channel);
	size_t n = 0;

	for (struct exec *e = s->head; e; e = e->next) {
		if (e->ended)
			continue;
		short output = exec_takes_output(e) ? POLLIN : 0;
		poll_one(e, REPORT, room || !e->stream ? POLLIN : 0, fds, &n);
		poll_one(e, IN, e->input_at < e->input.len ? POLLOUT : 0, fds, &n);
		poll_one(e, OUT, output, fds, &n);
		poll_one(e, ERR, output, fds, &n);
	}
	return n;
}

static void on_started(struct exec *e)
{
	e->started = true;
	exec_close_fd(e, REPORT);
	if (!e->stream)
		return;
	channel_send(e->set->streams->channel, AGENT_STARTED, e->stream->id, STR_NONE);
	if (!e->detached)
		return;
	/* (sending may have reset the connection, and this stream with it) */
	struct stream *st = e->stream;
	if (st) {
		lose_stream(e);
		stream_end(st, AGENT_DONE, NULL, NULL);
	}
}

static void read_report(struct exec *e)
{
	char space[SPAWN_REPORT_MAX];
	struct stream_error error;
	ssize_t n = read(e->fd[REPORT], space, sizeof space);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		on_started(e);
		return;
	}
	/* The writer is our own child, in one write. */
	if (wire_decode(&stream_error_wire, str_make(space, (size_t)n), &error))
		error = (struct stream_error){.code = STR("exec_failed"), .message = STR("it did not start")};
	struct stream *st = e->stream;
	e->removed = true; /* it never was one */
	close_all(e);
	if (st) {
		lose_stream(e);
		stream_end(st, AGENT_ERROR, &stream_error_wire, &error);
	}
}

static bool ready(const struct exec *e, int which, const struct pollfd *fds)
{
	return e->fd[which] >= 0 && e->polled[which] >= 0 && fds[e->polled[which]].revents;
}

static void serve(struct exec *e, const struct pollfd *fds)
{
	if (e->ended)
		return;
	if (ready(e, REPORT, fds))
		read_report(e);
	if (ready(e, IN, fds))
		exec_write_input(e);
	if (ready(e, OUT, fds))
		exec_read_output(e, OUT);
	if (ready(e, ERR, fds))
		exec_read_output(e, ERR);
}

void exec_poll_done(struct exec_set *s, const struct pollfd *fds)
{
	size_t first = s->n ? s->turn++ % s->n : 0, i = 0;

	for (struct exec *e = s->head; e; e = e->next, i++)
		if (i >= first)
			serve(e, fds);
	i = 0;
	for (struct exec *e = s->head; e && i < first; e = e->next, i++)
		serve(e, fds);
}

static uint64_t next_deadline(const struct exec *e)
{
	if (e->ended)
		return 0;
	if (e->pid == 0)
		return e->grace_ms;
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
		exec_signal_group(e, SIGTERM);
		exec_signal_group(e, SIGCONT);
	} else if (e->kill_ms && now_ms >= e->kill_ms) {
		e->kill_ms = 0;
		exec_signal_group(e, SIGKILL);
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
			exec_close_fd(e, which);
		else
			e->left[which] = (size_t)n;
	}
}

struct stream_exit exec_exit(const struct exec *e)
{
	struct stream_exit x = {.timed_out = e->timed_out};

	if (WIFSIGNALED(e->status)) {
		x.signal = (uint8_t)WTERMSIG(e->status);
		x.code = (uint16_t)(128 + x.signal);
	} else {
		x.code = (uint16_t)WEXITSTATUS(e->status);
	}
	return x;
}

static void end_exec(struct exec *e)
{
	struct stream_exit x = exec_exit(e);
	struct stream *st = e->stream;

	e->ended = true;
	e->ended_at_ms = real_ms();
	e->set->running--;
	e->set->detached -= e->detached;
	close_all(e);
	if (st) {
		lose_stream(e);
		stream_end(st, AGENT_EXIT, &stream_exit_wire, &x);
	}
}

static void settle_reaped(struct exec *e, uint64_t now_ms)
{
	bool heard = e->stream || (e->detached && !e->removed);

	/* A child may end before its report was read. */
	if (heard && !e->started)
		return;
	if (heard && e->grace_ms && now_ms >= e->grace_ms)
		end_grace(e);
	bool drained = e->fd[OUT] < 0 && e->fd[ERR] < 0;
	if (!heard || (drained && (!e->stream || channel_has_room(e->set->streams->channel))))
		end_exec(e);
}

/* Those that ended and are not listed, and of the others the oldest past the limit: newest come first. */
static void forget(struct exec_set *s)
{
	size_t kept = 0;

	for (struct exec **p = &s->head; *p;) {
		struct exec *e = *p;
		bool listed = e->id && !e->removed;
		kept += e->ended && listed;
		if (!e->ended || e->attached || (listed && kept <= EXEC_ENDED_KEPT)) {
			p = &e->next;
			continue;
		}
		*p = e->next;
		s->n--;
		exec_free(e);
	}
}

void exec_settle(struct exec_set *s, uint64_t now_ms)
{
	for (struct exec *e = s->head; e; e = e->next) {
		if (e->pid)
			check_deadline(e, now_ms);
		else if (!e->ended)
			settle_reaped(e, now_ms);
		exec_serve_attached(e);
	}
	exec_serve_listers(s);
	forget(s);
}
