#include "api/sse.h"

#include "base/id.h"
#include "base/text.h"

#define SILENCE_S 15
#define STALL_MS 120000
#define NO_ID UINT64_MAX

static void arm(struct sse *s)
{
	struct timeval tv = {.tv_sec = SILENCE_S};

	evtimer_add(s->silence, &tv);
}

static void on_silence(evutil_socket_t fd, short what, void *arg)
{
	struct sse *s = arg;

	if (s->q->call->conn && conn_answer_has_room(s->q->call->conn))
		conn_answer_write(s->q->call->conn, STR(": \n\n"));
	arm(s);
}

static void on_room(void *user)
{
	struct sse *s = user;

	channel_read_enable(s->q->channel, true);
}

static const struct conn_stream stream = {.room = on_room};

void sse_begin(struct sse *s, struct question *q, uint64_t exec)
{
	char id[ID_TEXT_SIZE];

	s->q = q;
	s->silence = evtimer_new(q->call->api->base, on_silence, s);
	if (!s->silence)
		abort();
	id_format("exec_", exec, id);
	call_add_header(q->call, "Iron-Exec-Id: %s\r\n", id);
	q->begun = true;
	question_expect(q, 0);
	call_answer_begin(q->call, 200, "text/event-stream", CONN_LENGTH_UNKNOWN, STALL_MS, &stream, s);
	arm(s);
}

void sse_event(struct sse *s, const char *name, uint64_t id, struct str data)
{
	_cleanup_(buf_finish) struct buf out = BUF_MAX((size_t)256 << 10);

	if (id != NO_ID)
		buf_printf(&out, "id: %llu\n", (unsigned long long)id);
	buf_printf(&out, "event: %s\ndata: ", name);
	buf_append_str(&out, data);
	buf_append_z(&out, "\n\n");
	conn_answer_write(s->q->call->conn, buf_str(&out));
	arm(s);
}

void sse_output(struct sse *s, enum stream_kind kind, uint64_t id, struct str data)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX((size_t)192 << 10);

	base64_encode(data, &text);
	sse_event(s, kind == STREAM_STDOUT ? "stdout" : "stderr", id, buf_str(&text));
	if (!conn_answer_has_room(s->q->call->conn))
		channel_read_enable(s->q->channel, false);
}

void sse_exit(struct sse *s, const struct stream_exit *e)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json j = {.out = &text};

	json_object_begin(&j, NULL);
	json_u64(&j, "exit_code", e->code);
	json_bool(&j, "timed_out", e->timed_out);
	json_object_end(&j);
	sse_event(s, "exit", NO_ID, buf_str(&text));
	call_answer_end(s->q->call, 200, true);
}

void sse_error(struct sse *s, const struct msg_done *why)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json j = {.out = &text};

	json_object_begin(&j, NULL);
	json_str(&j, "code", why->code);
	json_str(&j, "message", why->message);
	json_object_end(&j);
	sse_event(s, "error", NO_ID, buf_str(&text));
	call_answer_end(s->q->call, why->status, true);
}

void sse_finish(struct sse *s)
{
	if (s->silence)
		event_free(take_ptr(s->silence));
}
