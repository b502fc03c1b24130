#include "control/dist.h"

#include <errno.h>

#include "base/log.h"
#include "base/map.h"
#include "base/vec.h"
#include "control/compile.h"

/* One number, which the store keeps, counts all changes. A door that has acknowledged version n holds everything that
 * was in the store when n was given; waits remember the newest version of each door they concern. At most one commit a
 * door is under way: what changes meanwhile is sent, once, after its answer. */

#define COMMIT_TIMEOUT_MS 5000
#define WORKER_TIMEOUT_MS 5000 /* for a worker that irond is starting */
#define RETRY_MS 100	       /* irond attaches the door on another channel: the worker may not know it yet */
#define RETRIES_MAX 50
/* A channel closes when too much is unsent (os/ipc.c, 16 MiB): one more policy must fit above this. */
#define QUEUE_BUSY ((size_t)2 << 20)
#define TURN_MS 10

struct door {
	struct dist *dist;
	uint64_t vm, workspace;
	uint64_t wanted, sent, acked; /* versions */
	bool busy;
	unsigned retries;
	struct event *timer; /* a retry, or the wait for a worker */
};

struct wait {
	uint64_t workspace, vm; /* whose doors; vm 0: all of the workspace */
	uint64_t version;
	int code;
	dist_done *done;
	void *arg;
};

struct dist {
	struct event_base *base;
	struct store *store;
	struct links *links;
	struct map doors;
	VEC(struct wait *) waits;
	struct event *settle;
	uint64_t version;
};

struct commit {
	struct dist *dist;
	uint64_t vm, version;
};

static void push(struct door *d);

static bool door_concerns(const struct door *d, const struct wait *w)
{
	return d->workspace == w->workspace && (!w->vm || d->vm == w->vm);
}

static bool wait_is_over(struct dist *dist, const struct wait *w)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&dist->doors, &i, &slot)) {
		const struct door *d = slot->value;
		if (door_concerns(d, w) && d->wanted && d->acked < w->version)
			return false;
	}
	return true;
}

/* Callbacks may add doors and waits: look from the start after each. */
static void on_settle(evutil_socket_t fd, short what, void *arg)
{
	struct dist *dist = arg;

	for (size_t i = 0; i < dist->waits.n;) {
		struct wait *w = dist->waits.v[i];
		if (!wait_is_over(dist, w)) {
			i++;
			continue;
		}
		VEC_REMOVE_SWAP(&dist->waits, i);
		w->done(w->code, w->arg);
		free(w);
		i = 0;
	}
}

static void settle(struct dist *dist)
{
	event_active(dist->settle, 0, 0);
}

static void schedule(struct door *d, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};
	evtimer_add(d->timer, &tv);
}

static bool ignore_answer(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	return true;
}

/* What was waited for holds now: nothing passes at these doors until the successor has been sent its policy. */
static void replace_worker(struct dist *dist, uint64_t workspace, const char *why)
{
	struct map_slot *slot;
	size_t i = 0;

	log_warn("egress worker is replaced", "workspace=%s why=%s", log_id("ws_", workspace), log_quote(why));
	ipc_call(links_irond(dist->links), MSG_TYPE_msg_egress_restart,
	         &(struct msg_egress_restart){.workspace = workspace}, NULL, 0, 0, ignore_answer, NULL);
	links_drop(dist->links, ROLE_EGRESS, workspace);
	while (map_next(&dist->doors, &i, &slot)) {
		struct door *d = slot->value;
		if (d->workspace != workspace)
			continue;
		d->busy = false;
		d->acked = d->wanted;
	}
	for (size_t k = 0; k < dist->waits.n; k++)
		if (dist->waits.v[k]->workspace == workspace)
			dist->waits.v[k]->code = -ETIMEDOUT;
	settle(dist);
}

