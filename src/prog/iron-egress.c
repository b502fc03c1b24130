/* iron-egress: the door of one workspace's VMs. irond attaches and detaches VMs, iron-control sets their policies,
 * iron-audit takes the record of what they do. Without any of these nothing passes. */
#include <errno.h>
#include <signal.h>

#include "base/log.h"
#include "egress/door.h"
#include "egress/vm.h"
#include "os/ipc.h"
#include "prog/role_parent.h"
#include "prog/sandboxes.h"

#define CALLBACKS_A_TURN 32

struct process {
	struct event_base *base;
	struct role_parent *irond;
	struct ipc_peer *control, *audit;
	struct door *door;
};

static void answer(struct ipc_peer *peer, const struct ipc_msg *m, int code, const struct error *error)
{
	if (m->txn)
		ipc_reply_result(peer, m->txn, code, code && error ? error->text : NULL, 0);
	else if (code)
		log_warn("refused", "type=%u error=%s", m->info->type,
			 log_quote(error ? error->text : strerror(-code)));
}

static int no_such_vm(struct error *error)
{
	return error_set(error, -ENOENT, "that VM is not attached here");
}

static void on_ping(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, NULL, 0);
}

/* --- what iron-control may say --- */

static void on_policy_begin(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct process *p = user;
	const struct msg_policy_begin *begin = IPC_RECORD(m, msg_policy_begin);
	struct door_vm *vm = map_get(&p->door->vms, begin->vm);
	struct error error = {0};

	answer(peer, m, vm ? vm_policy_begin(vm, begin) : no_such_vm(&error), &error);
}

static void on_policy_rule(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct process *p = user;
	const struct msg_policy_rule *rule = IPC_RECORD(m, msg_policy_rule);
	struct door_vm *vm = map_get(&p->door->vms, rule->vm);

	if (vm)
		vm_policy_rule(vm, rule);
	answer(peer, m, 0, NULL);
}

static void on_policy_commit(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct process *p = user;
	const struct msg_policy_commit *commit = IPC_RECORD(m, msg_policy_commit);
	struct door_vm *vm = map_get(&p->door->vms, commit->vm);
	struct error error = {0};

	answer(peer, m, vm ? vm_policy_commit(vm, commit, &error) : no_such_vm(&error), &error);
}

static const struct ipc_rule control_rules[] = {
	{MSG_TYPE_msg_policy_begin, 0, IPC_EITHER, on_policy_begin},
	{MSG_TYPE_msg_policy_rule, 0, IPC_EITHER, on_policy_rule},
	{MSG_TYPE_msg_policy_commit, 0, IPC_REQUEST, on_policy_commit},
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
};

static const struct ipc_rule audit_rules[] = {
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
};

/* irond starts another, and hands us its channel. Policies hold meanwhile. */
static void on_control_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct process *p = user;

	log_warn("iron-control gone", "reason=%s", log_quote(reason));
	p->control = NULL;
	ipc_peer_destroy(peer);
}

static void on_audit_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct process *p = user;

	log_warn("iron-audit gone: nothing new passes", "reason=%s", log_quote(reason));
	journal_set_peer(p->door->journal, NULL);
	p->audit = NULL;
	ipc_peer_destroy(peer);
}

/* --- what irond may say --- */

static void on_attach(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct process *p = user;
	const struct msg_vm_attach *attach = IPC_RECORD(m, msg_vm_attach);
	struct error error = {0};

	int r = vm_attach(p->door, attach, m->fds, &error);
	log_info("attach", "vm=%s generation=%llu code=%d reason=%s", log_id("vm_", attach->vm),
		 (unsigned long long)attach->generation, r, log_quote(error.text));
	answer(peer, m, r, &error);
}

static void on_detach(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct process *p = user;
	uint64_t id = IPC_RECORD(m, msg_vm_detach)->vm;

	vm_destroy(map_get(&p->door->vms, id));
	log_info("detach", "vm=%s", log_id("vm_", id));
	answer(peer, m, 0, NULL);
}

static void take_control(struct process *p, int fd)
{
	ipc_peer_destroy(p->control);
	p->control = ipc_peer_create(p->base, fd, "iron-control", control_rules, ARRAY_SIZE(control_rules),
				     on_control_closed, p);
}

