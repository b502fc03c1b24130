#pragma once
/* One VM at the door: attached with its descriptors, given a policy, detached. */
#include "base/error.h"
#include "egress/door.h"

/* fds: TCP listener, UDP 53, NFLOG (taken: set to -1), name table (borrowed). -EEXIST, -EINVAL. */
int vm_attach(struct door *door, const struct msg_vm_attach *m, int fds[4], struct error *reterr);
/* Connections are cut, their ends recorded. NULL allowed. */
void vm_destroy(struct door_vm *vm);
/* Four times a second; second: one of them. */
void vm_tick(struct door_vm *vm, uint64_t now_ms, bool second);

int vm_policy_begin(struct door_vm *vm, const struct msg_policy_begin *m);
void vm_policy_rule(struct door_vm *vm, const struct msg_policy_rule *m);
/* The new policy holds, and what it no longer allows is cut, when this returns 0. -ESTALE, -EPROTO, -EBADMSG: the old
 * one still holds. */
int vm_policy_commit(struct door_vm *vm, const struct msg_policy_commit *m, struct error *reterr);