static void on_result(struct door *d, uint64_t version, int code)
{
	struct dist *dist = d->dist;

	d->busy = false;
	if (code == -ENOENT && d->retries < RETRIES_MAX) {
		d->retries++;
		schedule(d, RETRY_MS);
		return;
	}
	if (code == -ENOENT) { /* no door there: nothing passes at it */
		log_warn("a VM is not attached at its worker", "vm=%s", log_id("vm_", d->vm));
		code = 0;
	}
	if (code) {
		char why[64];
		snprintf(why, sizeof why, "commit: %d", code);
		replace_worker(dist, d->workspace, why);
		return;
	}
	d->retries = 0;
	d->acked = version;
	if (d->wanted > version)
		push(d);
	settle(dist);
}

static bool on_commit(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	_cleanup_free_ struct commit *c = arg;
	struct door *d = map_get(&c->dist->doors, c->vm);
	bool result = m && m->info->type == MSG_TYPE_msg_result;

	if (!d || d->sent != c->version || !d->busy)
		return true; /* detached, or sent to another worker since */
	if (!m && !ipc_peer_is_open(p)) {
		d->busy = false; /* on_worker_gone, and then its successor, take it from here */
		return true;
	}
	on_result(d, c->version, result ? (int)IPC_RECORD(m, msg_result)->code : -ETIMEDOUT);
	return true;
}

static int send_policy(struct ipc_peer *worker, const struct compiled *p, uint64_t vm, uint64_t version)
{
	struct str rules = buf_str(&p->rules), rule;
	int r = ipc_notify(
	        worker, MSG_TYPE_msg_policy_begin,
	        &(struct msg_policy_begin){.vm = vm, .version = version, .mode = (uint8_t)p->mode, .rules = p->count},
	        NULL, 0);

	while (r == 0 && wire_list_next(&rules, &rule))
		r = ipc_notify(worker, MSG_TYPE_msg_policy_rule,
			       &(struct msg_policy_rule){.vm = vm, .version = version, .rule = rule}, NULL, 0);
	return r;
}

static void push(struct door *d)
{
	_cleanup_(compiled_finish) struct compiled policy = {0};
	struct dist *dist = d->dist;
	struct ipc_peer *worker = links_get(dist->links, ROLE_EGRESS, d->workspace);

	if (!worker) {
		schedule(d, WORKER_TIMEOUT_MS);
		return;
	}
	if (ipc_peer_queued(worker) > QUEUE_BUSY) { /* the doors of one workspace take turns */
		schedule(d, TURN_MS);
		return;
	}
	evtimer_del(d->timer);
	int r = policy_compile(dist->store, d->vm, &policy);
	if (r) { /* what cannot be read shuts this door, rather than leave an older policy standing */
		log_error("policy not compiled: the door is shut", "vm=%s code=%d", log_id("vm_", d->vm), r);
		policy = (struct compiled){.mode = MODE_ENFORCE};
	}
	struct commit *c = xcalloc(1, sizeof *c);
	*c = (struct commit){dist, d->vm, d->wanted};
	d->sent = d->wanted;
	d->busy = true;
	r = send_policy(worker, &policy, d->vm, d->sent);
	if (r == 0)
		r = ipc_call(worker, MSG_TYPE_msg_policy_commit,
			     &(struct msg_policy_commit){.vm = d->vm, .version = d->sent}, NULL, 0, COMMIT_TIMEOUT_MS,
			     on_commit, c);
	if (r) {
		free(c);
		d->busy = false;
		schedule(d, WORKER_TIMEOUT_MS);
	}
}

/* A retry; or no worker came in time, then what waits must learn it. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct door *d = arg;

	if (d->busy)
		return;
	if (links_get(d->dist->links, ROLE_EGRESS, d->workspace))
		push(d);
	else
		replace_worker(d->dist, d->workspace, "it did not start in time");
}

static void change(struct door *d)
{
	d->wanted = d->dist->version;
	d->retries = 0;
	if (!d->busy)
		push(d);
}

/* A store that cannot count is one that cannot be compiled from either: push finds out. */
static void next_version(struct dist *dist)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	uint64_t version;

	if (store_begin(dist->store, STORE_NORMAL, &tx) == 0 && store_policy_version_next(dist->store, &version) == 0 &&
	    store_commit(&tx) == 0)
		dist->version = MAX(version, dist->version + 1);
	else
		dist->version++;
}

