/* Earlier commands: the list, the output of one from an offset (1 MiB a call, or as events with what comes live), signal,
 * remove. By WebSocket it is exec_ws.c's. */
#include "api/execs.h"

#include <errno.h>
#include <stdlib.h>

#include "api/answer.h"
#include "api/sse.h"
#include "api/starts.h"

#define OUTPUT_MAX ((size_t)1 << 20)
#define KEPT_BYTES ((uint64_t)8 << 20) /* of a command's output, in the guest */
#define ROWS_MAX 512
#define LIST_BYTES_MAX ((size_t)8 << 20)

void exec_put(struct json *j, const struct stream_exec_row *row, uint64_t vm, uint64_t kept_from)
{
	struct exec_view view = {.id = row->exec,
				 .vm = vm,
				 .argv = row->argv,
				 .command = row->command,
				 .user = row->user,
				 .tty = row->tty,
				 .detached = row->detached,
				 .ended = !row->running,
				 .timed_out = row->timed_out,
				 .status = !row->running,
				 .exit_code = row->code,
				 .started_at = row->started_at,
				 .ended_at = row->ended_at,
				 .output = row->output,
				 .kept_from = kept_from};
	answer_fields(j, ROW_EXEC, &view);
}

uint64_t exec_kept_from(const struct stream_exec_row *row, uint64_t asked_offset)
{
	if (row->offset > asked_offset || asked_offset == 0)
		return row->offset;
	return row->output > KEPT_BYTES ? row->output - KEPT_BYTES : 0;
}

static uint64_t vm_of(const struct question *q)
{
	return q->call->params.exec.msg.vm;
}

static uint64_t exec_of(const struct question *q)
{
	return q->call->params.exec.msg.exec;
}

/* --- the list --- */

struct exec_list {
	struct question q;
	struct {
		int64_t started_at;
		size_t at, len;
	} rows[ROWS_MAX];
	size_t n;
	struct buf bytes; /* of the rows, as they came */
};

static int list_opened(struct question *q)
{
	return channel_send(q->channel, STREAM_EXECS, STR_NONE);
}

static int list_take(struct exec_list *x, struct str data)
{
	struct stream_exec_row row;

	if (x->n == ROWS_MAX || wire_decode(&stream_exec_row_wire, data, &row))
		return -EPROTO;
	x->rows[x->n].started_at = row.started_at;
	x->rows[x->n].at = x->bytes.len;
	x->rows[x->n++].len = data.len;
	return buf_append_str(&x->bytes, data);
}

static int newest_first(const void *a, const void *b)
{
	int64_t ta, tb; /* both begin with it */

	memcpy(&ta, a, sizeof ta);
	memcpy(&tb, b, sizeof tb);
	return (ta < tb) - (ta > tb);
}

static void list_answer(struct exec_list *x)
{
	struct buf body = {.max = 2 * LIST_BYTES_MAX};
	struct json j = {.out = &body};
	struct stream_exec_row row;

	qsort(x->rows, x->n, sizeof x->rows[0], newest_first);
	json_object_begin(&j, NULL);
	json_array_begin(&j, "data");
	for (size_t i = 0; i < x->n; i++) {
		wire_decode(&stream_exec_row_wire, str_make(x->bytes.data + x->rows[i].at, x->rows[i].len), &row);
		json_object_begin(&j, NULL);
		exec_put(&j, &row, vm_of(&x->q), row.offset);
		json_object_end(&j);
	}
	json_array_end(&j);
	json_bool(&j, "has_more", false);
	json_null(&j, "cursor");
	json_object_end(&j);
	call_answer(x->q.call, 200, &body);
}

static int list_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct exec_list *x = (struct exec_list *)q;

	if (kind == STREAM_EXEC_ROW)
		return list_take(x, data);
	if (kind != STREAM_DONE)
		return -EPROTO;
	list_answer(x);
	question_end(q);
	return 0;
}

static void list_finish(struct question *q)
{
	buf_finish(&((struct exec_list *)q)->bytes);
}

static const struct question_ops list_ops = {.opened = list_opened, .data = list_data, .finish = list_finish};

void execs_list(struct call *c)
{
	struct exec_list *x = xcalloc(1, sizeof *x);

	x->bytes = BUF_MAX(LIST_BYTES_MAX);
	c->outlives_eof = true;
	question_start(&x->q, c, &list_ops);
}

/* --- one's output --- */

struct exec_get_work {
	struct question q;
	struct sse sse;
	uint64_t asked, next;
	struct buf row_bytes; /* what row's strings borrow from; empty: it has not come */
	struct stream_exec_row row;
	struct buf output[2];
	bool truncated;
};

static int get_opened(struct question *q)
{
	struct exec_get_work *x = (struct exec_get_work *)q;
	struct stream_attach attach = {.exec = exec_of(q), .offset = x->asked, .follow = q->call->wants_events};

	return channel_send_record(q->channel, STREAM_ATTACH, &stream_attach_wire, &attach);
}

static void put_row(struct exec_get_work *x, struct json *j)
{
	exec_put(j, &x->row, vm_of(&x->q), exec_kept_from(&x->row, x->asked));
	json_u64(j, "offset", x->row.offset);
}

static void get_answer(struct exec_get_work *x)
{
	struct buf body = {.max = (size_t)32 << 20};
	struct json j = {.out = &body};

	json_object_begin(&j, NULL);
	json_object_begin(&j, "data");
	put_row(x, &j);
	json_u64(&j, "next_offset", x->next);
	json_str(&j, "stdout", buf_str(&x->output[0]));
	json_str(&j, "stderr", buf_str(&x->output[1]));
	json_bool(&j, "truncated", x->truncated);
	json_object_end(&j);
	json_object_end(&j);
	call_answer(x->q.call, 200, &body);
	channel_note_outcome(x->q.channel, STR("done"));
	question_end(&x->q);
}

