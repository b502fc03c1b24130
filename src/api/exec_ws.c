/* Live exec over a WebSocket, and attaching to an earlier command the same way.
 *
 * Before the 101 a look at the VM (the same request as GET /vms/:id) answers a wrong key, an unknown VM and one that does
 * not run with their HTTP status. A key that may run but not read gets no such look: it learns after its first frame.
 * The first text frame is the body of POST exec, or of an attach {offset, input}; then iron-control authorises, the stream
 * comes, and bytes flow. An attach begins with a control message {"type": "attached"} that says where the output begins.
 *
 * Memory is bounded in both directions. Towards the VM: one message is decoded and handed on piece by piece as the stream
 * takes it; until then nothing more is decoded, the connection's buffer fills and the socket is not read. Towards the
 * client: past OUT_HIGH the stream is not read, so the guest's pipe fills.
 *
 * What fails after the 101 is told in a control message {"type": "error", "code", "message"} before the close frame. */
#include <errno.h>
#include <stdio.h>

#include "api/channel.h"
#include "api/execs.h"
#include "api/signals.h"
#include "base/log.h"
#include "codec/websocket.h"

#define MESSAGE_MAX ((size_t)128 << 10)
#define OUT_HIGH ((size_t)256 << 10)
#define OUT_LOW ((size_t)64 << 10)
#define FIRST_MS 10000
#define PING_MS 30000
#define SILENT_PINGS 3 /* that many without a byte from the client: it is gone */
#define CLOSE_MS 3000

enum state { WAIT_FIRST, OPENING, RUNNING, CLOSING };
enum frame_channel { CHANNEL_STDIN, CHANNEL_STDOUT, CHANNEL_STDERR, CHANNEL_CONTROL };

struct session {
	struct call *call;
	struct conn *conn; /* NULL: gone */
	enum state state;
	struct ws_decoder decoder;
	struct channel *channel;
	bool takes_input; /* an attach may only look on */
	uint64_t offset;  /* an attach's */
	struct str stdin_left; /* of the decoder's message */
	struct event *timer;
	unsigned silent;
};

static void session_free(struct session *s)
{
	struct call *c = s->call;

	channel_destroy(s->channel);
	ws_decoder_finish(&s->decoder);
	if (s->timer)
		event_free(s->timer);
	free(s);
	c->work = NULL;
	call_release(c);
}

static void arm(struct session *s, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};

	event_add(s->timer, &tv);
}

/* --- to the client --- */

static void send_frame(struct session *s, enum ws_opcode opcode, struct str payload)
{
	ws_encode(opcode, payload, NULL, conn_out(s->conn));
}

static void send_channel(struct session *s, enum frame_channel channel, struct str data)
{
	static uint8_t frame[1 + STREAM_DATAGRAM_MAX];

	frame[0] = (uint8_t)channel;
	memcpy(frame + 1, data.p, MIN(data.len, STREAM_DATAGRAM_MAX));
	send_frame(s, WS_BINARY, str_make(frame, 1 + MIN(data.len, STREAM_DATAGRAM_MAX)));
}

/* The end, from our side: no more is taken from the stream; the client has a moment to answer. */
static void close_with(struct session *s, uint16_t code, const char *reason)
{
	if (s->state == CLOSING)
		return;
	s->state = CLOSING;
	channel_destroy(take_ptr(s->channel));
	ws_encode_close(code, reason, NULL, conn_out(s->conn));
	conn_read_enable(s->conn, true);
	arm(s, CLOSE_MS);
	conn_poke(s->conn);
}

static void fail_with(struct session *s, unsigned status, struct str code, uint16_t close_code, struct str message)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json j = {.out = &text};

	if (s->state == CLOSING)
		return;
	json_object_begin(&j, NULL);
	json_str(&j, "type", STR("error"));
	json_str(&j, "code", code);
	json_str(&j, "message", message);
	json_object_end(&j);
	send_channel(s, CHANNEL_CONTROL, buf_str(&text));
	call_record(s->call, status);
	close_with(s, close_code, "see the error message before");
}

static void fail(struct session *s, enum api_code code, uint16_t close_code, const char *message)
{
	fail_with(s, code_status(code), str_of(code_text(code)), close_code, str_of(message));
}

