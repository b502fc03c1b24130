#pragma once
/* A call answered as server-sent events (text/event-stream, WHATWG HTML section 9.2): output as base64, and a comment after 15 s of
 * silence, so that whoever stands between knows that it lives. */
#include "api/json.h"
#include "api/question.h"

struct sse {
	struct question *q;
	struct event *silence;
};

/* The head goes out, with Iron-Exec-Id. The client has two minutes to take what there is. */
void sse_begin(struct sse *s, struct question *q, uint64_t exec);
/* A JSON object, or text without line breaks. id: UINT64_MAX: none. */
void sse_event(struct sse *s, const char *name, uint64_t id, struct str data);
/* STDOUT or STDERR. While the client does not take it the channel is not read. */
void sse_output(struct sse *s, enum stream_kind kind, uint64_t id, struct str data);
/* event: exit. Ends the answer. */
void sse_exit(struct sse *s, const struct stream_exit *e);
/* event: error. Ends the answer. */
void sse_error(struct sse *s, const struct msg_done *why);
void sse_finish(struct sse *s);
