#pragma once
/* Policy distribution: what a VM's door must hold, compiled from the store and committed at its egress worker.
 *
 * A change is done when every worker it concerns has acknowledged it. A worker that does not in time is replaced
 * (msg_egress_restart): its successor starts with every door shut, so the change holds from that moment, and commits
 * the policy when it comes. */
#include <event2/event.h>
#include <stdint.h>

#include "control/links.h"
#include "store/store.h"

struct dist;

struct dist *dist_create(struct event_base *base, struct store *store, struct links *links);
/* Waiting callbacks run with -ECANCELED. */
void dist_destroy(struct dist *d);

/* The VM's door is at its workspace's worker (irond attached it); nothing is sent until a change. Again: no change. */
void dist_attach(struct dist *d, uint64_t vm, uint64_t workspace);
void dist_detach(struct dist *d, uint64_t vm);

/* The store has changed: send anew. `done` runs once, from the loop: 0 when every worker concerned holds it (at once
 * when there is none), -ETIMEDOUT when a worker had to be replaced. */
typedef void dist_done(int code, void *arg);
void dist_change_vm(struct dist *d, uint64_t vm, dist_done *done, void *arg);
void dist_change_workspace(struct dist *d, uint64_t workspace, dist_done *done, void *arg);

/* A workspace has a (new) worker: all its doors are sent again. / It has none now. */
void dist_on_worker(struct dist *d, uint64_t workspace);
void dist_on_worker_gone(struct dist *d, uint64_t workspace);