static void take_audit(struct process *p, int fd)
{
	journal_set_peer(p->door->journal, NULL);
	ipc_peer_destroy(p->audit);
	p->audit = ipc_peer_create(p->base, fd, "iron-audit", audit_rules, ARRAY_SIZE(audit_rules), on_audit_closed, p);
	journal_set_peer(p->door->journal, p->audit);
}

static void on_peer(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;
	unsigned role = IPC_RECORD(m, msg_peer)->role;

	if (role == ROLE_CONTROL)
		take_control(p, take_fd(m->fds[0]));
	else if (role == ROLE_AUDIT)
		take_audit(p, take_fd(m->fds[0]));
	else
		log_warn("peer refused", "role=%u", role);
}

static void on_adopt(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct process *p = user;
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&p->door->vms, &i, &slot)) {
		const struct door_vm *vm = slot->value;
		const struct msg_door row = {.vm = vm->id, .generation = vm->generation};
		const int fds[] = {vm->listener, vm->udp, vm->nflog};
		ipc_reply(peer, m->txn, MSG_TYPE_msg_door, &row, fds, ARRAY_SIZE(fds));
	}
	ipc_reply_result(peer, m->txn, 0, NULL, p->audit ? 1U << ROLE_AUDIT : 0);
	door_pause(p->door, false);
}

static const struct ipc_rule irond_rules[] = {
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_peer, 1, IPC_NOTICE, on_peer},
	{MSG_TYPE_msg_vm_attach, 4, IPC_REQUEST, on_attach},
	{MSG_TYPE_msg_vm_detach, 0, IPC_REQUEST, on_detach},
	{MSG_TYPE_msg_adopt, 0, IPC_REQUEST, on_adopt},
	{MSG_TYPE_msg_end, 0, IPC_NOTICE, role_parent_end},
};

/* Nothing new, until the next one has asked for what is here (on_adopt); it waits in the sockets' queues. */
static void on_away(bool away, void *user)
{
	const struct process *p = user;

	if (away)
		door_pause(p->door, true);
}

/* --- start --- */

/* Work that goes on (sock_later) is put at the end of the callbacks that are due, and libevent would not look at the
 * descriptors and the clock before these are done: a few busy connections would keep everything else waiting. */
static struct event_base *make_loop(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (config && event_config_set_max_dispatch_interval(config, NULL, CALLBACKS_A_TURN, 0) == 0)
		base = event_base_new_with_config(config);
	if (config)
		event_config_free(config);
	return base;
}

/* What needs more than the sandbox allows is opened here: the route socket, and what c-ares reads at its start. */
static int receive_config(struct process *p, struct error *reterr)
{
	const void *config;
	int fds[MSG_MAX_FDS];
	size_t nfds;

	int r = role_config_receive(MSG_TYPE_msg_egress_config, &config, fds, &nfds, reterr);
	return r ? r : door_create(p->base, config, &p->door, reterr);
}

static int start(struct process *p, const struct role_args *args, struct error *reterr)
{
	/* splice(2) has no MSG_NOSIGNAL: a peer that sends FIN, then RST, would end the worker of all its workspace */
	signal(SIGPIPE, SIG_IGN);
	p->base = make_loop();
	if (!p->base)
		return error_set(reterr, -ENOMEM, "no event loop");
	int r = receive_config(p, reterr);
	if (r == 0)
		r = role_sandbox_enter(&sandbox_egress, args, NULL, reterr);
	if (r)
		return r;
	p->irond = role_parent_create(p->base, irond_rules, ARRAY_SIZE(irond_rules), on_away, p);
	return p->irond ? 0 : error_set(reterr, -ENOMEM, "no channel to irond");
}

int main(int argc, char **argv)
{
	struct process p = {0};
	struct role_args args;
	struct error error = {0};

	if (role_args_parse("iron-egress", argc, argv, &args) < 0)
		return 2;
	int r = start(&p, &args, &error);
	if (r)
		log_error("did not start", "error=%s", log_quote(error.text));
	else
		event_base_dispatch(p.base);
	if (p.door)
		journal_set_peer(p.door->journal, NULL);
	ipc_peer_destroy(p.audit);
	ipc_peer_destroy(p.control);
	role_parent_destroy(p.irond);
	door_destroy(p.door);
	if (p.base)
		event_base_free(p.base);
	return r ? 1 : 0;
}
