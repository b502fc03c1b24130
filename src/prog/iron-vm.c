/* iron-vm: all that is done to one machine is done here. It is given three connected sockets (QMP, agent, console),
 * is told the contract by iron-control and asked for streams by irond. */
#include <errno.h>

#include "base/log.h"
#include "os/ipc.h"
#include "prog/role_parent.h"
#include "prog/sandboxes.h"
#include "vm/vm.h"

#define VM_FDS 3

struct process {
	struct event_base *base;
	struct role_parent *irond;
	struct ipc_peer *control;
	struct vm *vm;
	struct ipc_peer *end_asker; /* irond waits for QEMU's end; with its request */
	uint32_t end_txn;
};

static void tell_end(struct process *p)
{
	if (!p->end_asker || !vm_is_off(p->vm))
		return;
	ipc_reply_result(p->end_asker, p->end_txn, 0, NULL, vm_announced_end(p->vm));
	p->end_asker = NULL;
}

static void report(const struct msg_vm_state *state, void *user)
{
	struct process *p = user;

	log_info("state", "vm=%s state=%u step=%s reason=%s ms=%u", log_id("vm_", state->vm), state->state,
		 log_quote(state->step.p), log_quote(state->reason.p), state->ms);
	if (p->control)
		ipc_notify(p->control, MSG_TYPE_msg_vm_state, state, NULL, 0);
	if (p->vm)
		tell_end(p);
}

/* --- what iron-control may say --- */

static void on_contract(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;
	struct error error = {0};

	int r = vm_set_contract(p->vm, IPC_RECORD(m, msg_contract), &error);
	if (m->txn)
		ipc_reply_result(peer, m->txn, r, error.text, 0);
	else if (r)
		log_warn("contract refused", "error=%s", log_quote(error.text));
}

static void on_shutdown(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;

	vm_shutdown(p->vm, IPC_RECORD(m, msg_vm_shutdown)->deadline_ms);
	ipc_reply_result(peer, m->txn, 0, NULL, 0);
}

static void on_ping(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, NULL, 0);
}

static const struct ipc_rule control_rules[] = {
	{MSG_TYPE_msg_contract, 0, IPC_EITHER, on_contract},
	{MSG_TYPE_msg_vm_shutdown, 0, IPC_REQUEST, on_shutdown},
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
};

static void on_control_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct process *p = user;

	/* irond starts another, and hands us its channel. */
	log_warn("iron-control gone", "reason=%s", log_quote(reason));
	if (p->control == peer)
		p->control = NULL;
	ipc_peer_destroy(peer);
}

/* --- what irond may say --- */

static void on_peer(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;

	if (IPC_RECORD(m, msg_peer)->role != ROLE_CONTROL) {
		log_warn("peer refused", "role=%u", IPC_RECORD(m, msg_peer)->role);
		return;
	}
	ipc_peer_destroy(p->control);
	p->control = ipc_peer_create(p->base, take_fd(m->fds[0]), "iron-control", control_rules,
				     ARRAY_SIZE(control_rules), on_control_closed, p);
	if (p->control)
		vm_report_again(p->vm);
}

static void on_stream_open(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;
	struct error error = {0};
	_cleanup_close_ int fd = -1;

	int r = vm_stream_open(p->vm, &fd, &error);
	if (r) {
		ipc_reply_result(peer, m->txn, r, error.text, 0);
		return;
	}
	struct msg_stream answer = {.token = IPC_RECORD(m, msg_stream_open)->token};
	ipc_reply(peer, m->txn, MSG_TYPE_msg_stream, &answer, &fd, 1);
}

static void on_vm_end_get(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;

	p->end_asker = peer;
	p->end_txn = m->txn;
	tell_end(p);
}

/* iron-control's channel is its own affair: it ended with the last irond. */
static void on_adopt(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, NULL, 0);
}

static const struct ipc_rule irond_rules[] = {
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_peer, 1, IPC_NOTICE, on_peer},
	{MSG_TYPE_msg_stream_open, 0, IPC_REQUEST, on_stream_open},
	{MSG_TYPE_msg_vm_shutdown, 0, IPC_REQUEST, on_shutdown}, /* irond itself is told to stop */
	{MSG_TYPE_msg_vm_end_get, 0, IPC_REQUEST, on_vm_end_get},
	{MSG_TYPE_msg_adopt, 0, IPC_REQUEST, on_adopt},
	{MSG_TYPE_msg_end, 0, IPC_NOTICE, role_parent_end},
};

/* New streams come through irond only; those that are open go on. */
static void on_away(bool away, void *user)
{
	struct process *p = user;

	if (away)
		p->end_asker = NULL;
}

/* --- start --- */

static int receive_config(struct vm_options *ret, struct error *reterr)
{
	const void *record;
	int fds[MSG_MAX_FDS];
	size_t nfds;

	int r = role_config_receive(MSG_TYPE_msg_vm_config, &record, fds, &nfds, reterr);
	if (r)
		return r;
	if (nfds != VM_FDS)
		return error_set(reterr, -EPROTO, "%zu descriptors came with the configuration, not %d", nfds, VM_FDS);
	const struct msg_vm_config *c = record;
	*ret = (struct vm_options){
		.id = c->vm,
		.generation = c->generation,
		.boot_timeout_ms = c->boot_timeout_ms,
		.qmp = fds[0],
		.agent = fds[1],
		.console = fds[2],
	};
	for (size_t i = 0; i < VM_FDS; i++)
		if (evutil_make_socket_nonblocking(fds[i]))
			return error_set(reterr, -EBADF, "a descriptor of the configuration is none");
	return 0;
}

static int start(struct process *p, struct vm_options *o)
{
	o->report = report;
	o->user = p;
	p->vm = vm_create(p->base, o);
	if (!p->vm)
		return -ENOMEM;
	p->irond = role_parent_create(p->base, irond_rules, ARRAY_SIZE(irond_rules), on_away, p);
	return p->irond ? 0 : -ENOMEM;
}

int main(int argc, char **argv)
{
	struct process p = {0};
	struct role_args args;
	struct vm_options options;
	struct error error = {0};

	if (role_args_parse("iron-vm", argc, argv, &args) < 0)
		return 2;
	if (receive_config(&options, &error)) {
		log_error("start", "error=%s", log_quote(error.text));
		return 1;
	}
	p.base = event_base_new();
	if (!p.base)
		return 1;
	if (role_sandbox_enter(&sandbox_vm, &args, NULL, &error)) {
		log_error("sandbox", "error=%s", log_quote(error.text));
		return 1;
	}
	if (start(&p, &options) == 0)
		event_base_dispatch(p.base);
	vm_destroy(p.vm);
	ipc_peer_destroy(p.control);
	role_parent_destroy(p.irond);
	event_base_free(p.base);
	return 0;
}
