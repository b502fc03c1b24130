/* What clients say: the request that opens a stream, and what may follow it. */
#include "vm/bridge_internal.h"

#define LIST_MAX 1000
#define PERMISSIONS 07777u

void bridge_refuse(struct stream *s, const char *message)
{
	bridge_deliver_error(s, "bad_request", message);
	bridge_orphan(s);
}

static void forward(struct stream *s, enum agent_type type, struct str payload)
{
	agent_link_send(s->bridge->link, type, s->id, payload);
}

/* --- requests: NULL, or what is wrong with it --- */

static const char *take_exec(struct stream *s, struct str payload)
{
	struct stream_exec x;

	if (wire_decode(&stream_exec_wire, payload, &x))
		return "the EXEC is malformed";
	if ((x.argv.len == 0) == (x.command.len == 0))
		return "give either argv or command";
	s->tty = x.tty;
	s->detach = x.detach;
	s->takes_input = s->takes_signals = !x.detach;
	return NULL;
}

static const char *take_attach(struct stream *s, struct str payload)
{
	struct stream_attach x;

	if (wire_decode(&stream_attach_wire, payload, &x))
		return "the ATTACH is malformed";
	s->exec = x.exec;
	s->follow = x.follow;
	s->takes_input = s->takes_signals = x.input;
	/* Whether it is one is not known here; an end of file too many is the agent's to judge, and no violation there. */
	s->tty = true;
	return NULL;
}

static const char *take_nothing(struct stream *s, struct str payload)
{
	return payload.len ? "an EXECS says nothing" : NULL;
}

static const char *take_exec_signal(struct stream *s, struct str payload)
{
	struct stream_exec_signal x;

	return wire_decode(&stream_exec_signal_wire, payload, &x) || x.number == 0 ?
		       "a signal is a number from 1 to 64" :
		       NULL;
}

static const char *take_exec_ref(struct stream *s, struct str payload)
{
	struct stream_exec_ref x;

	return wire_decode(&stream_exec_ref_wire, payload, &x) ? "the EXEC_REMOVE is malformed" : NULL;
}

static bool has_nul(struct str s)
{
	return s.len && memchr(s.p, '\0', s.len);
}

static const char *take_file(struct stream *s, struct str payload)
{
	struct stream_file x;

	if (wire_decode(&stream_file_wire, payload, &x) || x.op == 0)
		return "the FILE is malformed";
	if (x.path.len == 0 || has_nul(x.path) || has_nul(x.to) || has_nul(x.user) || has_nul(x.owner))
		return "a path is not empty and holds no NUL";
	if (x.op == FILE_MOVE && x.to.len == 0)
		return "a MOVE has a target";
	if (x.mode != FILE_MODE_NONE && x.mode > PERMISSIONS)
		return "a mode is at most 07777";
	if (x.limit > LIST_MAX)
		return "a LIST has at most 1000 entries";
	s->op = x.op;
	s->limit = x.limit ? x.limit : LIST_MAX;
	s->takes_input = x.op == FILE_WRITE || x.op == FILE_UNPACK;
	return NULL;
}

static void answer_console(struct stream *s)
{
	_cleanup_(buf_finish) struct buf all = {0};
	struct str rest;

	event_remove_timer(s->readable);
	if (s->bridge->ops->console(&all, s->bridge->user))
		buf_clear(&all);
	for (rest = buf_str(&all); rest.len;) {
		size_t n = MIN(rest.len, STREAM_DATA_MAX);
		bridge_deliver(s, STREAM_STDOUT, str_make(rest.p, n));
		rest = str_make(rest.p + n, rest.len - n);
	}
	bridge_deliver(s, STREAM_DONE, STR_NONE);
	if (s->fd >= 0)
		bridge_end(s);
}

