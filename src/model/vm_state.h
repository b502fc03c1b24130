#pragma once
/* A VM's states, as a table: what the API calls it, and what may follow. The store keeps the number, so a
 * number never changes its meaning.
 *
 * V(id, number, status, status_detail, states that may follow) */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define VM_STATE_TABLE(V)                                                                                              \
	V(QUEUED, 1, "pending", "queued", VM_CREATING, VM_DESTROYING, VM_FAILED)                                       \
	V(CREATING, 2, "pending", "creating", VM_STARTING, VM_DESTROYING, VM_FAILED)                                   \
	/* stopped: where a start that restart: always had in mind is called off */                                    \
	V(STARTING, 3, "pending", "starting", VM_RUNNING, VM_READY, VM_STOPPED, VM_DESTROYING, VM_FAILED)              \
	V(RUNNING, 4, "running", "running", VM_READY, VM_STOPPING, VM_STOPPED, VM_DESTROYING, VM_FAILED)               \
	V(READY, 5, "running", "ready", VM_RUNNING, VM_STOPPING, VM_STOPPED, VM_DESTROYING, VM_FAILED)                 \
	V(STOPPING, 6, "stopped", "stopping", VM_STOPPED, VM_DESTROYING, VM_FAILED)                                    \
	V(STOPPED, 7, "stopped", "stopped", VM_STARTING, VM_DESTROYING)                                                \
	V(SUSPENDED, 8, "stopped", "suspended", VM_STARTING, VM_DESTROYING)                                            \
	V(DESTROYING, 9, "destroyed", "destroying", VM_DESTROYED)                                                      \
	V(DESTROYED, 10, "destroyed", "destroyed", VM_DESTROYED)                                                       \
	V(FAILED, 11, "failed", "failed", VM_STARTING, VM_DESTROYING)

#define VM_STATE_ENUM(id, number, status, detail, ...) VM_##id = (number),
enum vm_state { VM_STATE_TABLE(VM_STATE_ENUM) VM_STATE_END };

/* "" for a number that is no state. */
const char *vm_state_status(unsigned state);
const char *vm_state_detail(unsigned state);
bool vm_state_may_follow(unsigned from, unsigned to);
/* The set of states (bits 1 << state) that carry this status, or this status_detail; 0: there is none of that name.
 * Empty text: all of them. */
uint32_t vm_states_of_status(struct str status);
uint32_t vm_states_of_detail(struct str detail);

/* What follows an end that nobody asked iron for: nothing, or a start. The store keeps the number. */
enum vm_restart { VM_RESTART_NEVER, VM_RESTART_ALWAYS };

#define VM_STATE_BIT(state) (1U << (state))
/* A QEMU of the VM may exist, so its memory counts. */
#define VM_STATES_HOLDING_MEMORY                                                                                       \
	(VM_STATE_BIT(VM_QUEUED) | VM_STATE_BIT(VM_CREATING) | VM_STATE_BIT(VM_STARTING) | VM_STATE_BIT(VM_RUNNING) |  \
	 VM_STATE_BIT(VM_READY) | VM_STATE_BIT(VM_STOPPING))
/* No longer there: the name is free, and it counts for no limit. */
#define VM_STATES_GONE (VM_STATE_BIT(VM_DESTROYING) | VM_STATE_BIT(VM_DESTROYED))
#define VM_STATES_RUNNING (VM_STATE_BIT(VM_RUNNING) | VM_STATE_BIT(VM_READY))
#define VM_STATES_PENDING (VM_STATE_BIT(VM_QUEUED) | VM_STATE_BIT(VM_CREATING) | VM_STATE_BIT(VM_STARTING))
