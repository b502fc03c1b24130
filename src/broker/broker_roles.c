/* The roles there is one of, who is connected to whom, and whether they answer. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/vec.h"
#include "broker/broker_conf.h"
#include "broker/broker_impl.h"
#include "broker/certificate.h"
#include "broker/requests.h"
#include "broker/vms.h"
#include "broker/workspaces.h"
#include "os/ipc.h"

#define PING_TIMEOUT_MS 1000
#define ROLE_MEMORY_MIB 1024
#define ROLE_PIDS 64

/* --- who is connected to whom (docs/ARCHITECTURE.md) --- */

static bool are_partners(enum role a, enum role b)
{
	if (b == ROLE_CONTROL)
		return a == ROLE_API || a == ROLE_VM || a == ROLE_EGRESS || a == ROLE_AUDIT;
	return b == ROLE_AUDIT && a == ROLE_EGRESS;
}

static void link_with(struct role_proc *other, void *user)
{
	struct role_proc *r = user;

	/* Only with who is up: one that starts is linked when it comes up. */
	if (other == r || role_state(other) != ROLE_UP)
		return;
	if (!are_partners(role_kind(r), role_kind(other)) && !are_partners(role_kind(other), role_kind(r)))
		return;
	int k = role_link(r, other);
	if (k < 0)
		log_error("roles not connected", "a=%s b=%s reason=%s", role_name(r), role_name(other),
			  log_quote(strerror(-k)));
}

void broker_link(struct broker *b, struct role_proc *r)
{
	broker_each_role(b, link_with, r);
}

void broker_each_role(struct broker *b, broker_role_fn *fn, void *user)
{
	struct role_proc *const single[] = {b->api, b->control, b->audit};

	for (size_t i = 0; i < ARRAY_SIZE(single); i++)
		if (single[i])
			fn(single[i], user);
	workspaces_each_role(b, fn, user);
	vms_each_role(b, fn, user);
}

/* --- api, control, audit --- */

static int configure(struct role_proc *r, int fd, void *user, struct error *reterr)
{
	struct broker *b = user;

	if (role_kind(r) == ROLE_API) {
		int k = b->listeners ? 0 : listeners_open(b->conf, NULL, &b->listeners, reterr);
		if (k == 0)
			k = config_send_api(b, fd, reterr);
		if (k == 0)
			certificate_told(b);
		return k;
	}
	if (role_kind(r) == ROLE_CONTROL)
		return config_send_control(b, fd, reterr);
	return config_send_audit(b, fd, reterr);
}

static void on_up(struct role_proc *r, void *user)
{
	struct broker *b = user;

	broker_progress(b, "%s answers", role_name(r));
	broker_link(b, r);
	if (r == b->control)
		send_images(b);
	if (r == b->api)
		certificate_check(b); /* one that was adopted may have an older one */
	if (b->ready || role_state(b->api) != ROLE_UP || role_state(b->control) != ROLE_UP ||
	    role_state(b->audit) != ROLE_UP)
		return;
	b->ready = true;
	b->on_ready(b->on_ready_user);
}

static void on_down(struct role_proc *r, int status, const char *reason, bool again, void *user)
{
	struct broker *b = user;
	char text[300];

	if (b->stopping) {
		broker_stop_step(b);
		return;
	}
	if (b->ready || (again && role_is_adopted(r)))
		return;
	snprintf(text, sizeof text, "%s did not start: %s", role_name(r), reason);
	broker_fail(b, text);
}

static void on_row(struct role_proc *r, const struct ipc_msg *m, void *user)
{
	struct broker *b = user;

	if (r != b->api || m->info->type != MSG_TYPE_msg_listeners || b->listeners)
		return;
	b->listeners = listeners_take(m->fds, m->nfds, IPC_RECORD(m, msg_listeners)->metrics);
}

static const struct role_ops ops = {.configure = configure, .row = on_row, .up = on_up, .down = on_down};

static struct role_proc *make(struct broker *b, enum role kind, const char *name)
{
	struct role_setup s = {
		.kind = kind, .name = name, .cgroup = b->role_groups[kind], .ops = &ops, .user = b};

	uids_role(b->uids, kind, &s.uid, &s.gid);
	if (kind == ROLE_CONTROL) {
		s.rules = requests_of_control;
		s.nrules = n_requests_of_control;
	}
	return role_create(&b->role_host, &s);
}

