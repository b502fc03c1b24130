/* Buffered exec: authorise (iron-control), meet the stream (irond), feed stdin, gather output, answer once.
 * What a command says past 1 MiB a stream is read and dropped, so that it does not stop. */
#include <errno.h>

#include "api/call_internal.h"
#include "api/vmstream.h"
#include "base/log.h"

#define OUTPUT_MAX ((size_t)1 << 20)

struct exec {
	struct call *call;
	struct vmstream *stream;
	uint64_t token; /* awaited; 0: not, or met */
	struct str stdin_left;
	bool stdin_ended;
	struct buf output[2];
	bool truncated;
};

static void exec_free(struct exec *x)
{
	if (x->token)
		rendezvous_cancel(&x->call->api->streams, x->token);
	vmstream_destroy(x->stream);
	buf_finish(&x->output[0]);
	buf_finish(&x->output[1]);
	struct call *c = x->call;
	c->work = NULL;
	free(x);
	call_release(c);
}

/* Closing the stream hangs the command up. */
static void cancel(void *work)
{
	exec_free(work);
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

static void on_exit_record(struct exec *x, struct str data)
{
	struct stream_exit e;
	struct buf body = {.max = (size_t)32 << 20};
	struct json j = {.out = &body};

	if (wire_decode(&stream_exit_wire, data, &e)) {
		call_fail(x->call, CODE_INTERNAL, "the VM's end of the stream broke its protocol");
		exec_free(x);
		return;
	}
	json_object_begin(&j, NULL);
	json_object_begin(&j, "data");
	json_u64(&j, "exit_code", e.code);
	json_str(&j, "stdout", buf_str(&x->output[0]));
	json_str(&j, "stderr", buf_str(&x->output[1]));
	json_bool(&j, "truncated", x->truncated);
	json_bool(&j, "timed_out", e.timed_out);
	json_object_end(&j);
	json_object_end(&j);
	call_answer(x->call, 200, &body);
	exec_free(x);
}

enum api_code exec_error_code(struct str code)
{
	static const struct {
		const char *text;
		enum api_code code;
	} table[] = {
		{"exec_failed", CODE_VALIDATION_ERROR}, {"no_such_user", CODE_VALIDATION_ERROR},
		{"no_such_directory", CODE_VALIDATION_ERROR}, {"bad_request", CODE_VALIDATION_ERROR},
		{"vm_gone", CODE_VM_NOT_RUNNING}, {"limit", CODE_RATE_LIMITED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (str_eq(str_of(table[i].text), code))
			return table[i].code;
	return CODE_INTERNAL;
}

static void on_error_record(struct exec *x, struct str data)
{
	struct stream_error e;

	if (wire_decode(&stream_error_wire, data, &e))
		call_fail(x->call, CODE_INTERNAL, "the VM's end of the stream broke its protocol");
	else
		call_fail(x->call, exec_error_code(e.code), "%.*s: %.*s", STR_ARG(e.code), STR_ARG(e.message));
	exec_free(x);
}

static void on_data(enum stream_kind kind, struct str data, void *user)
{
	struct exec *x = user;

	switch ((int)kind) {
	case STREAM_STDOUT:
		gather(x, &x->output[0], data);
		break;
	case STREAM_STDERR:
		gather(x, &x->output[1], data);
		break;
	case STREAM_EXIT:
		on_exit_record(x, data);
		break;
	case STREAM_ERROR:
		on_error_record(x, data);
		break;
	default:
		break;
	}
}

static void feed(void *user)
{
	struct exec *x = user;

	while (x->stdin_left.len && vmstream_can_send(x->stream)) {
		struct str piece = {x->stdin_left.p, MIN(x->stdin_left.len, STREAM_DATA_MAX)};
		vmstream_send(x->stream, STREAM_STDIN, piece);
		x->stdin_left.p += piece.len;
		x->stdin_left.len -= piece.len;
	}
	if (!x->stdin_left.len && !x->stdin_ended && vmstream_can_send(x->stream)) {
		x->stdin_ended = true;
		vmstream_send(x->stream, STREAM_STDIN_EOF, STR_NONE);
	}
}

static void on_ended(void *user)
{
	struct exec *x = user;

	call_fail(x->call, CODE_VM_NOT_RUNNING, "the VM stopped while the command ran");
	exec_free(x);
}

static const struct vmstream_ops ops = {.data = on_data, .writable = feed, .ended = on_ended};

static void on_stream(int fd, void *arg)
{
	struct exec *x = arg;
	struct call *c = x->call;

	x->token = 0;
	if (fd < 0) {
		call_fail(c, CODE_UNAVAILABLE, "the VM's stream did not come in time: try again");
		exec_free(x);
		return;
	}
	x->stream = vmstream_create(c->api->base, fd, &ops, x);
	if (!x->stream || vmstream_send_record(x->stream, STREAM_EXEC, &stream_exec_wire, &c->params.exec.asked.exec)) {
		call_fail(c, CODE_INTERNAL, "the VM's stream could not be used");
		exec_free(x);
		return;
	}
	feed(x);
}

static void await_stream(struct call *c, uint64_t token)
{
	struct exec *x = xcalloc(1, sizeof *x);

	*x = (struct exec){.call = c, .token = token, .stdin_left = c->params.exec.asked.stdin_bytes};
	x->output[0] = x->output[1] = BUF_MAX(OUTPUT_MAX);
	call_hold(c);
	c->work = x;
	c->cancel = cancel;
	rendezvous_await(&c->api->streams, token, on_stream, x);
}

static bool on_opened(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct call *c = arg;
	const struct msg_done *done = m ? IPC_RECORD(m, msg_done) : NULL;

	if (m && m->info->type != MSG_TYPE_msg_done)
		return false;
	/* When the client left meanwhile the stream, if it comes, finds nobody and is closed. */
	if (c->conn && !m)
		call_fail(c, CODE_UNAVAILABLE, "iron-control did not answer: try again");
	else if (c->conn && (done->status != 200 || done->value == 0))
		call_fail_done(c, done);
	else if (c->conn)
		await_stream(c, done->value);
	call_release(c);
	return true;
}

void exec_start(struct call *c)
{
	struct msg_exec_open *m = &c->params.exec.msg;

	call_identify(c, &c->params.req);
	call_ask(c, MSG_TYPE_msg_exec_open, m, API_CONTROL_MS, on_opened);
}
