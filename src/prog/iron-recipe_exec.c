/* A command in the job's VM over the API's WebSocket, as `iron exec` runs one; its output is cut into lines. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "cli/ws.h"
#include "prog/iron-recipe.h"

#define LINE_BYTES ((size_t)400) /* a longer one is said in parts */
#define TAIL_BYTES ((size_t)4096)
#define CHUNK ((size_t)16 << 10)
#define SPARE_S 30 /* beyond the time that the API grants the command itself */

struct exec {
	struct ws *ws;
	const struct buf *input;
	size_t sent;
	bool shown, eof_sent;
	struct buf line;
	struct buf *tail;
	int exit_code; /* -1: not known yet */
	bool timed_out;
};

static void line_end(struct exec *x)
{
	if (x->shown && x->line.len)
		say("  %.*s", STR_ARG(buf_str(&x->line)));
	buf_clear(&x->line);
}

static void on_output(struct exec *x, struct str data)
{
	for (size_t i = 0; i < data.len; i++) {
		if (data.p[i] == '\n' || data.p[i] == '\r' || x->line.len == LINE_BYTES)
			line_end(x);
		if (data.p[i] != '\n' && data.p[i] != '\r')
			buf_append_byte(&x->line, (uint8_t)data.p[i]);
	}
	buf_append_str(x->tail, data);
	if (x->tail->len > TAIL_BYTES)
		buf_consume(x->tail, x->tail->len - TAIL_BYTES);
}

static int on_control(struct exec *x, struct str data, struct error *reterr)
{
	json_auto_t *m = json_loadb(data.p, data.len, JSON_REJECT_DUPLICATES, NULL);
	const char *type = json_string_value(json_object_get(m, "type"));
	const char *message = json_string_value(json_object_get(m, "message"));

	if (type && strcmp(type, "error") == 0)
		return error_set(reterr, -EREMOTEIO, "%s", message ? message : "the command could not be run");
	if (type && strcmp(type, "exit") == 0) {
		x->exit_code = (int)json_integer_value(json_object_get(m, "exit_code")) & 255;
		x->timed_out = json_is_true(json_object_get(m, "timed_out"));
	}
	return 0;
}

static int receive(struct exec *x, struct error *reterr)
{
	enum channel channel;
	struct str data;
	int r;

	while (x->exit_code < 0 && (r = ws_receive(x->ws, &channel, &data, reterr)) != 0) {
		if (r < 0)
			return error_set(reterr, r, "the connection ended before the command did");
		if (channel != CHANNEL_CONTROL)
			on_output(x, data);
		else if ((r = on_control(x, data, reterr)) < 0)
			return r;
	}
	return 0;
}

static int send_input(struct exec *x)
{
	const size_t left = x->input ? x->input->len - x->sent : 0, n = MIN(left, CHUNK);
	int r = 0;

	if (n)
		r = ws_send(x->ws, CHANNEL_STDIN, x->input->data + x->sent, n);
	x->sent += n;
	if (r == 0 && n == left && !x->eof_sent) {
		x->eof_sent = true;
		r = ws_send_control(x->ws, json_pack("{s:s}", "type", "eof"));
	}
	return r;
}

static int converse(struct exec *x, unsigned timeout_s, struct error *reterr)
{
	for (int r = 0; (r = receive(x, reterr)) == 0 && x->exit_code < 0;) {
		const bool full = ws_wants_write(x->ws);
		struct pollfd p = {.fd = ws_fd(x->ws), .events = full || !x->eof_sent ? POLLIN | POLLOUT : POLLIN};
		r = poll(&p, 1, (int)(timeout_s + SPARE_S) * 1000);
		if (r == 0)
			return error_set(reterr, -ETIMEDOUT, "nothing was heard of the command within %u s", timeout_s + SPARE_S);
		r = ws_flush(x->ws);
		if (r == 0 && !full && !x->eof_sent)
			r = send_input(x);
		/* what the other side said before it went is worth more than that it went */
		if (r < 0)
			return receive(x, reterr) < 0 || x->exit_code < 0
				       ? error_set(reterr, r, "the connection ended before the command did")
				       : 0;
	}
	return x->exit_code < 0 ? reterr->code : 0;
}

int exec_run(struct job *j, json_t *argv, const struct buf *input, unsigned timeout_s, bool shown, struct buf *tail,
	     int *ret_exit_code, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("/vms/%s/exec", j->vm);
	struct exec x = {.input = input, .shown = shown, .tail = tail, .exit_code = -1};
	json_auto_t *body = json_pack("{s:o, s:s, s:s, s:i, s:{s:s, s:s}}", "argv", argv, "user", "root", "cwd", "/root",
				      "timeout_s", (int)timeout_s, "env", "DEBIAN_FRONTEND", "noninteractive", "LC_ALL",
				      "C.UTF-8");

	int r = ws_open(j->client, path, body, &x.ws, reterr);
	if (r < 0)
		return r;
	r = converse(&x, timeout_s, reterr);
	line_end(&x);
	buf_finish(&x.line);
	ws_destroy(x.ws);
	if (r < 0)
		return r;
	if (x.timed_out)
		return error_set(reterr, -ETIMEDOUT, "it did not end within %u s (timeout_s)", timeout_s);
	*ret_exit_code = x.exit_code;
	return 0;
}
