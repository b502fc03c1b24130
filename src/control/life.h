#pragma once
/* The lives of VMs: what brings one from a state to the next, as jobs.
 *
 * A job is a table of steps {name, run, undo}; which job a VM is in, and at which step, is in the store, so that an
 * iron-control that was killed goes on where it was, or undoes. Each VM is in at most one job. An answer carries the
 * epoch of the job that asked: what comes too late, or twice, is dropped. */
#include <event2/event.h>
#include <stdint.h>

#include "control/dist.h"
#include "control/journal.h"
#include "control/links.h"
#include "store/store.h"

struct lives;

struct lives_config {
	unsigned boot_timeout_ms, stop_timeout_ms;
	unsigned restart_pause_ms; /* before the first start of restart: always, then twice as long each time */
	struct str extra_ca;			    /* for msg_contract.trust; borrowed */
	void (*on_change)(uint64_t vm, void *user); /* the VM's state changed */
	void (*on_resumed)(void *user);		    /* lives_resume has looked at every VM */
	void *user;
};

struct lives *lives_create(struct event_base *base, struct store *store, struct links *links, struct dist *dist,
			   struct journal *journal, const struct lives_config *config);
void lives_destroy(struct lives *l);

/* Compares the store with what irond has, then goes on with every job. Once, when the channel to irond is there. */
int lives_resume(struct lives *l);

/* What the API asked for, of a VM that is in the store; each is durable when it returns 0.
 * start: from queued, stopped or failed; while stopping it follows the stop. -EALREADY: it runs or starts.
 * stop: -EINVAL unless it runs (or a start is to follow, which is then called off).
 * remove: from every state; 0 too when it is destroyed already. */
int life_start(struct lives *l, uint64_t vm);
int life_stop(struct lives *l, uint64_t vm);
int life_remove(struct lives *l, uint64_t vm);

/* Its restart was changed in the store. */
void life_restart_changed(struct lives *l, uint64_t vm);

/* A start is to follow what the VM is in: a stop, or an end that restart: always does not leave at that. */
bool life_start_follows(const struct lives *l, uint64_t vm);
/* What a VM that is pending or stopping waits for, "" otherwise. Borrowed. */
const char *life_progress(const struct lives *l, uint64_t vm);

/* What a VM that runs uses is asked for and stored each minute, so that a power cut loses no more than that. Call it as often. */
#define LIVES_SAMPLE_INTERVAL_S 60
void lives_sample(struct lives *l);

/* News. */
void lives_on_vm_peer(struct lives *l, uint64_t vm);
void lives_on_worker(struct lives *l, uint64_t workspace);
void lives_on_report(struct lives *l, uint64_t vm, const struct msg_vm_state *m);
void lives_on_exited(struct lives *l, const struct msg_vm_exited *m);
