/* What is asked about executions by their id: ATTACH, EXECS, EXEC_SIGNAL, EXEC_REMOVE. */
#include <errno.h>
#include <signal.h>

#include "agent/exec_internal.h"

struct exec_lister {
	struct exec_lister *next;
	struct exec_set *set;
	struct stream *stream;
	uint64_t before; /* seq of the last one that was sent */
};

static const char NO_SUCH[] = "there is no such execution in this machine";

struct exec *exec_find(const struct exec_set *s, uint64_t id)
{
	struct exec *e = s->head;

	while (e && (e->id != id || e->removed))
		e = e->next;
	return id ? e : NULL;
}

/* false: it waits for credit or room. */
static bool send_row(struct stream *st, const struct exec *e, uint64_t offset)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct stream_exit exit = e->ended ? exec_exit(e) : (struct stream_exit){0};
	struct stream_exec_row row = {
		.exec = e->id,
		.argv = buf_str(&e->argv),
		.command = buf_str(&e->command),
		.user = str_of(e->user),
		.tty = e->tty,
		.detached = e->detached,
		.running = !e->ended,
		.code = exit.code,
		.signal = exit.signal,
		.timed_out = exit.timed_out,
		.started_at = e->started_at_ms,
		.ended_at = e->ended_at_ms,
		.output = e->output,
		.offset = offset,
	};

	if (wire_encode(&stream_exec_row_wire, &row, &b) || !stream_may_send(st, b.len))
		return false;
	stream_send(st, AGENT_EXEC_ROW, buf_str(&b));
	return true;
}

/* Of one that is not detached nothing is kept: its ring is empty, and what it said is over. */
static uint64_t oldest_kept(const struct exec *e)
{
	return e->detached ? ring_start(&e->ring) : e->output;
}

/* --- ATTACH --- */

static void drop_attach(struct attach *a)
{
	struct attach **p = &a->exec->attached;

	while (*p != a)
		p = &(*p)->next;
	*p = a->next;
	if (a->exec->feeder == a->stream)
		exec_lose_feeder(a->exec);
	free(a);
}

static void attach_end(struct attach *a, enum agent_type type, const struct wire_type *t, const void *record)
{
	struct stream *st = a->stream;

	drop_attach(a);
	stream_end(st, type, t, record);
}

static bool attach_on_frame(struct stream *st, const struct agent_frame *f)
{
	const struct attach *a = st->user;

	if (!a->input)
		return false;
	if (f->type == AGENT_STDIN)
		return exec_on_stdin(a->exec, st, f->payload);
	if (f->type == AGENT_STDIN_EOF)
		return exec_on_stdin_eof(a->exec);
	if (f->type == AGENT_SIGNAL)
		return exec_on_signal(a->exec, f->payload);
	return f->type == AGENT_RESIZE && exec_on_resize(a->exec, f->payload);
}

static void attach_on_close(struct stream *st)
{
	drop_attach(st->user);
}

static const struct stream_ops attach_ops = {attach_on_frame, attach_on_close};

static const char *attach_refusal(const struct exec *e, const struct stream_attach *x, const char **ret_code)
{
	*ret_code = "no_such_exec";
	if (!e)
		return NO_SUCH;
	*ret_code = "bad_request";
	if (!x->input)
		return NULL;
	if (!e->detached || e->ended)
		return "only a detached command that runs takes input";
	*ret_code = "limit";
	if (e->feeder)
		return "another stream is attached with input already";
	if (e->input.len - e->input_at > AGENT_WINDOW)
		return "the command has not taken its earlier input yet";
	return NULL;
}

bool exec_open_attach(struct exec_set *s, const struct agent_frame *f)
{
	struct stream_attach x;
	const char *code;

	if (wire_decode(&stream_attach_wire, f->payload, &x))
		return false;
	struct exec *e = exec_find(s, x.exec);
	const char *no = attach_refusal(e, &x, &code);
	if (no) {
		stream_refuse(s->streams, f->stream, code, no);
		return true;
	}
	struct attach *a = xcalloc(1, sizeof *a);
	*a = (struct attach){.next = e->attached,
			     .exec = e,
			     .reader.offset = MIN(x.offset, e->output),
			     .until = e->output,
			     .follow = x.follow,
			     .input = x.input};
	e->attached = a;
	a->stream = stream_open(s->streams, f->stream, &attach_ops, a);
	if (x.input)
		e->feeder = a->stream;
	return true;
}

