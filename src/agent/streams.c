#include "agent/streams.h"

#define CREDIT_STEP (AGENT_WINDOW / 4)

static struct stream *find(const struct stream_set *set, uint32_t id)
{
	struct stream *s = set->head;

	while (s && s->id != id)
		s = s->next;
	return s;
}

static void drop(struct stream *s)
{
	struct stream **p = &s->set->head;

	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	s->set->n--;
	free(s);
}

struct stream *stream_open(struct stream_set *set, uint32_t id, const struct stream_ops *ops, void *user)
{
	struct stream *s = xcalloc(1, sizeof *s);

	*s = (struct stream){.next = set->head,
			     .set = set,
			     .id = id,
			     .may_send = AGENT_WINDOW,
			     .may_receive = AGENT_WINDOW,
			     .ops = ops,
			     .user = user};
	set->head = s;
	set->n++;
	return s;
}

void stream_end(struct stream *s, enum agent_type type, const struct wire_type *t, const void *record)
{
	struct channel *c = s->set->channel;
	uint32_t id = s->id;

	/* Freed first: a channel that overflows resets, and that ends all streams. */
	drop(s);
	if (t)
		channel_send_record(c, type, id, t, record);
	else
		channel_send(c, type, id, STR_NONE);
}

void stream_refuse(struct stream_set *set, uint32_t id, const char *code, const char *message)
{
	struct stream_error e = {.code = str_of(code), .message = str_of(message)};

	e.message.len = MIN(e.message.len, (size_t)512);
	channel_send_record(set->channel, AGENT_ERROR, id, &stream_error_wire, &e);
}

void stream_fail(struct stream *s, const char *code, const char *message)
{
	struct stream_set *set = s->set;
	uint32_t id = s->id;

	drop(s);
	stream_refuse(set, id, code, message);
}

bool stream_may_send(const struct stream *s, size_t n)
{
	return s->may_send >= n && channel_has_room(s->set->channel);
}

void stream_send(struct stream *s, enum agent_type type, struct str payload)
{
	s->may_send -= (uint32_t)payload.len;
	channel_send(s->set->channel, type, s->id, payload);
}

bool stream_take_input(struct stream *s, size_t n)
{
	if (n > s->may_receive)
		return false;
	s->may_receive -= (uint32_t)n;
	return true;
}

void stream_give_credit(struct stream *s, size_t n)
{
	s->owed += (uint32_t)n;
	if (s->owed < CREDIT_STEP)
		return;
	uint32_t owed = s->owed;
	s->may_receive += owed;
	s->owed = 0;
	channel_send_credit(s->set->channel, s->id, owed);
}

static bool on_credit(struct stream *s, struct str payload)
{
	uint32_t n;

	if (agent_credit_decode(payload, &n) || n > AGENT_WINDOW - s->may_send)
		return false;
	s->may_send += n;
	return true;
}

static bool on_close(struct stream *s)
{
	s->ops->on_close(s);
	stream_end(s, AGENT_CLOSED, NULL, NULL);
	return true;
}

static bool opens(enum agent_type type)
{
	static const enum agent_type openers[] = {AGENT_EXEC,        AGENT_ATTACH,      AGENT_EXECS,
						  AGENT_EXEC_SIGNAL, AGENT_EXEC_REMOVE, AGENT_FILE};

	for (size_t i = 0; i < ARRAY_SIZE(openers); i++)
		if (openers[i] == type)
			return true;
	return false;
}

static bool open_new(struct stream_set *set, const struct agent_frame *f)
{
	if (f->stream <= set->last_id)
		return false;
	set->last_id = f->stream;
	if (set->n < AGENT_STREAMS_MAX)
		return set->open(f, set->user);
	stream_refuse(set, f->stream, "limit", "iron has too many streams to this machine open already");
	return true;
}

bool streams_on_frame(struct stream_set *set, const struct agent_frame *f)
{
	if (opens(f->type))
		return open_new(set, f);
	if (f->stream > set->last_id)
		return false;
	struct stream *s = find(set, f->stream);
	if (!s)
		return true; /* over: what was under way to it is dropped */
	if (f->type == AGENT_CREDIT)
		return on_credit(s, f->payload);
	if (f->type == AGENT_CLOSE)
		return on_close(s);
	return s->ops->on_frame(s, f);
}

void streams_reset(struct stream_set *set)
{
	while (set->head) {
		struct stream *s = set->head;
		s->ops->on_close(s);
		drop(s);
	}
	set->last_id = 0;
}
