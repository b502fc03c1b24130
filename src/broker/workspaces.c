#include "broker/workspaces.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/id.h"
#include "base/log.h"
#include "broker/broker_conf.h"
#include "broker/run_record.h"
#include "broker/vms.h"
#include "os/proc.h"

#define LINGER_S 60
#define STOP_GRACE_MS 5000
#define WORKER_MEMORY_MIB 1024
#define WORKER_PIDS 16

struct workspace {
	struct broker *b;
	uint64_t id;
	uint32_t slot;
	struct cgroup *cgroup;
	struct role_proc *role;
	struct event *linger;
	unsigned used;
	bool up;
	struct reply restarter; /* who waits for the old worker's death */
};

static void workspace_free(struct workspace *w)
{
	map_remove(&w->b->workspaces, w->id);
	role_destroy(w->role);
	if (w->cgroup) {
		cgroup_remove(w->cgroup);
		cgroup_destroy(w->cgroup);
	}
	if (w->linger)
		event_free(w->linger);
	uids_worker_release(w->b->uids, w->slot);
	free(w);
}

static int configure(struct role_proc *r, int fd, void *user, struct error *reterr)
{
	struct workspace *w = user;

	return config_send_egress(w->b, w->id, fd, reterr);
}

static void on_up(struct role_proc *r, void *user)
{
	struct workspace *w = user;

	w->up = true;
	broker_link(w->b, r);
	vms_worker_up(w->b, w);
}

static void on_down(struct role_proc *r, int status, const char *reason, bool again, void *user)
{
	struct workspace *w = user;
	struct broker *b = w->b;

	broker_answer(b, w->restarter, 0, "", 0);
	w->restarter = (struct reply){0};
	vms_worker_gone(b, w, w->up ? NULL : reason);
	w->up = false;
	if (again)
		return;
	if (w->used == 0)
		workspace_free(w);
	broker_stop_step(b);
}

/* A door that the adopted worker has: whose it is may have changed while nobody looked. */
static void on_row(struct role_proc *r, const struct ipc_msg *m, void *user)
{
	struct workspace *w = user;
	const struct msg_door *door = IPC_RECORD(m, msg_door);

	if (m->info->type == MSG_TYPE_msg_door && m->nfds == 3)
		vms_adopt_door(w->b, w, door->vm, door->generation, m->fds);
}

static const struct role_ops ops = {.configure = configure, .row = on_row, .up = on_up, .down = on_down};

static void on_linger(evutil_socket_t fd, short what, void *user)
{
	struct workspace *w = user;

	if (w->used == 0 && !role_stop(w->role, STOP_GRACE_MS))
		workspace_free(w);
}

static void make_role(struct workspace *w)
{
	w->role = role_create(&w->b->role_host, &(struct role_setup){.kind = ROLE_EGRESS,
								     .id = w->id,
								     .name = "iron-egress",
								     .uid = uids_worker(w->b->uids, w->slot),
								     .gid = uids_worker(w->b->uids, w->slot),
								     .cgroup = w->cgroup,
								     .ops = &ops,
								     .user = w});
}

/* take_running: the group is that of a worker to be adopted. */
static int make_group(struct workspace *w, bool take_running, struct error *reterr)
{
	const struct cgroup_limits limits = {.memory_bytes = (uint64_t)WORKER_MEMORY_MIB << 20,
					     .pids = WORKER_PIDS,
					     .cpu_weight = CGROUP_WEIGHT_ROLE};
	char text[ID_TEXT_SIZE], name[ID_TEXT_SIZE + 8];

	id_format("ws_", w->id, text);
	snprintf(name, sizeof name, "egress-%s", text);
	return (take_running ? cgroup_take : cgroup_create)(w->b->cgroups, name, &limits, &w->cgroup, reterr);
}

/* In the table, without a process. */
static int workspace_make(struct broker *b, uint64_t id, uint32_t slot, bool take_running, struct workspace **ret,
			  struct error *reterr)
{
	struct workspace *w = xcalloc(1, sizeof *w);
	int r;

	*w = (struct workspace){.b = b, .id = id, .slot = slot, .linger = evtimer_new(b->base, on_linger, w)};
	if (!w->linger)
		abort();
	if ((r = make_group(w, take_running, reterr)) < 0) {
		workspace_free(w);
		return r;
	}
	make_role(w);
	map_put(&b->workspaces, id, w);
	*ret = w;
	return 0;
}

static int workspace_create(struct broker *b, uint64_t id, struct workspace **ret, struct error *reterr)
{
	uint32_t slot;
	int r = uids_worker_take(b->uids, &slot);

	if (r < 0)
		return error_set(reterr, r, "no uid is left for another workspace's worker");
	return workspace_make(b, id, slot, false, ret, reterr);
}