/* A row at the beginning, and where bytes fell out since they came faster than they were read. */
static bool greet(struct attach *a)
{
	uint64_t start = oldest_kept(a->exec);

	if (a->greeted && a->reader.offset >= start)
		return true;
	if (a->reader.offset < start)
		a->reader = (struct ring_reader){.offset = start};
	a->greeted = send_row(a->stream, a->exec, a->reader.offset);
	return a->greeted;
}

/* false: it waits, or is over. */
static bool step(struct attach *a)
{
	struct exec *e = a->exec;
	struct stream_exit x = exec_exit(e);
	struct str bytes;
	bool second;

	if (!stream_may_send(a->stream, 1) || !greet(a))
		return false;
	bool more = a->follow || a->reader.offset < a->until;
	if (more && !e->removed && ring_peek(&e->ring, &a->reader, &second, &bytes)) {
		bytes.len = MIN(bytes.len, MIN((size_t)a->stream->may_send, AGENT_DATA_MAX));
		stream_send(a->stream, second ? AGENT_STDERR : AGENT_STDOUT, bytes);
		ring_advance(&a->reader, bytes.len);
		return true;
	}
	if (!a->follow)
		attach_end(a, AGENT_DONE, NULL, NULL);
	else if (e->ended)
		attach_end(a, AGENT_EXIT, &stream_exit_wire, &x);
	return false;
}

void exec_serve_attached(struct exec *e)
{
	for (struct attach *a = e->attached, *next; a; a = next) {
		next = a->next;
		while (step(a))
			;
	}
}

/* --- EXECS --- */

static bool list_on_frame(struct stream *st, const struct agent_frame *f)
{
	return false;
}

static void list_on_close(struct stream *st)
{
	struct exec_lister *l = st->user;
	struct exec_lister **p = &l->set->listers;

	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	free(l);
}

static const struct stream_ops list_ops = {list_on_frame, list_on_close};

bool exec_open_list(struct exec_set *s, const struct agent_frame *f)
{
	struct exec_lister *l = xcalloc(1, sizeof *l);

	*l = (struct exec_lister){.next = s->listers, .set = s, .before = UINT64_MAX};
	s->listers = l;
	l->stream = stream_open(s->streams, f->stream, &list_ops, l);
	return true;
}

static void serve_lister(struct exec_set *s, struct exec_lister *l)
{
	struct stream *st = l->stream;

	for (const struct exec *e = s->head; e; e = e->next) {
		if (e->seq >= l->before || e->id == 0 || e->removed)
			continue;
		if (!send_row(st, e, oldest_kept(e)))
			return;
		l->before = e->seq;
	}
	if (!channel_has_room(s->streams->channel))
		return;
	list_on_close(st);
	stream_end(st, AGENT_DONE, NULL, NULL);
}

void exec_serve_listers(struct exec_set *s)
{
	for (struct exec_lister *l = s->listers, *next; l; l = next) {
		next = l->next;
		serve_lister(s, l);
	}
}

/* --- EXEC_SIGNAL, EXEC_REMOVE --- */

static void answer_done(struct exec_set *s, uint32_t stream)
{
	channel_send(s->streams->channel, AGENT_DONE, stream, STR_NONE);
}

bool exec_open_signal(struct exec_set *s, const struct agent_frame *f)
{
	struct stream_exec_signal x;

	if (wire_decode(&stream_exec_signal_wire, f->payload, &x) || x.number == 0)
		return false;
	struct exec *e = exec_find(s, x.exec);
	if (!e || e->ended) {
		stream_refuse(s->streams, f->stream, e ? "ended" : "no_such_exec",
			      e ? "the command has ended already" : NO_SUCH);
		return true;
	}
	exec_send_signal(e, x.number);
	answer_done(s, f->stream);
	return true;
}

bool exec_open_remove(struct exec_set *s, const struct agent_frame *f)
{
	struct stream_exec_ref x;

	if (wire_decode(&stream_exec_ref_wire, f->payload, &x))
		return false;
	struct exec *e = exec_find(s, x.exec);
	if (!e) {
		stream_refuse(s->streams, f->stream, "no_such_exec", NO_SUCH);
		return true;
	}
	e->removed = true;
	if (e->ended)
		ring_finish(&e->ring);
	exec_signal_group(e, SIGKILL);
	answer_done(s, f->stream);
	return true;
}