static void change_doors(struct dist *dist, struct wait *w)
{
	_cleanup_free_ struct door **doors = xcalloc(dist->doors.n, sizeof *doors);
	struct map_slot *slot;
	size_t i = 0, n = 0;

	next_version(dist);
	w->version = dist->version;
	VEC_PUSH(&dist->waits, w);
	while (map_next(&dist->doors, &i, &slot))
		if (door_concerns(slot->value, w))
			doors[n++] = slot->value;
	for (i = 0; i < n; i++)
		change(doors[i]);
	settle(dist);
}

static struct wait *wait_create(uint64_t workspace, uint64_t vm, dist_done *done, void *arg)
{
	struct wait *w = xcalloc(1, sizeof *w);

	*w = (struct wait){.workspace = workspace, .vm = vm, .done = done, .arg = arg};
	return w;
}

void dist_change_vm(struct dist *dist, uint64_t vm, dist_done *done, void *arg)
{
	struct door *d = map_get(&dist->doors, vm);

	change_doors(dist, wait_create(d ? d->workspace : 0, vm, done, arg));
}

void dist_change_workspace(struct dist *dist, uint64_t workspace, dist_done *done, void *arg)
{
	change_doors(dist, wait_create(workspace, 0, done, arg));
}

void dist_on_worker(struct dist *dist, uint64_t workspace)
{
	_cleanup_free_ struct door **doors = xcalloc(dist->doors.n, sizeof *doors);
	struct map_slot *slot;
	size_t i = 0, n = 0;

	next_version(dist);
	while (map_next(&dist->doors, &i, &slot)) {
		struct door *d = slot->value;
		if (d->workspace != workspace || !d->wanted)
			continue;
		d->busy = false;
		doors[n++] = d;
	}
	for (i = 0; i < n; i++)
		change(doors[i]);
}

void dist_on_worker_gone(struct dist *dist, uint64_t workspace)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&dist->doors, &i, &slot)) {
		struct door *d = slot->value;
		if (d->workspace != workspace || d->acked >= d->wanted)
			continue;
		d->busy = false;
		schedule(d, WORKER_TIMEOUT_MS);
	}
}

void dist_attach(struct dist *dist, uint64_t vm, uint64_t workspace)
{
	struct door *d = map_get(&dist->doors, vm);

	if (d)
		return;
	d = xcalloc(1, sizeof *d);
	*d = (struct door){.dist = dist, .vm = vm, .workspace = workspace};
	d->timer = evtimer_new(dist->base, on_timer, d);
	if (!d->timer)
		abort();
	map_put(&dist->doors, vm, d);
}

void dist_detach(struct dist *dist, uint64_t vm)
{
	struct door *d = map_remove(&dist->doors, vm);

	if (!d)
		return;
	event_free(d->timer);
	free(d);
	settle(dist);
}

struct dist *dist_create(struct event_base *base, struct store *store, struct links *links)
{
	struct dist *dist = xcalloc(1, sizeof *dist);

	*dist = (struct dist){.base = base, .store = store, .links = links};
	dist->settle = event_new(base, -1, 0, on_settle, dist);
	if (!dist->settle)
		abort();
	return dist;
}

void dist_destroy(struct dist *dist)
{
	struct map_slot *slot;
	size_t i = 0;

	if (!dist)
		return;
	while (map_next(&dist->doors, &i, &slot)) {
		struct door *d = slot->value;
		event_free(d->timer);
		free(d);
	}
	map_finish(&dist->doors);
	for (i = 0; i < dist->waits.n; i++) {
		dist->waits.v[i]->done(-ECANCELED, dist->waits.v[i]->arg);
		free(dist->waits.v[i]);
	}
	VEC_FINISH(&dist->waits);
	event_free(dist->settle);
	free(dist);
}
