#include "control/links.h"

#include "base/log.h"
#include "base/map.h"

struct link {
	struct links *links;
	enum role role;
	uint64_t id;
	struct ipc_peer *peer;
	char name[32];
};

struct links {
	struct event_base *base;
	struct links_events events;
	void *user;
	struct ipc_peer *irond;
	struct link *api, *audit;
	struct map vms, egress;
};

static void on_irond_message(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct links *l = user;
	l->events.on_irond(p, m, l->user);
}

static void on_api_message(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct links *l = ((struct link *)user)->links;
	l->events.on_api(p, m, l->user);
}

static void on_vm_message(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct link *k = user;
	k->links->events.on_vm(k->id, p, m, k->links->user);
}

static void on_audit_message(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct links *l = ((struct link *)user)->links;
	l->events.on_audit(p, m, l->user);
}

static void on_ping(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(p, m->txn, 0, "", 0);
}

static void on_peer(struct ipc_peer *p, const struct ipc_msg *m, void *user);

static const struct ipc_rule irond_rules[] = {
	{MSG_TYPE_msg_peer, 1, IPC_NOTICE, on_peer},
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_image, 0, IPC_NOTICE, on_irond_message},
	{MSG_TYPE_msg_images_end, 0, IPC_NOTICE, on_irond_message},
	{MSG_TYPE_msg_vm_exited, 0, IPC_NOTICE, on_irond_message},
	{MSG_TYPE_msg_root_key_create, 0, IPC_REQUEST, on_irond_message},
	{MSG_TYPE_msg_root_workspaces_get, 0, IPC_REQUEST, on_irond_message},
	{MSG_TYPE_msg_index_get, 0, IPC_REQUEST, on_irond_message},
};
static const struct ipc_rule api_rules[] = {
	{MSG_TYPE_msg_vm_create, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_vm_list, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_object, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_vm_stop, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_vm_patch, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_vm_page, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_vm_open, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_policy_put, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_rule_list, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_rule_create, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_events_list, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_summary_get, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_generals_list, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_explain, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_preset, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_key_create, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_page, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_metrics_get, 0, IPC_REQUEST, on_api_message},
	{MSG_TYPE_msg_api_record, 0, IPC_NOTICE, on_api_message},
	{MSG_TYPE_msg_keep, 0, IPC_NOTICE, on_api_message},
	{MSG_TYPE_msg_vm_closed, 0, IPC_NOTICE, on_api_message},
};
static const struct ipc_rule vm_rules[] = {
	{MSG_TYPE_msg_vm_state, 0, IPC_NOTICE, on_vm_message},
};
static const struct ipc_rule audit_rules[] = {
	{MSG_TYPE_msg_audit_head, 0, IPC_NOTICE, on_audit_message},
};

/* Where a channel to (role, id) is kept: NULL for a role that iron-control has no channel to. */
static const struct {
	const char *name;
	const struct ipc_rule *rules;
	size_t nrules;
} kinds[] = {
	[ROLE_API] = {"iron-api", api_rules, ARRAY_SIZE(api_rules)},
	[ROLE_VM] = {"iron-vm", vm_rules, ARRAY_SIZE(vm_rules)},
	[ROLE_EGRESS] = {"iron-egress", NULL, 0},
	[ROLE_AUDIT] = {"iron-audit", audit_rules, ARRAY_SIZE(audit_rules)},
};

static struct link *link_find(struct links *l, enum role role, uint64_t id)
{
	if (role == ROLE_API)
		return l->api;
	if (role == ROLE_AUDIT)
		return l->audit;
	if (role == ROLE_VM)
		return map_get(&l->vms, id);
	if (role == ROLE_EGRESS)
		return map_get(&l->egress, id);
	return NULL;
}

static void link_store(struct links *l, enum role role, uint64_t id, struct link *k)
{
	struct map *m = role == ROLE_VM ? &l->vms : &l->egress;

	if (role == ROLE_API)
		l->api = k;
	else if (role == ROLE_AUDIT)
		l->audit = k;
	else if (k)
		map_put(m, id, k);
	else
		map_remove(m, id);
}

static void link_free(struct link *k)
{
	if (!k)
		return;
	ipc_peer_destroy(k->peer);
	free(k);
}

static void link_closed(struct ipc_peer *p, const char *reason, void *user)
{
	struct link *k = user;
	struct links *l = k->links;
	enum role role = k->role;
	uint64_t id = k->id;

	log_info("channel closed", "peer=%s id=%llu reason=%s", k->name, (unsigned long long)id, log_quote(reason));
	/* one that lives on would never be linked again */
	if (role == ROLE_API && strcmp(reason, "closed by peer") != 0)
		ipc_notify(l->irond, MSG_TYPE_msg_api_lost, &(struct msg_api_lost){}, NULL, 0);
	link_store(l, role, id, NULL);
	link_free(k);
	l->events.on_gone(role, id, l->user);
}

static void on_peer(struct ipc_peer *irond, const struct ipc_msg *m, void *user)
{
	const struct msg_peer *msg = IPC_RECORD(m, msg_peer);
	struct links *l = user;
	enum role role = msg->role;

	if (role >= ARRAY_SIZE(kinds) || !kinds[role].name) {
		log_warn("channel to a role that is none of ours", "role=%u", (unsigned)role);
		return;
	}
	struct link *old = link_find(l, role, msg->id), *k = xcalloc(1, sizeof *k);
	*k = (struct link){.links = l, .role = role, .id = msg->id};
	snprintf(k->name, sizeof k->name, "%s", kinds[role].name);
	link_store(l, role, msg->id, NULL);
	link_free(old);
	k->peer = ipc_peer_create(l->base, take_fd(m->fds[0]), k->name, kinds[role].rules, kinds[role].nrules,
	                          link_closed, k);
	if (!k->peer) {
		free(k);
		return;
	}
	link_store(l, role, k->id, k);
	if (role == ROLE_API)
		ipc_peer_pause_above(k->peer, LINKS_API_QUEUE);
	l->events.on_peer(role, k->id, k->peer, l->user);
}

/* Without irond nothing new is taken on: the program ends, and the next one resumes. */
static void irond_closed(struct ipc_peer *p, const char *reason, void *user)
{
	struct links *l = user;

	l->events.on_gone(ROLE_IROND, 0, l->user);
}

struct links *links_create(struct event_base *base, int irond_fd, const struct links_events *events, void *user)
{
	struct links *l = xcalloc(1, sizeof *l);

	*l = (struct links){.base = base, .events = *events, .user = user};
	l->irond = ipc_peer_create(base, irond_fd, "irond", irond_rules, ARRAY_SIZE(irond_rules), irond_closed, l);
	if (!l->irond) {
		free(l);
		return NULL;
	}
	return l;
}

static void free_all(struct map *m)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(m, &i, &slot))
		link_free(slot->value);
	map_finish(m);
}

void links_destroy(struct links *l)
{
	if (!l)
		return;
	ipc_peer_destroy(l->irond);
	link_free(l->api);
	link_free(l->audit);
	free_all(&l->vms);
	free_all(&l->egress);
	free(l);
}

struct ipc_peer *links_irond(struct links *l)
{
	return l->irond;
}

struct ipc_peer *links_get(struct links *l, enum role role, uint64_t id)
{
	struct link *k = link_find(l, role, id);
	return k ? k->peer : NULL;
}

void links_drop(struct links *l, enum role role, uint64_t id)
{
	struct link *k = link_find(l, role, id);

	link_store(l, role, id, NULL);
	link_free(k);
}
