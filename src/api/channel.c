#include "api/channel.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"

#define HOLD_MS 5000
#define AGAIN_MS 300

struct channel {
	struct call *call;
	const struct channel_ops *ops;
	void *user;
	struct vmstream *stream; /* NULL before it is opened */
	struct event *timer;	 /* asks, first and again */
	uint64_t id, awaited;
	uint64_t since_ms;
	bool asking, destroyed, counted;
	uint64_t sent, received;
	char outcome[64];
};

/* --- how many there are --- */

static uint64_t vm_of(const struct channel *ch)
{
	return ch->call->params.exec.msg.vm;
}

static bool count_in(struct channel *ch)
{
	struct map *m = &ch->call->api->channels;
	uintptr_t n = (uintptr_t)map_get(m, vm_of(ch));

	if (n >= CHANNELS_MAX)
		return false;
	map_put(m, vm_of(ch), (void *)(n + 1));
	ch->counted = true;
	return true;
}

static void count_out(struct channel *ch)
{
	struct map *m = &ch->call->api->channels;
	uintptr_t n = (uintptr_t)map_get(m, vm_of(ch));

	if (!ch->counted)
		return;
	if (n <= 1)
		map_remove(m, vm_of(ch));
	else
		map_put(m, vm_of(ch), (void *)(n - 1));
}

/* --- life --- */

static void record_end(const struct channel *ch)
{
	const struct msg_vm_open *m = &ch->call->params.exec.msg;
	bool is_command = m->op == OP_VM_EXEC || m->op == OP_VM_EXEC_WS;
	struct msg_vm_closed closed = {.vm = m->vm,
				       .exec = is_command ? ch->id : m->exec,
				       .path = m->path,
				       .outcome = str_of(ch->outcome),
				       .sent = ch->sent,
				       .received = ch->received};
	struct msg_req who;

	if (!ch->stream || !ch->call->api->control)
		return;
	call_identify(ch->call, &who);
	closed.key_hash = who.key_hash;
	closed.op = m->op;
	closed.address = who.address;
	closed.client = who.client;
	ipc_notify(ch->call->api->control, MSG_TYPE_msg_vm_closed, &closed, NULL, 0);
}

static void free_unless_asking(struct channel *ch)
{
	struct call *c = ch->call;

	if (ch->asking)
		return;
	event_free(ch->timer);
	free(ch);
	c->channel = NULL;
	call_release(c);
}

void channel_destroy(struct channel *ch)
{
	if (!ch || ch->destroyed)
		return;
	ch->destroyed = true;
	record_end(ch);
	count_out(ch);
	if (ch->awaited)
		rendezvous_cancel(&ch->call->api->streams, ch->awaited);
	vmstream_destroy(take_ptr(ch->stream));
	evtimer_del(ch->timer);
	free_unless_asking(ch);
}

void channel_drop(struct channel *ch)
{
	struct call *c = ch->call;

	ch->asking = false;
	if (ch->destroyed)
		free_unless_asking(ch);
	else
		c->cancel(c->work);
}

static void fail(struct channel *ch, const struct msg_done *why)
{
	if (str_copy(why->code, ch->outcome, sizeof ch->outcome))
		snprintf(ch->outcome, sizeof ch->outcome, "failed");
	ch->ops->failed(why, ch->user);
}

struct msg_done channel_failure(enum api_code code, const char *message)
{
	return (struct msg_done){.status = code_status(code), .code = str_of(code_text(code)), .message = str_of(message)};
}

static void fail_with(struct channel *ch, enum api_code code, const char *message)
{
	struct msg_done why = channel_failure(code, message);

	fail(ch, &why);
}

/* --- the stream --- */

static void on_data(enum stream_kind kind, struct str data, void *user)
{
	struct channel *ch = user;

	if (kind == STREAM_STDOUT || kind == STREAM_STDERR)
		ch->received += data.len;
	ch->ops->data(kind, data, ch->user);
}

static void on_writable(void *user)
{
	struct channel *ch = user;

	if (ch->ops->writable)
		ch->ops->writable(ch->user);
}

/* Closed without a word: iron-vm is gone, be it with its VM or before another serves it. */
static void on_ended(void *user)
{
	fail_with(user, CODE_UNAVAILABLE,
		  "the VM's stream broke off: whether this was done is not known; look, and try again if it was not");
}

static const struct vmstream_ops stream_ops = {.data = on_data, .writable = on_writable, .ended = on_ended};

static void on_stream(int fd, void *arg)
{
	struct channel *ch = arg;

	ch->awaited = 0;
	if (fd < 0) {
		fail_with(ch, CODE_UNAVAILABLE, "the VM's stream did not come in time: try again");
		return;
	}
	ch->stream = vmstream_create(ch->call->api->base, fd, &stream_ops, ch);
	if (ch->stream)
		ch->ops->opened(ch->user);
	else
		fail_with(ch, CODE_INTERNAL, "the VM's stream could not be used");
}

/* --- asking --- */

static void again_soon(struct channel *ch, unsigned ms)
{
	struct timeval tv = {.tv_usec = (suseconds_t)ms * 1000};

	evtimer_add(ch->timer, &tv);
}

