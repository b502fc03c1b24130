#pragma once
/* Streams between clients (codec/stream.h, one socketpair each) and the guest (codec/agent.h, one stream
 * id each). Credit and the socket's own buffer hold a fast side back to the pace of the slow one, stream by stream:
 * at most AGENT_WINDOW bytes a stream and direction are ever kept here. Both sides are hostile: a client that breaks
 * the protocol loses its stream, an agent that does loses the connection. */
#include <event2/event.h>

#include "base/error.h"
#include "vm/agent_link.h"

#define BRIDGE_REQUEST_WAIT_MS 10000 /* for a client's request */
#define BRIDGE_ROWS_MAX 2048         /* of an EXECS: more than an honest agent keeps */

struct bridge;

struct bridge_ops {
	/* Why the guest takes no request now; NULL: it does. */
	const char *(*not_ready)(void *user);
	/* What is kept of the console. */
	int (*console)(struct buf *out, void *user);
};

struct bridge *bridge_create(struct event_base *base, struct agent_link *link, const struct bridge_ops *ops, void *user);
void bridge_destroy(struct bridge *b);

/* A new stream; *ret_fd is the client's end. -EAGAIN: too many. */
int bridge_open(struct bridge *b, int *ret_fd, struct error *reterr);
/* A frame of a stream. false: a violation of the agent's. */
bool bridge_on_frame(struct bridge *b, const struct agent_frame *f);
/* The link has room for output again. */
void bridge_on_room(struct bridge *b);
/* The connection to the agent is gone: every client is told so. */
void bridge_lost(struct bridge *b, const char *reason);
size_t bridge_count(const struct bridge *b);
