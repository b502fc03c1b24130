#pragma once
/* The VMs of this host: what is on disk (state.h), and the life of the one that runs.
 *
 * A start is a chain: directory, cgroups, namespace → the workspace's worker is up → the VM's door is attached to it →
 * QEMU → iron-vm answers and is connected to iron-control → answered. A failure or QEMU's end at any point of it leads
 * into the same teardown, which waits until nothing of the VM runs and removes what a start made. */
#include "broker/broker.h"
#include "codec/msg_broker.h"

struct workspace;

/* Of a VM's QEMU, in run_dir/vms/<id> (run_record.h). */
#define VM_RUN_RECORD "qemu"

/* Reads state_dir/vms; a directory without a complete record is what an interrupted prepare or
 * remove left, and is removed. */
int vms_load(struct broker *b, struct error *reterr);
/* What an earlier irond left running is taken up: QEMU by its record in run_dir/vms/<id>, its iron-vm, its groups and its
 * namespace. Of a VM whose QEMU has ended meanwhile the end is remembered, and the rest removed; so is anything in
 * run_dir/vms that belongs to none. */
int vms_adopt(struct broker *b, struct error *reterr);
/* An adopted worker of w has that VM's door (TCP, DNS, NFLOG; those that are kept are taken out). */
void vms_adopt_door(struct broker *b, struct workspace *w, uint64_t vm, uint64_t generation, int fds[3]);
/* All that runs is left to the next irond. */
void vms_leave(struct broker *b);
/* Before that: starts that have no QEMU yet are given up. How many VMs are on their way up or down still. */
void vms_settle(struct broker *b);
unsigned vms_unsettled(const struct broker *b);
/* Whether that group, or that record below run_dir/roles, is one of a VM that runs. */
bool vms_have_group(const struct broker *b, const char *name);
bool vms_have_file(const struct broker *b, const char *file);
/* At the end, in this order around workspaces_destroy: whatever still runs is killed at once; then the table goes. */
void vms_abandon(struct broker *b);
void vms_destroy(struct broker *b);

/* The requests of iron-control (codec/msg_broker.h); each answers `to` once, now or later. */
void vm_prepare(struct broker *b, const struct msg_vm_prepare *m, struct reply to);
void vm_start(struct broker *b, uint64_t id, uint64_t generation, struct reply to);
void vm_kill(struct broker *b, uint64_t id, struct reply to);
void vm_remove(struct broker *b, uint64_t id, struct reply to);
void vm_stream(struct broker *b, uint64_t id, uint64_t token, struct reply to);
void vm_stats(struct broker *b, uint64_t id, struct reply to);
void vms_list(struct broker *b, struct reply to);

/* The workspace's worker came up: doors that are open are attached to it. */
void vms_worker_up(struct broker *b, struct workspace *w);
/* It is gone. why: it did not even come up, so starts that wait for it fail with that; NULL: another follows. */
void vms_worker_gone(struct broker *b, struct workspace *w, const char *why);

/* Whether that is a QEMU of ours. */
bool vms_have_pid(const struct broker *b, pid_t pid);
bool vms_use_image(const struct broker *b, uint64_t image); /* some VM was made of it */
/* How many VMs are not stopped. */
unsigned vms_running(const struct broker *b);
/* Asks the guests to power off, or (force) kills. */
void vms_stop(struct broker *b, bool force);
void vms_each_role(struct broker *b, broker_role_fn *fn, void *user);