static void broken_stream(struct session *s)
{
	fail(s, CODE_INTERNAL, WS_CLOSE_INTERNAL, "the VM's end of the stream broke its protocol");
}

static bool is_attach(const struct session *s)
{
	return s->call->op == OP_VM_EXEC_GET;
}

static void on_exit_record(struct session *s, struct str data)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json j = {.out = &text};
	struct stream_exit e;
	char outcome[16];

	if (wire_decode(&stream_exit_wire, data, &e)) {
		broken_stream(s);
		return;
	}
	json_object_begin(&j, NULL);
	json_str(&j, "type", STR("exit"));
	json_u64(&j, "exit_code", e.code);
	json_u64(&j, "signal", e.signal);
	json_bool(&j, "timed_out", e.timed_out);
	json_object_end(&j);
	send_channel(s, CHANNEL_CONTROL, buf_str(&text));
	snprintf(outcome, sizeof outcome, "%u", e.code);
	channel_note_outcome(s->channel, str_of(outcome));
	call_record(s->call, 101);
	close_with(s, WS_CLOSE_NORMAL, "");
}

static void on_error_record(struct session *s, struct str data)
{
	char text[600];
	struct msg_done why = channel_error(data, text, sizeof text);

	channel_note_outcome(s->channel, why.code);
	fail_with(s, why.status, why.code, WS_CLOSE_INTERNAL, why.message);
}

/* What the guest may say without end: a client that does not read holds it back. */
static void send_output(struct session *s, enum frame_channel channel, struct str data)
{
	send_channel(s, channel, data);
	if (conn_out(s->conn)->len > OUT_HIGH)
		channel_read_enable(s->channel, false);
	conn_poke(s->conn);
}

static void on_row(struct session *s, struct str data)
{
	_cleanup_(buf_finish) struct buf text = {0};
	struct json j = {.out = &text};
	struct stream_exec_row row;

	if (!is_attach(s) || wire_decode(&stream_exec_row_wire, data, &row)) {
		broken_stream(s);
		return;
	}
	json_object_begin(&j, NULL);
	json_str(&j, "type", STR("attached"));
	exec_put(&j, &row, s->call->params.exec.msg.vm, exec_kept_from(&row, s->offset));
	json_u64(&j, "offset", row.offset);
	json_object_end(&j);
	send_output(s, CHANNEL_CONTROL, buf_str(&text));
}

/* --- from the VM --- */

static void on_data(enum stream_kind kind, struct str data, void *user)
{
	struct session *s = user;

	switch ((int)kind) {
	case STREAM_STDOUT:
	case STREAM_STDERR:
		send_output(s, kind == STREAM_STDOUT ? CHANNEL_STDOUT : CHANNEL_STDERR, data);
		break;
	case STREAM_EXIT:
		on_exit_record(s, data);
		break;
	case STREAM_ERROR:
		on_error_record(s, data);
		break;
	case STREAM_EXEC_ROW:
		on_row(s, data);
		break;
	case STREAM_STARTED:
		break;
	default:
		broken_stream(s);
		break;
	}
}

static void on_writable(void *user)
{
	struct session *s = user;

	conn_poke(s->conn);
}

static void on_failed(const struct msg_done *why, void *user)
{
	struct session *s = user;
	uint16_t code = why->status == 503 ? WS_CLOSE_TRY_LATER : s->state == OPENING ? WS_CLOSE_POLICY : WS_CLOSE_INTERNAL;

	fail_with(s, why->status, why->code, code, why->message);
}

static int send_request(struct session *s)
{
	struct stream_exec *exec = &s->call->params.exec.asked.exec;
	struct stream_attach attach = {
		.exec = s->call->params.exec.msg.exec, .offset = s->offset, .follow = true, .input = s->takes_input};

	if (is_attach(s))
		return channel_send_record(s->channel, STREAM_ATTACH, &stream_attach_wire, &attach);
	exec->exec = channel_id(s->channel);
	return channel_send_record(s->channel, STREAM_EXEC, &stream_exec_wire, exec);
}

