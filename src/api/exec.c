/* POST exec. Buffered: stdin goes in, output is gathered, one answer; what a command says past 1 MiB a stream is read and
 * dropped, so that it does not stop. With Accept: text/event-stream its output is sent as it comes. Detached it is only
 * started. Whoever leaves hangs the command up, unless it is detached. */
#include <errno.h>
#include <stdio.h>

#include "api/sse.h"
#include "api/starts.h"
#include "base/id.h"

#define OUTPUT_MAX ((size_t)1 << 20)

struct exec {
	struct question q;
	struct sse sse;
	struct str stdin_left;
	bool stdin_ended;
	struct buf output[2];
	bool truncated;
};

static bool is_detached(const struct exec *x)
{
	return x->q.call->params.exec.asked.exec.detach;
}

static void gather(struct exec *x, struct buf *out, struct str data)
{
	size_t room = OUTPUT_MAX - out->len;

	if (data.len > room) {
		x->truncated = true;
		data.len = room;
	}
	buf_append_str(out, data);
}

static void add_exec_id(struct exec *x)
{
	char id[ID_TEXT_SIZE];

	id_format("exec_", channel_id(x->q.channel), id);
	call_add_header(x->q.call, "Iron-Exec-Id: %s\r\n", id);
}

static void answer_exit(struct exec *x, const struct stream_exit *e)
{
	struct buf body = {.max = (size_t)32 << 20};
	struct json j = {.out = &body};

	json_object_begin(&j, NULL);
	json_object_begin(&j, "data");
	json_u64(&j, "exit_code", e->code);
	json_str(&j, "stdout", buf_str(&x->output[0]));
	json_str(&j, "stderr", buf_str(&x->output[1]));
	json_bool(&j, "truncated", x->truncated);
	json_bool(&j, "timed_out", e->timed_out);
	json_object_end(&j);
	json_object_end(&j);
	add_exec_id(x);
	call_answer(x->q.call, 200, &body);
}

static int on_exit_record(struct exec *x, struct str data)
{
	struct stream_exit e;
	char outcome[16];

	if (wire_decode(&stream_exit_wire, data, &e) || is_detached(x))
		return -EPROTO;
	snprintf(outcome, sizeof outcome, "%u", e.code);
	channel_note_outcome(x->q.channel, str_of(outcome));
	if (x->q.begun)
		sse_exit(&x->sse, &e);
	else
		answer_exit(x, &e);
	question_end(&x->q);
	return 0;
}

static int on_started_detached(struct exec *x)
{
	struct buf body = {0};
	struct json j = {.out = &body};

	json_object_begin(&j, NULL);
	json_object_begin(&j, "data");
	json_id(&j, "exec_id", "exec_", channel_id(x->q.channel));
	json_object_end(&j);
	json_object_end(&j);
	add_exec_id(x);
	channel_note_outcome(x->q.channel, STR("detached"));
	call_answer(x->q.call, 200, &body);
	question_end(&x->q);
	return 0;
}

static int on_started(struct exec *x)
{
	if (x->q.call->wants_events && !is_detached(x) && !x->q.begun)
		sse_begin(&x->sse, &x->q, channel_id(x->q.channel));
	else if (!is_detached(x))
		question_expect(&x->q, 0); /* a command may be silent */
	return 0;
}

static int on_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct exec *x = (struct exec *)q;

	switch ((int)kind) {
	case STREAM_STARTED:
		return on_started(x);
	case STREAM_STDOUT:
	case STREAM_STDERR:
		if (q->begun)
			sse_output(&x->sse, kind, UINT64_MAX, data);
		else
			gather(x, &x->output[kind == STREAM_STDERR], data);
		return 0;
	case STREAM_EXIT:
		return on_exit_record(x, data);
	case STREAM_DONE:
		return is_detached(x) ? on_started_detached(x) : -EPROTO;
	default:
		return -EPROTO;
	}
}

static void feed(struct question *q)
{
	struct exec *x = (struct exec *)q;

	if (is_detached(x))
		return;
	while (x->stdin_left.len && channel_can_send(q->channel)) {
		struct str piece = {x->stdin_left.p, MIN(x->stdin_left.len, STREAM_DATA_MAX)};
		channel_send(q->channel, STREAM_STDIN, piece);
		x->stdin_left.p += piece.len;
		x->stdin_left.len -= piece.len;
	}
	if (!x->stdin_left.len && !x->stdin_ended && channel_can_send(q->channel)) {
		x->stdin_ended = true;
		channel_send(q->channel, STREAM_STDIN_EOF, STR_NONE);
	}
}

static int on_opened(struct question *q)
{
	struct stream_exec *asked = &q->call->params.exec.asked.exec;

	asked->exec = channel_id(q->channel);
	int r = channel_send_record(q->channel, STREAM_EXEC, &stream_exec_wire, asked);
	if (r == 0)
		feed(q);
	return r;
}

static void fail(struct question *q, const struct msg_done *why)
{
	sse_error(&((struct exec *)q)->sse, why);
}

static void finish(struct question *q)
{
	struct exec *x = (struct exec *)q;

	sse_finish(&x->sse);
	buf_finish(&x->output[0]);
	buf_finish(&x->output[1]);
}

static const struct question_ops ops = {.opened = on_opened, .data = on_data, .writable = feed, .fail = fail, .finish = finish};

void exec_start(struct call *c)
{
	struct exec *x = xcalloc(1, sizeof *x);

	x->stdin_left = c->params.exec.asked.stdin_bytes;
	x->output[0] = x->output[1] = BUF_MAX(OUTPUT_MAX);
	question_start(&x->q, c, &ops);
}