static void put_row_event(struct exec_get_work *x)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json j = {.out = &text};

	json_object_begin(&j, NULL);
	put_row(x, &j);
	json_object_end(&j);
	sse_event(&x->sse, "exec", x->next, buf_str(&text));
}

/* The first says where the output begins; another, where it goes on after what was not kept for so slow a reader. */
static int get_row(struct exec_get_work *x, struct str data)
{
	struct stream_exec_row row;
	bool first = !x->row_bytes.len;

	if (data.len == 0 || wire_decode(&stream_exec_row_wire, data, &row) || (!first && row.offset <= x->next))
		return -EPROTO;
	if (!first && !x->q.begun) { /* what an answer holds has no gap: the next call goes on behind it */
		x->truncated = true;
		get_answer(x);
		return 0;
	}
	buf_clear(&x->row_bytes);
	if (buf_append_str(&x->row_bytes, data) || wire_decode(&stream_exec_row_wire, buf_str(&x->row_bytes), &x->row))
		return -EPROTO;
	x->next = x->row.offset;
	if (!x->q.call->wants_events)
		return 0;
	if (first)
		sse_begin(&x->sse, &x->q, exec_of(&x->q));
	put_row_event(x);
	return 0;
}

/* Past 1 MiB in all the answer ends: the next call goes on from there. */
static int get_output(struct exec_get_work *x, enum stream_kind kind, struct str data)
{
	size_t room = OUTPUT_MAX - x->output[0].len - x->output[1].len;

	if (!x->row_bytes.len)
		return -EPROTO;
	if (x->q.begun) {
		x->next += data.len;
		sse_output(&x->sse, kind, x->next, data);
		return 0;
	}
	x->truncated = data.len > room;
	data.len = MIN(data.len, room);
	buf_append_str(&x->output[kind == STREAM_STDERR], data);
	x->next += data.len;
	if (x->truncated)
		get_answer(x);
	return 0;
}

static int get_exit(struct exec_get_work *x, struct str data)
{
	struct stream_exit e;

	if (!x->q.begun || wire_decode(&stream_exit_wire, data, &e))
		return -EPROTO;
	channel_note_outcome(x->q.channel, STR("done"));
	sse_exit(&x->sse, &e);
	question_end(&x->q);
	return 0;
}

static int get_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct exec_get_work *x = (struct exec_get_work *)q;

	switch ((int)kind) {
	case STREAM_EXEC_ROW:
		return get_row(x, data);
	case STREAM_STDOUT:
	case STREAM_STDERR:
		return get_output(x, kind, data);
	case STREAM_EXIT:
		return get_exit(x, data);
	case STREAM_DONE:
		if (!x->row_bytes.len || q->begun)
			return -EPROTO;
		get_answer(x);
		return 0;
	case STREAM_STARTED:
		return 0;
	default:
		return -EPROTO;
	}
}

static void get_fail(struct question *q, const struct msg_done *why)
{
	sse_error(&((struct exec_get_work *)q)->sse, why);
}

static void get_finish(struct question *q)
{
	struct exec_get_work *x = (struct exec_get_work *)q;

	sse_finish(&x->sse);
	buf_finish(&x->row_bytes);
	buf_finish(&x->output[0]);
	buf_finish(&x->output[1]);
}

static const struct question_ops get_ops = {.opened = get_opened, .data = get_data, .fail = get_fail, .finish = get_finish};

void execs_get(struct call *c)
{
	const struct exec_get_asked *asked = &c->params.exec_get.asked;
	struct exec_get_work *x;
	uint64_t offset = asked->offset;

	c->wants_events = c->wants_events && !conn_to_head(c->conn);
	/* a client that was cut off goes on where it was (HTML, section 9.2.4) */
	if (c->wants_events && !asked->offset_given && c->last_event.len &&
	    str_parse_u64(c->last_event, INT64_MAX, &offset)) {
		call_fail(c, CODE_VALIDATION_ERROR, "Last-Event-ID must be an id of this stream's events");
		return;
	}
	x = xcalloc(1, sizeof *x);
	x->asked = offset;
	x->output[0] = x->output[1] = BUF_MAX(OUTPUT_MAX);
	question_start(&x->q, c, &get_ops);
}

/* --- signal, remove --- */

static int signal_opened(struct question *q)
{
	struct stream_exec_signal s = {.exec = exec_of(q), .number = q->call->params.exec_signal.number};

	return channel_send_record(q->channel, STREAM_EXEC_SIGNAL, &stream_exec_signal_wire, &s);
}

static int remove_opened(struct question *q)
{
	struct stream_exec_ref ref = {.exec = exec_of(q)};

	return channel_send_record(q->channel, STREAM_EXEC_REMOVE, &stream_exec_ref_wire, &ref);
}

static int no_content(struct question *q, enum stream_kind kind, struct str data)
{
	struct buf body = {0};

	if (kind != STREAM_DONE)
		return -EPROTO;
	channel_note_outcome(q->channel, STR("done"));
	call_answer(q->call, 204, &body);
	question_end(q);
	return 0;
}

static const struct question_ops signal_ops = {.opened = signal_opened, .data = no_content};
static const struct question_ops remove_ops = {.opened = remove_opened, .data = no_content};

void execs_signal(struct call *c)
{
	c->outlives_eof = true;
	question_start(xcalloc(1, sizeof(struct question)), c, &signal_ops);
}

void execs_remove(struct call *c)
{
	c->outlives_eof = true;
	question_start(xcalloc(1, sizeof(struct question)), c, &remove_ops);
}
