#pragma once
/* Where a VM's stream (from irond) and iron-control's answer that names it meet. Either may come first; what nobody
 * asks for within RENDEZVOUS_MS is closed. */
#include <event2/event.h>
#include <stdint.h>

#include "base/map.h"

#define RENDEZVOUS_MS 10000
#define RENDEZVOUS_MAX 1024

struct rendezvous {
	struct event_base *base;
	struct map waiting; /* by token */
};

/* fd: the stream, the callee's now; -1: it did not come in time. */
typedef void rendezvous_met(int fd, void *arg);

void rendezvous_init(struct rendezvous *v, struct event_base *base);
/* Whoever still waits is not called. */
void rendezvous_finish(struct rendezvous *v);
/* Takes fd. */
void rendezvous_offer(struct rendezvous *v, uint64_t token, int fd);
/* met runs once, at once or later, unless it is cancelled before. */
void rendezvous_await(struct rendezvous *v, uint64_t token, rendezvous_met *met, void *arg);
void rendezvous_cancel(struct rendezvous *v, uint64_t token);
