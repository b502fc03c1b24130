#include "api/question.h"

void question_end(struct question *q)
{
	struct call *c = q->call;

	if (q->ops->finish)
		q->ops->finish(q);
	channel_destroy(q->channel);
	event_free(q->timer);
	c->work = NULL;
	free(q);
	call_release(c);
}

static void cancel(void *work)
{
	question_end(work);
}

void question_fail(struct question *q, const struct msg_done *why)
{
	channel_note_outcome(q->channel, why->code);
	if (!q->begun)
		call_fail_done(q->call, why);
	else if (q->ops->fail)
		q->ops->fail(q, why);
	else
		call_answer_end(q->call, why->status, false);
	question_end(q);
}

void question_fail_code(struct question *q, enum api_code code, const char *message)
{
	struct msg_done why = channel_failure(code, message);

	question_fail(q, &why);
}

void question_expect(struct question *q, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	if (ms)
		evtimer_add(q->timer, &tv);
	else
		evtimer_del(q->timer);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	question_fail_code(arg, CODE_UNAVAILABLE, "the VM's agent did not answer in time: the VM is overloaded or hung; try "
						  "again, or restart it");
}

static void on_opened(void *user)
{
	struct question *q = user;

	question_expect(q, QUESTION_MS);
	if (q->ops->opened(q))
		question_fail_code(q, CODE_INTERNAL, "the VM's stream could not be used");
}

static void on_data(enum stream_kind kind, struct str data, void *user)
{
	struct question *q = user;
	char text[600];

	if (kind == STREAM_ERROR) {
		struct msg_done why = channel_error(data, text, sizeof text);
		question_fail(q, &why);
	} else if (q->ops->data(q, kind, data)) {
		question_fail_code(q, CODE_INTERNAL, "the VM's end of the stream broke its protocol");
	}
}

static void on_writable(void *user)
{
	struct question *q = user;

	if (q->ops->writable)
		q->ops->writable(q);
}

static void on_failed(const struct msg_done *why, void *user)
{
	question_fail(user, why);
}

static const struct channel_ops ops = {.opened = on_opened, .data = on_data, .writable = on_writable, .failed = on_failed};

void question_start(struct question *q, struct call *c, const struct question_ops *question_ops)
{
	q->call = c;
	q->ops = question_ops;
	q->timer = evtimer_new(c->api->base, on_late, q);
	if (!q->timer)
		abort();
	call_hold(c);
	c->work = q;
	c->cancel = cancel;
	q->channel = channel_create(c, &ops, q);
}