static int make_groups(struct broker *b, struct error *reterr)
{
	static const struct {
		enum role kind;
		const char *name;
	} groups[] = {{ROLE_AUDIT, "iron-audit"}, {ROLE_CONTROL, "iron-control"}, {ROLE_API, "iron-api"}};
	const struct cgroup_limits limits = {.memory_bytes = (uint64_t)ROLE_MEMORY_MIB << 20,
					     .pids = ROLE_PIDS,
					     .cpu_weight = CGROUP_WEIGHT_ROLE};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(groups); i++)
		r = cgroup_take(b->cgroups, groups[i].name, &limits, &b->role_groups[groups[i].kind], reterr);
	return r;
}

void broker_drop_role_groups(struct broker *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(b->role_groups); i++)
		if (b->role_groups[i]) {
			cgroup_remove(b->role_groups[i]);
			cgroup_destroy(take_ptr(b->role_groups[i]));
		}
}

int broker_make_roles(struct broker *b, struct error *reterr)
{
	int r = make_groups(b, reterr);

	if (r < 0)
		return r;
	b->audit = make(b, ROLE_AUDIT, "iron-audit");
	b->control = make(b, ROLE_CONTROL, "iron-control");
	b->api = make(b, ROLE_API, "iron-api");
	struct role_proc *const roles[] = {b->audit, b->control, b->api};
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(roles); i++)
		if (role_adopt(roles[i]) < 0)
			r = cgroup_empty(b->role_groups[role_kind(roles[i])]);
	return r < 0 ? error_set(reterr, r, "what an earlier irond left does not end: %s", strerror(-r)) : 0;
}

static int start_unless_adopted(struct role_proc *r, struct error *reterr)
{
	return role_state(r) == ROLE_DOWN ? role_start(r, reterr) : 0;
}

int broker_start_roles(struct broker *b, struct error *reterr)
{
	int r;

	if ((r = start_unless_adopted(b->audit, reterr)) < 0 || (r = start_unless_adopted(b->control, reterr)) < 0)
		return r;
	return start_unless_adopted(b->api, reterr);
}

bool broker_has_role_group(const struct broker *b, const char *name)
{
	struct role_proc *const roles[] = {b->api, b->control, b->audit};

	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (strcmp(role_name(roles[i]), name) == 0)
			return true;
	return false;
}

bool broker_has_role_file(const struct broker *b, const char *file)
{
	struct role_proc *const roles[] = {b->api, b->control, b->audit};

	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		if (strcmp(role_file(roles[i]), file) == 0)
			return true;
	return false;
}

/* --- answers owed to iron-control --- */

void broker_answer(struct broker *b, struct reply to, int code, const char *reason, uint64_t value)
{
	if (to.txn && role_peer(b->control) && role_incarnation(b->control) == to.incarnation)
		ipc_reply_result(role_peer(b->control), to.txn, code, reason, value);
}

/* --- do they answer? --- */

struct ping {
	VEC(struct role_info) roles;
	size_t pending;
	broker_roles_fn *done;
	void *user;
};

struct ping_one {
	struct ping *all;
	size_t index;
};

static void ping_done(struct ping *p)
{
	if (--p->pending > 0)
		return;
	p->done(p->roles.v, p->roles.n, p->user);
	VEC_FINISH(&p->roles);
	free(p);
}

static bool on_pong(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct ping_one *one = user;
	struct ping *all = one->all;

	snprintf(all->roles.v[one->index].state, sizeof all->roles.v[0].state, "%s", m ? "ok" : "silent");
	free(one);
	ping_done(all);
	return true;
}

static void add_role(struct role_proc *r, void *user)
{
	struct ping *p = user;
	struct role_info info = {.id = role_id(r),
				 .pid = role_pid(r),
				 .restarts = role_restarts(r),
				 .started_at = role_started_at(r)};
	struct ping_one *one;

	snprintf(info.name, sizeof info.name, "%s", role_name(r));
	snprintf(info.state, sizeof info.state, "%s", role_state(r) == ROLE_STARTING ? "starting" : "down");
	VEC_PUSH(&p->roles, info);
	if (role_state(r) != ROLE_UP)
		return;
	one = xcalloc(1, sizeof *one);
	*one = (struct ping_one){.all = p, .index = p->roles.n - 1};
	p->pending++;
	if (ipc_call(role_peer(r), MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0, PING_TIMEOUT_MS, on_pong, one) <
	    0) {
		p->pending--;
		free(one);
	}
}

void broker_ping_roles(struct broker *b, broker_roles_fn *done, void *user)
{
	struct ping *p = xcalloc(1, sizeof *p);

	*p = (struct ping){.pending = 1, .done = done, .user = user}; /* 1: until all have been asked */
	broker_each_role(b, add_role, p);
	ping_done(p);
}
