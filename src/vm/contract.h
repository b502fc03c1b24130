#pragma once
/* The contract's steps as the host runs them: one after the other over the agent channel, each with a deadline, in
 * the order of codec/agent.h. A step that answers "not yet" (-ENODEV, -EAGAIN) is asked for again until its deadline.
 */
#include <event2/event.h>

#include "codec/msg_vm.h"
#include "vm/agent_link.h"

#define CONTRACT_STEP_MS 15000    /* a step */
#define CONTRACT_DEFAULT_MS 60000 /* all of them, where msg_contract names no deadline */

struct contract;

struct contract_ops {
	void (*step)(const char *name, void *user);                            /* it begins */
	void (*done)(const char *failed_step, const char *reason, void *user); /* failed_step NULL: all is well */
};

struct contract *contract_create(struct event_base *base, struct agent_link *link, const struct contract_ops *ops,
				 void *user);
void contract_destroy(struct contract *c);

/* Keeps a copy; replaces what was there, and ends a run. */
void contract_set(struct contract *c, const struct msg_contract *m);
bool contract_is_set(const struct contract *c);
bool contract_is_running(const struct contract *c);
/* Runs every step. Only while the link is up. */
void contract_run(struct contract *c);
/* Runs the clock's step alone, unless something runs already; its failure is reported by done too. */
void contract_run_clock(struct contract *c);
/* The link is gone: what ran is forgotten, nothing is reported. */
void contract_stop(struct contract *c);
/* A STEP_DONE. false: a violation. */
bool contract_on_done(struct contract *c, struct str payload);