static void on_opened(void *user)
{
	struct session *s = user;

	if (send_request(s)) {
		fail(s, CODE_INTERNAL, WS_CLOSE_INTERNAL, "the VM's stream could not be used");
		return;
	}
	s->state = RUNNING;
	arm(s, PING_MS);
	conn_poke(s->conn);
}

static const struct channel_ops channel_ops = {
	.opened = on_opened, .data = on_data, .writable = on_writable, .failed = on_failed};

/* --- what the first frame asks --- */

static int read_exec(struct session *s, struct str body, struct error *reterr)
{
	struct call *c = s->call;
	const struct op_shape *shape = op_shape_get(OP_VM_EXEC);

	int r = fields_parse_body(shape->body, body, &c->arena, &c->params.exec.asked, reterr);
	if (r == 0)
		r = shape->finish(&c->params, &c->arena, reterr);
	if (r == 0 && c->params.exec.asked.stdin_bytes.len)
		r = error_set(reterr, -EINVAL, "stdin: send it as binary frames of channel 0");
	if (r == 0 && c->params.exec.asked.exec.detach)
		r = error_set(reterr, -EINVAL, "detach: by POST only; then attach to the command");
	s->takes_input = true;
	return r;
}

struct attach_asked {
	uint64_t offset;
	bool offset_given, input;
};
static const struct field attach_fields[] = {
	{"offset", FIELD_U64, .hi = INT64_MAX, .offset = offsetof(struct attach_asked, offset),
	 .given = 1 + offsetof(struct attach_asked, offset_given), .doc = "From this byte of its output; absent: the oldest kept"},
	{"input", FIELD_FLAG, .offset = offsetof(struct attach_asked, input), .doc = "stdin and resize are for the command"},
};
static const struct field_set attach_set = {.v = attach_fields, .n = ARRAY_SIZE(attach_fields)};

static int read_attach(struct session *s, struct str body, struct error *reterr)
{
	struct attach_asked asked = {0};

	int r = fields_parse_body(&attach_set, body, &s->call->arena, &asked, reterr);
	s->takes_input = asked.input;
	s->offset = asked.offset_given ? asked.offset : s->call->params.exec_get.asked.offset;
	return r;
}

static void open_exec(struct session *s, struct str body)
{
	struct error e = {0};

	int r = is_attach(s) ? read_attach(s, body, &e) : read_exec(s, body, &e);
	if (r) {
		fail(s, r == -EBADMSG ? CODE_BAD_REQUEST : CODE_VALIDATION_ERROR, WS_CLOSE_POLICY, e.text);
		return;
	}
	s->state = OPENING;
	event_del(s->timer);
	s->channel = channel_create(s->call, &channel_ops, s);
}

/* --- control messages of the client's --- */

struct control_asked {
	uint8_t type;
	uint16_t rows, cols;
	struct str signal;
};
enum { CONTROL_RESIZE = 1, CONTROL_SIGNAL, CONTROL_EOF };

#define AT(member) .offset = offsetof(struct control_asked, member)
static const struct field control_fields[] = {
	{"type", FIELD_CHOICE, .required = true, .base = 1, .choices = "resize|signal|eof", AT(type), .doc = "What"},
	{"rows", FIELD_U16, .lo = 1, .hi = 65535, AT(rows), .doc = "resize: the terminal's"},
	{"cols", FIELD_U16, .lo = 1, .hi = 65535, AT(cols), .doc = "resize: the terminal's"},
	{"signal", FIELD_TEXT, .lo = 1, .hi = 15, AT(signal), .doc = "signal: HUP, INT, QUIT, KILL, TERM …"},
};
static const struct field_set control_set = {.v = control_fields, .n = ARRAY_SIZE(control_fields)};