/* done NULL: iron-control is away. What passes by itself is waited for. */
static void refused(struct channel *ch, const struct msg_done *done)
{
	bool passes = !done || done->status == 503;

	if (passes && mono_ms() - ch->since_ms < HOLD_MS)
		again_soon(ch, AGAIN_MS);
	else if (done)
		fail(ch, done);
	else
		fail_with(ch, CODE_UNAVAILABLE, "iron-control is starting: try again");
}

static bool on_answer(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct channel *ch = ((struct call *)arg)->channel;
	const struct msg_done *done = m ? IPC_RECORD(m, msg_done) : NULL;

	if (m && m->info->type != MSG_TYPE_msg_done)
		return false;
	ch->asking = false;
	if (ch->destroyed) {
		/* the stream, if it comes, finds nobody and is closed */
		free_unless_asking(ch);
	} else if (done && done->status == 200 && done->value) {
		ch->id = ch->awaited = done->value;
		rendezvous_await(&ch->call->api->streams, ch->awaited, on_stream, ch);
	} else {
		refused(ch, done);
	}
	return true;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct channel *ch = arg;
	struct call *c = ch->call;

	if (!ch->counted && !count_in(ch)) {
		fail_with(ch, CODE_RATE_LIMITED, "this VM has 64 streams open already: end some first");
		return;
	}
	call_identify(c, &c->params.req);
	int r = call_send(c, MSG_TYPE_msg_vm_open, &c->params, API_CONTROL_MS, on_answer);
	if (r == 0)
		ch->asking = true;
	else if (r == -EINVAL || r == -EMSGSIZE)
		fail_with(ch, CODE_VALIDATION_ERROR, "the request is too large: shorten its lists");
	else
		refused(ch, NULL);
}

struct channel *channel_create(struct call *c, const struct channel_ops *ops, void *user)
{
	struct channel *ch = xcalloc(1, sizeof *ch);

	*ch = (struct channel){.call = c, .ops = ops, .user = user, .since_ms = mono_ms(), .outcome = "client_gone"};
	ch->timer = evtimer_new(c->api->base, on_timer, ch);
	if (!ch->timer)
		abort();
	call_hold(c);
	c->channel = ch;
	again_soon(ch, 0);
	return ch;
}

/* --- use --- */

uint64_t channel_id(const struct channel *ch)
{
	return ch->id;
}

bool channel_can_send(const struct channel *ch)
{
	return ch->stream && vmstream_can_send(ch->stream);
}

int channel_send(struct channel *ch, enum stream_kind kind, struct str data)
{
	if (kind == STREAM_STDIN)
		ch->sent += data.len;
	return vmstream_send(ch->stream, kind, data);
}

int channel_send_record(struct channel *ch, enum stream_kind kind, const struct wire_type *t, const void *record)
{
	return vmstream_send_record(ch->stream, kind, t, record);
}

void channel_read_enable(struct channel *ch, bool on)
{
	if (ch->stream)
		vmstream_read_enable(ch->stream, on);
}

void channel_note_outcome(struct channel *ch, struct str outcome)
{
	if (str_copy(outcome, ch->outcome, sizeof ch->outcome))
		snprintf(ch->outcome, sizeof ch->outcome, "failed");
}

static enum api_code error_code(struct str code)
{
	static const struct {
		const char *text;
		enum api_code code;
	} table[] = {
		{"exec_failed", CODE_VALIDATION_ERROR},	      {"no_such_user", CODE_VALIDATION_ERROR},
		{"no_such_directory", CODE_VALIDATION_ERROR}, {"bad_request", CODE_VALIDATION_ERROR},
		{"vm_gone", CODE_VM_NOT_RUNNING},	      {"limit", CODE_RATE_LIMITED},
		{"no_such_exec", CODE_EXEC_NOT_FOUND},	      {"no_such_file", CODE_FILE_NOT_FOUND},
		{"not_a_directory", CODE_VALIDATION_ERROR},   {"is_a_directory", CODE_VALIDATION_ERROR},
		{"exists", CODE_VALIDATION_ERROR},	      {"not_empty", CODE_VALIDATION_ERROR},
		{"denied", CODE_VALIDATION_ERROR},	      {"no_room", CODE_NO_ROOM},
		{"bad_path", CODE_VALIDATION_ERROR},	      {"unsafe", CODE_VALIDATION_ERROR},
		{"bad_archive", CODE_VALIDATION_ERROR},	      {"ended", CODE_VALIDATION_ERROR},
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (str_eq(str_of(table[i].text), code))
			return table[i].code;
	return CODE_INTERNAL;
}

struct msg_done channel_error(struct str payload, char *text, size_t size)
{
	struct stream_error e;

	if (wire_decode(&stream_error_wire, payload, &e))
		return channel_failure(CODE_INTERNAL, "the VM's end of the stream broke its protocol");
	snprintf(text, size, "%.*s: %.*s", STR_ARG(e.code), STR_ARG(e.message));
	return channel_failure(error_code(e.code), text);
}