static const struct {
	enum stream_kind kind;
	enum agent_type type;
	const char *(*take)(struct stream *s, struct str payload);
} requests[] = {
	{STREAM_EXEC, AGENT_EXEC, take_exec},
	{STREAM_ATTACH, AGENT_ATTACH, take_attach},
	{STREAM_EXECS, AGENT_EXECS, take_nothing},
	{STREAM_EXEC_SIGNAL, AGENT_EXEC_SIGNAL, take_exec_signal},
	{STREAM_EXEC_REMOVE, AGENT_EXEC_REMOVE, take_exec_ref},
	{STREAM_FILE, AGENT_FILE, take_file},
};

static void on_request(struct stream *s, uint8_t kind, struct str payload)
{
	const char *not_ready = s->bridge->ops->not_ready(s->bridge->user);
	size_t i = 0;

	if (kind == STREAM_CONSOLE && payload.len == 0) {
		answer_console(s);
		return;
	}
	while (i < ARRAY_SIZE(requests) && requests[i].kind != kind)
		i++;
	const char *wrong = i == ARRAY_SIZE(requests) ? "the first message is a request" : requests[i].take(s, payload);
	if (wrong || not_ready) {
		bridge_deliver_error(s, wrong ? "bad_request" : "vm_gone", wrong ? wrong : not_ready);
		if (s->fd >= 0)
			bridge_end(s);
		return;
	}
	s->id = ++s->bridge->last_id;
	s->request = requests[i].type;
	s->state = OPEN;
	event_remove_timer(s->readable);
	forward(s, s->request, payload);
}

/* --- what follows --- */

static void on_stdin(struct stream *s, struct str payload)
{
	if (payload.len > STREAM_DATA_MAX || s->eof) {
		bridge_refuse(s, s->eof ? "input after its end" : "input datagram too large");
		return;
	}
	if (payload.len == 0)
		return;
	s->may_send -= (uint32_t)payload.len;
	forward(s, AGENT_STDIN, payload);
}

static void on_stdin_eof(struct stream *s, struct str payload)
{
	if (payload.len || s->eof) {
		bridge_refuse(s, "input ends once");
		return;
	}
	s->eof = !s->tty;
	forward(s, AGENT_STDIN_EOF, STR_NONE);
}

static void on_signal(struct stream *s, struct str payload)
{
	struct stream_signal x;

	if (wire_decode(&stream_signal_wire, payload, &x) || x.number == 0)
		bridge_refuse(s, "a signal is a number from 1 to 64");
	else
		forward(s, AGENT_SIGNAL, payload);
}

static void on_resize(struct stream *s, struct str payload)
{
	struct stream_resize x;

	if (wire_decode(&stream_resize_wire, payload, &x))
		bridge_refuse(s, "a size is rows and columns");
	else
		forward(s, AGENT_RESIZE, payload);
}

void bridge_on_datagram(struct stream *s, struct str in)
{
	static const struct {
		enum stream_kind kind;
		bool signals;
		void (*handle)(struct stream *s, struct str payload);
	} handlers[] = {
		{STREAM_STDIN, false, on_stdin},
		{STREAM_STDIN_EOF, false, on_stdin_eof},
		{STREAM_SIGNAL, true, on_signal},
		{STREAM_RESIZE, true, on_resize},
	};
	struct str payload = str_make(in.p + 1, in.len - 1);
	uint8_t kind = (uint8_t)in.p[0];

	if (s->state == WAITING) {
		on_request(s, kind, payload);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
		if (handlers[i].kind != kind || !(handlers[i].signals ? s->takes_signals : s->takes_input))
			continue;
		handlers[i].handle(s, payload);
		return;
	}
	bridge_refuse(s, "that message has no place in this stream");
}

bool bridge_fits(const struct stream *s, struct str in)
{
	const struct bridge *b = s->bridge;

	if (s->state == WAITING && (in.p[0] == STREAM_CONSOLE || b->ops->not_ready(b->user)))
		return true; /* the guest has no part in the answer */
	return agent_link_has_room(b->link) &&
	       (in.p[0] != STREAM_STDIN || in.len - 1 <= s->may_send || in.len - 1 > STREAM_DATA_MAX);
}
