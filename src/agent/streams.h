#pragma once
/* The streams of a connection (codec/agent.h), whatever they carry: ids, credit, and exactly one end each. */
#include "agent/channel.h"

struct stream;
struct stream_set;

struct stream_ops {
	/* A frame for it, of any type but those that open a stream, CREDIT and CLOSE. false: a violation. */
	bool (*on_frame)(struct stream *s, const struct agent_frame *f);
	/* Nobody listens any more. The stream is freed when this returns. */
	void (*on_close)(struct stream *s);
};

struct stream {
	struct stream *next;
	struct stream_set *set;
	uint32_t id;
	uint32_t may_send, may_receive, owed; /* credit; owed: consumed and not given back yet */
	const struct stream_ops *ops;
	void *user;
};

struct stream_set {
	struct stream *head;
	size_t n;
	uint32_t last_id;
	struct channel *channel;
	/* A frame that opens a stream, of an id that is new: to be answered by stream_open or stream_refuse. false: a
	 * violation. */
	bool (*open)(const struct agent_frame *f, void *user);
	void *user;
};

/* A frame of a stream. false: a violation. */
bool streams_on_frame(struct stream_set *set, const struct agent_frame *f);
/* The connection is over. */
void streams_reset(struct stream_set *set);

struct stream *stream_open(struct stream_set *set, uint32_t id, const struct stream_ops *ops, void *user);
/* The ends. No callback is made, and the stream is freed. t may be NULL: no payload. */
void stream_end(struct stream *s, enum agent_type type, const struct wire_type *t, const void *record);
void stream_fail(struct stream *s, const char *code, const char *message);
/* The end of an id that was never opened here. */
void stream_refuse(struct stream_set *set, uint32_t id, const char *code, const char *message);

/* Room on the channel, and credit for n bytes. */
bool stream_may_send(const struct stream *s, size_t n);
/* A frame that uses credit up: the caller has looked at stream_may_send. */
void stream_send(struct stream *s, enum agent_type type, struct str payload);
/* false: past the credit. */
bool stream_take_input(struct stream *s, size_t n);
/* In steps: what is owed is always less than the window by more than a frame, so that the host never starves. */
void stream_give_credit(struct stream *s, size_t n);
