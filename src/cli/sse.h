#pragma once
/* Server-sent events, as they come in pieces: bytes in, events out. */
#include "base/buf.h"

#define SSE_EVENT_MAX ((size_t)2 << 20)

struct sse {
	struct buf line; /* begun */
	struct buf data;
	char name[32], id[128];
	bool skip_lf;
};

/* event: its name ("message" when it has none), its data, and the last id seen; nonzero ends the feeding. */
typedef int sse_fn(void *user, const char *name, struct str data, const char *id);

/* 0, what on_event answered, or -EMSGSIZE for an event larger than SSE_EVENT_MAX. */
int sse_feed(struct sse *s, struct str bytes, sse_fn *on_event, void *user);
void sse_finish(struct sse *s);
