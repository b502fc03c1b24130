#pragma once
/* The egress worker of each workspace that has a VM running: its own uid, its own cgroup. It stays for a minute after
 * the last VM, so that create-and-destroy in a row does not start one each time. */
#include "broker/broker.h"

struct workspace;

/* The workspace's worker, started when there is none; counted as used until workspace_release. */
int workspace_acquire(struct broker *b, uint64_t id, struct workspace **ret, struct error *reterr);
void workspace_release(struct workspace *w);
/* The worker's channel, NULL while it is not up. */
struct ipc_peer *workspace_peer(struct workspace *w);
struct role_proc *workspace_role(struct workspace *w);
/* A workspace other than `id` that has a VM running, 0: none. */
uint64_t workspace_other_used(const struct broker *b, uint64_t id);
/* The worker is killed, `to` answered when it is dead, and another started. */
void workspace_restart(struct broker *b, uint64_t id, struct reply to);
void workspaces_each_role(struct broker *b, broker_role_fn *fn, void *user);
/* Stops workers: of those that no VM uses, or (all) of every one. */
void workspaces_stop(struct broker *b, bool all);
void workspaces_destroy(struct broker *b);

/* Workers that an earlier irond left are adopted, or ended where they are not what would be started now. One that no VM
 * takes up goes after a minute. */
void workspaces_adopt(struct broker *b);
/* All are left to the next irond; the table is empty. */
void workspaces_leave(struct broker *b);
/* Whether that record below run_dir/roles (role_file) is a worker's of the table; egress-… also names its group. */
bool workspaces_have_file(const struct broker *b, const char *file);