static void linger(struct workspace *w)
{
	const struct timeval tv = {.tv_sec = LINGER_S};

	event_add(w->linger, &tv);
}

/* --- those of an earlier irond --- */

static void adopt_one(struct broker *b, const char *dir, const char *file, uint64_t id)
{
	struct run_record record;
	struct workspace *w;
	struct error e = {0};
	uint32_t slot;
	uid_t uid;

	if (run_record_read(dir, file, &record) < 0 || proc_uid(record.pid, &uid) < 0 ||
	    uids_worker_claim(b->uids, uid, &slot) < 0)
		return;
	if (workspace_make(b, id, slot, true, &w, &e) < 0) {
		log_warn("worker not adopted", "reason=%s", log_quote(e.text));
		return;
	}
	if (role_adopt(w->role) == 0) {
		linger(w);
		return;
	}
	cgroup_empty(w->cgroup);
	workspace_free(w);
}

void workspaces_adopt(struct broker *b)
{
	_cleanup_free_ char *dir = xasprintf("%s/roles", b->conf->run_dir);
	const size_t prefix = strlen("egress-");
	DIR *d = opendir(dir);
	struct dirent *e;
	uint64_t id;

	while (d && (e = readdir(d)))
		if (strncmp(e->d_name, "egress-", prefix) == 0 && id_parse("ws_", str_of(e->d_name + prefix), &id) == 0)
			adopt_one(b, dir, e->d_name, id);
	if (d)
		closedir(d);
}

static void workspace_leave(struct workspace *w)
{
	map_remove(&w->b->workspaces, w->id);
	role_leave(w->role);
	cgroup_destroy(w->cgroup);
	event_free(w->linger);
	free(w);
}

void workspaces_leave(struct broker *b)
{
	struct map_slot *slot;
	size_t i;

	for (i = 0; map_next(&b->workspaces, &i, &slot); i = 0)
		workspace_leave(slot->value);
}

bool workspaces_have_file(const struct broker *b, const char *file)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->workspaces, &i, &slot))
		if (strcmp(role_file(((struct workspace *)slot->value)->role), file) == 0)
			return true;
	return false;
}

int workspace_acquire(struct broker *b, uint64_t id, struct workspace **ret, struct error *reterr)
{
	struct workspace *w = map_get(&b->workspaces, id);
	bool made = !w;
	int r = 0;

	if (made && (r = workspace_create(b, id, &w, reterr)) < 0)
		return r;
	/* DOWN may be between two lives: that one is brought forward. STOPPING: its time had come just now. */
	if (role_state(w->role) == ROLE_DOWN || role_state(w->role) == ROLE_STOPPING)
		r = role_start(w->role, reterr);
	if (r < 0) {
		if (made)
			workspace_free(w);
		return r;
	}
	event_del(w->linger);
	w->used++;
	*ret = w;
	return 0;
}

void workspace_release(struct workspace *w)
{
	if (--w->used > 0)
		return;
	if (w->b->stopping && !role_stop(w->role, STOP_GRACE_MS))
		workspace_free(w);
	else
		linger(w);
}

struct ipc_peer *workspace_peer(struct workspace *w)
{
	return role_state(w->role) == ROLE_UP ? role_peer(w->role) : NULL;
}

struct role_proc *workspace_role(struct workspace *w)
{
	return w->role;
}

uint64_t workspace_other_used(const struct broker *b, uint64_t id)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->workspaces, &i, &slot)) {
		const struct workspace *w = slot->value;
		if (w->id != id && w->used > 0)
			return w->id;
	}
	return 0;
}

void workspace_restart(struct broker *b, uint64_t id, struct reply to)
{
	struct workspace *w = map_get(&b->workspaces, id);

	if (!w || role_state(w->role) == ROLE_DOWN || w->restarter.txn) {
		broker_answer(b, to, 0, "", 0); /* no old one to wait for, or somebody waits already */
		return;
	}
	w->restarter = to;
	role_kill(w->role);
}

void workspaces_each_role(struct broker *b, broker_role_fn *fn, void *user)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->workspaces, &i, &slot))
		fn(((struct workspace *)slot->value)->role, user);
}

void workspaces_stop(struct broker *b, bool all)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->workspaces, &i, &slot)) {
		struct workspace *w = slot->value;
		if (w->used > 0 && !all)
			continue;
		if (role_stop(w->role, STOP_GRACE_MS))
			continue;
		workspace_free(w);
		i = 0; /* what followed may have moved into its place */
	}
}

void workspaces_destroy(struct broker *b)
{
	struct map_slot *slot;
	size_t i;

	for (i = 0; map_next(&b->workspaces, &i, &slot); i = 0)
		workspace_free(slot->value);
}