static int pass_control(struct session *s, const struct control_asked *a, struct error *reterr)
{
	struct stream_resize resize = {.rows = a->rows, .cols = a->cols};
	struct stream_signal sig = {.number = (uint8_t)signal_parse(a->signal)};

	if (!s->takes_input && a->type != CONTROL_SIGNAL)
		return error_set(reterr, -EINVAL, "this attach asked for no input");
	if (a->type == CONTROL_EOF)
		return channel_send(s->channel, STREAM_STDIN_EOF, STR_NONE);
	if (a->type == CONTROL_RESIZE) {
		if (!a->rows || !a->cols)
			return error_set(reterr, -EINVAL, "rows and cols are required");
		return channel_send_record(s->channel, STREAM_RESIZE, &stream_resize_wire, &resize);
	}
	if (is_attach(s))
		return error_set(reterr, -EINVAL, "signals go by POST /signal");
	if (!sig.number)
		return error_set(reterr, -EINVAL, "signal must be a name as INT or TERM");
	return channel_send_record(s->channel, STREAM_SIGNAL, &stream_signal_wire, &sig);
}

static void on_control_message(struct session *s, struct str text)
{
	_cleanup_(arena_finish) struct arena a = {.max = 4096};
	struct control_asked asked = {0};
	struct error e = {0};

	int r = text.len <= 1024 ? fields_parse_body(&control_set, text, &a, &asked, &e)
				 : error_set(&e, -EINVAL, "a control message has at most 1024 bytes");
	if (r == 0)
		r = pass_control(s, &asked, &e);
	if (r)
		fail(s, CODE_VALIDATION_ERROR, WS_CLOSE_POLICY, e.text);
}

/* --- from the client --- */

static void on_message(struct session *s, const struct ws_event *e)
{
	if (s->state == WAIT_FIRST && e->opcode == WS_TEXT) {
		open_exec(s, e->payload);
		return;
	}
	if (s->state == WAIT_FIRST || e->opcode == WS_TEXT || e->payload.len == 0) {
		fail(s, CODE_BAD_REQUEST, WS_CLOSE_UNSUPPORTED, "first one text frame, then binary frames with a channel");
		return;
	}
	struct str data = {e->payload.p + 1, e->payload.len - 1};
	if (e->payload.p[0] == CHANNEL_STDIN && !s->takes_input)
		fail(s, CODE_VALIDATION_ERROR, WS_CLOSE_POLICY, "this attach asked for no input");
	else if (e->payload.p[0] == CHANNEL_STDIN)
		s->stdin_left = data;
	else if (e->payload.p[0] == CHANNEL_CONTROL)
		on_control_message(s, data);
	else
		fail(s, CODE_BAD_REQUEST, WS_CLOSE_UNSUPPORTED, "a client sends channel 0 (stdin) and 3 (control)");
}

static void on_close_frame(struct session *s, const struct ws_event *e)
{
	if (s->state != CLOSING)
		ws_encode_close(e->close_code == 1005 ? WS_CLOSE_NORMAL : e->close_code, "", NULL, conn_out(s->conn));
	call_record(s->call, 499);
	conn_finish(s->conn);
}

static void on_bad_frame(struct session *s, int r)
{
	if (s->state == CLOSING)
		conn_finish(s->conn);
	else if (r == -EMSGSIZE)
		fail(s, CODE_TOO_LARGE, WS_CLOSE_TOO_BIG, "a message has at most 128 KiB");
	else
		fail(s, CODE_BAD_REQUEST, r == -EILSEQ ? WS_CLOSE_INVALID : WS_CLOSE_PROTOCOL,
		     "what came is no WebSocket frame (RFC 6455)");
}

/* One event off the front of what came. False: there is none, or it was the last. */
static bool take_event(struct session *s, struct str *in)
{
	struct ws_event e;

	int r = ws_decode(&s->decoder, in, &e);
	if (r < 0)
		on_bad_frame(s, r);
	if (r <= 0)
		return false;
	s->silent = 0;
	if (e.opcode == WS_CLOSE) {
		on_close_frame(s, &e);
		return false;
	}
	if (e.opcode == WS_PING)
		send_frame(s, WS_PONG, e.payload);
	else if (e.opcode != WS_PONG && s->state != CLOSING)
		on_message(s, &e);
	return true;
}

/* Stdin as the stream takes it. True: all of it is on its way. */
static bool push_stdin(struct session *s)
{
	while (s->stdin_left.len && s->channel && channel_can_send(s->channel)) {
		struct str piece = {s->stdin_left.p, MIN(s->stdin_left.len, STREAM_DATA_MAX)};
		channel_send(s->channel, STREAM_STDIN, piece);
		s->stdin_left.p += piece.len;
		s->stdin_left.len -= piece.len;
	}
	return s->stdin_left.len == 0;
}

