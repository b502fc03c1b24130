#pragma once
/* iron-control's channels. irond hands each of them over as msg_peer; a new one to the same replaces the old. What may
 * come over which is links.c's tables: requests of the API, reports of the VMs, heads of the journal, news of irond.
 *
 * Callbacks run from the loop. `gone` is not called for a channel that is replaced. */
#include <event2/event.h>

#include "os/ipc.h"

struct links_events {
	/* A channel came (again): role and its id. */
	void (*on_peer)(enum role role, uint64_t id, struct ipc_peer *peer, void *user);
	void (*on_gone)(enum role role, uint64_t id, void *user);
	/* Messages, by who sent them. id: the VM's or the workspace's. */
	void (*on_irond)(struct ipc_peer *peer, const struct ipc_msg *m, void *user);
	void (*on_api)(struct ipc_peer *peer, const struct ipc_msg *m, void *user);
	void (*on_vm)(uint64_t id, struct ipc_peer *peer, const struct ipc_msg *m, void *user);
	void (*on_audit)(struct ipc_peer *peer, const struct ipc_msg *m, void *user);
};

/* Bytes on their way to iron-api above which nothing more is read of it, and no request that waited goes on. What one
 * answer adds to them (a page of 500, 5 MiB of rules) is within what a channel's queue takes. */
#define LINKS_API_QUEUE ((size_t)4 << 20)

struct links;

/* Owns irond_fd, also on failure (NULL). */
struct links *links_create(struct event_base *base, int irond_fd, const struct links_events *events, void *user);
void links_destroy(struct links *l);

/* NULL where there is none (now). */
struct ipc_peer *links_irond(struct links *l);
struct ipc_peer *links_get(struct links *l, enum role role, uint64_t id);
/* The channel is closed and forgotten; on_gone is not called. */
void links_drop(struct links *l, enum role role, uint64_t id);
