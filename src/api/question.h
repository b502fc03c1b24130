#pragma once
/* One call's business with its VM over a channel: what commands, files and the console have in common. A request goes, data
 * comes (and goes), one end comes. It has a deadline until the next thing happens, and ends by itself on an ERROR, a broken
 * protocol, silence, and when the client leaves.
 *
 * Embedded as the first member of what the caller allocates with xcalloc: question_end frees the whole. */
#include "api/channel.h"

#define QUESTION_MS 25000

struct question;
struct question_ops {
	/* Sends the request. Nonzero: it could not be. */
	int (*opened)(struct question *q);
	/* A datagram but ERROR. Nonzero: it breaks the protocol. May end the question. */
	int (*data)(struct question *q, enum stream_kind kind, struct str data);
	/* May be NULL. */
	void (*writable)(struct question *q);
	/* It failed after `begun`: says so, where there is a way, and ends the answer. NULL: the answer is cut. */
	void (*fail)(struct question *q, const struct msg_done *why);
	/* Frees what the caller's struct owns. May be NULL. */
	void (*finish)(struct question *q);
};

struct question {
	struct call *call;
	struct channel *channel;
	struct event *timer;
	const struct question_ops *ops;
	bool begun; /* the answer's head is out */
};

/* Takes the call over. It has QUESTION_MS to say something once the channel is open. */
void question_start(struct question *q, struct call *c, const struct question_ops *ops);
/* The VM has so long for its next datagram (or to take one); 0: for ever. */
void question_expect(struct question *q, unsigned ms);
/* Answers with this and ends it. */
void question_fail(struct question *q, const struct msg_done *why);
void question_fail_code(struct question *q, enum api_code code, const char *message);
/* It was answered. */
void question_end(struct question *q);