/* Data is taken only when there is somewhere to put it; while closing it is looked through for the close frame. */
static bool may_take(struct session *s)
{
	if (s->state == CLOSING || s->state == WAIT_FIRST)
		return true;
	return s->state == RUNNING && push_stdin(s) && channel_can_send(s->channel);
}

static void on_turn(void *user)
{
	struct session *s = user;
	struct buf *buf = conn_in(s->conn);
	struct str in = buf_str(buf);

	/* A client may ping without reading: its pongs are not gathered without end. */
	while (conn_out(s->conn)->len <= OUT_HIGH && may_take(s) && take_event(s, &in))
		;
	buf_consume(buf, buf->len - in.len);
	if (s->channel && conn_out(s->conn)->len < OUT_LOW)
		channel_read_enable(s->channel, true);
	if (conn_eof(s->conn) && s->state != CLOSING)
		call_record(s->call, 499);
	if (conn_eof(s->conn))
		conn_finish(s->conn);
}

static void on_gone(void *user)
{
	struct session *s = user;

	s->conn = NULL;
	call_record(s->call, 499);
	session_free(s);
}

static const struct conn_user conn_ops = {.turn = on_turn, .gone = on_gone};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct session *s = arg;

	if (s->state == WAIT_FIRST) {
		fail(s, CODE_BAD_REQUEST, WS_CLOSE_POLICY, "the first frame did not come in time");
	} else if (s->state == CLOSING || ++s->silent > SILENT_PINGS) {
		conn_finish(s->conn);
	} else {
		send_frame(s, WS_PING, STR("iron"));
		arm(s, PING_MS);
		conn_poke(s->conn);
	}
}

/* --- the upgrade --- */

static void upgrade(struct call *c)
{
	struct session *s = xcalloc(1, sizeof *s);
	char accept[29], head[256];

	*s = (struct session){.call = c, .conn = take_ptr(c->conn)};
	ws_decoder_init(&s->decoder, true, MESSAGE_MAX);
	s->timer = evtimer_new(c->api->base, on_timer, s);
	call_hold(c);
	c->work = s; /* without a connection of its own there is nothing to cancel: on_gone ends it */
	ws_accept(c->websocket_key, accept);
	int n = snprintf(head, sizeof head,
			 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			 "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
	arm(s, FIRST_MS);
	conn_upgrade(s->conn, str_make(head, (size_t)n), &conn_ops, s);
}

/* Whether the VM is there and runs, before the 101. */
static bool on_looked(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct call *c = arg;
	const struct msg_done *done = m ? IPC_RECORD(m, msg_done) : NULL;

	if (m && m->info->type == MSG_TYPE_row_vm)
		c->vm_is_ready = str_eq(IPC_RECORD(m, row_vm)->status_detail, STR("ready"));
	if (m && m->info->type != MSG_TYPE_msg_done)
		return false;
	if (!c->conn)
		; /* the client left meanwhile */
	else if (!m)
		call_fail(c, CODE_UNAVAILABLE, "iron-control did not answer: try again");
	else if (done->status != 200 && done->status != 403)
		call_fail_done(c, done);
	else if (done->status == 200 && !c->vm_is_ready)
		call_fail(c, CODE_VM_NOT_RUNNING, "the VM is not running and ready: start it, or wait until it is");
	else
		upgrade(c);
	call_release(c);
	return true;
}

void exec_ws_start(struct call *c)
{
	struct msg_object look = {.vm = c->params.exec.msg.vm};
	char accept[29];

	if (ws_accept(c->websocket_key, accept)) {
		call_fail(c, CODE_BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64");
		return;
	}
	struct msg_req who;
	call_identify(c, &who);
	look.key_hash = who.key_hash;
	look.address = who.address;
	look.client = who.client;
	look.op = OP_VM_GET;
	call_ask(c, MSG_TYPE_msg_object, &look, API_CONTROL_MS, on_looked);
}
