#pragma once
/* The host's end of the channel to a machine's agent (codec/agent.h): the nonce exchange, repeated until it succeeds;
 * frames both ways; and what to do with an agent that breaks the protocol: the connection is reset, its bytes are not
 * even read during a pause that doubles each time, and after AGENT_LINK_TRIES in a row the link gives up until it is
 * connected anew. A guest cannot make it use more than a bounded memory, nor spin. */
#include <event2/event.h>

#include "codec/agent.h"

#define AGENT_LINK_TRIES 5
#define AGENT_LINK_ROOM ((size_t)1 << 20) /* queued output past which clients wait */

struct agent_link;

struct agent_link_ops {
	void (*up)(void *user);                                         /* the nonce came back: all streams are new */
	void (*lost)(const char *reason, void *user);                   /* it was up; another attempt is under way */
	void (*failed)(const char *reason, void *user);                 /* given up, or the descriptor ended */
	bool (*on_frame)(const struct agent_frame *f, void *user);      /* false: a violation */
	void (*on_room)(void *user);                                    /* there is room for output again */
};

/* Owns fd, a connected stream socket. Does nothing before agent_link_connect. */
struct agent_link *agent_link_create(struct event_base *base, int fd, const struct agent_link_ops *ops, void *user);
void agent_link_destroy(struct agent_link *l);

/* Drops everything and begins anew, with a fresh count of tries. No callback is made for what was dropped. */
void agent_link_connect(struct agent_link *l);
/* As if the agent had broken the protocol. */
void agent_link_violation(struct agent_link *l, const char *reason);
/* The agent has proved itself: earlier violations are forgiven. */
void agent_link_settle(struct agent_link *l);
/* No more attempts, nothing is read. */
void agent_link_stop(struct agent_link *l);

bool agent_link_is_up(const struct agent_link *l);
bool agent_link_has_room(const struct agent_link *l);
/* When the last frame came (mono_ms). */
uint64_t agent_link_last_ms(const struct agent_link *l);

/* Queued. -EPIPE: not up; -EINVAL, -EMSGSIZE: cannot be encoded. */
int agent_link_send(struct agent_link *l, enum agent_type type, uint32_t stream, struct str payload);
int agent_link_send_record(struct agent_link *l, enum agent_type type, uint32_t stream, const struct wire_type *t,
			   const void *record);
int agent_link_send_credit(struct agent_link *l, uint32_t stream, uint32_t bytes);
