/* GET console: what is kept of the serial console, as it is: control bytes and whatever the guest wrote. */
#include <errno.h>

#include "api/question.h"
#include "api/starts.h"

#define CONSOLE_MAX ((size_t)64 << 10)
#define STALL_MS 30000

struct console {
	struct question q;
	struct buf text;
};

static int on_opened(struct question *q)
{
	return channel_send(q->channel, STREAM_CONSOLE, STR_NONE);
}

static int on_data(struct question *q, enum stream_kind kind, struct str data)
{
	struct console *x = (struct console *)q;

	if (kind == STREAM_STDOUT)
		return buf_append_str(&x->text, data);
	if (kind != STREAM_DONE)
		return -EPROTO;
	channel_note_outcome(q->channel, STR("done"));
	call_answer_begin(q->call, 200, "text/plain; charset=utf-8", x->text.len, STALL_MS, NULL, NULL);
	conn_answer_write(q->call->conn, buf_str(&x->text));
	call_answer_end(q->call, 200, true);
	question_end(q);
	return 0;
}

static void finish(struct question *q)
{
	buf_finish(&((struct console *)q)->text);
}

static const struct question_ops ops = {.opened = on_opened, .data = on_data, .finish = finish};

void console_start(struct call *c)
{
	struct console *x = xcalloc(1, sizeof *x);

	x->text = BUF_MAX(CONSOLE_MAX);
	question_start(&x->q, c, &ops);
}
