/* Byte channels into a VM: commands, files, the console. All calls of that kind come here; what each is and whether it
 * goes on record is one table. iron-control never sees the bytes. */
#include <errno.h>

#include "control/ops.h"

#define STREAM_TIMEOUT_MS 10000

/* kind NULL: a look that changes nothing and shows no content of its own; the call itself is on record (kind "api"). */
static const struct purpose {
	enum api_op op;
	const char *kind, *action;
	uint32_t states;
} purposes[] = {
	{OP_VM_EXEC, EVENT_EXEC, "open", VM_STATE_BIT(VM_READY)},
	{OP_VM_EXEC_WS, EVENT_EXEC, "open", VM_STATE_BIT(VM_READY)},
	{OP_VM_EXEC_LIST, NULL, "list", VM_STATE_BIT(VM_READY)},
	{OP_VM_EXEC_GET, EVENT_EXEC, "attach", VM_STATE_BIT(VM_READY)},
	{OP_VM_EXEC_SIGNAL, EVENT_EXEC, "signal", VM_STATE_BIT(VM_READY)},
	{OP_VM_EXEC_DELETE, EVENT_EXEC, "remove", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_GET, EVENT_FILES, "read", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_PUT, EVENT_FILES, "write", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_DELETE, EVENT_FILES, "remove", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_LIST, EVENT_FILES, "list", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_STAT, EVENT_FILES, "stat", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_MKDIR, EVENT_FILES, "mkdir", VM_STATE_BIT(VM_READY)},
	{OP_VM_FILE_MOVE, EVENT_FILES, "move", VM_STATE_BIT(VM_READY)},
	{OP_VM_ARCHIVE_GET, EVENT_FILES, "pack", VM_STATE_BIT(VM_READY)},
	{OP_VM_ARCHIVE_PUT, EVENT_FILES, "unpack", VM_STATE_BIT(VM_READY)},
	{OP_VM_CONSOLE, NULL, "console",
	 VM_STATE_BIT(VM_STARTING) | VM_STATE_BIT(VM_RUNNING) | VM_STATE_BIT(VM_READY) | VM_STATE_BIT(VM_STOPPING)},
};

static const struct purpose *purpose_find(unsigned op)
{
	for (size_t i = 0; i < ARRAY_SIZE(purposes); i++)
		if (purposes[i].op == op)
			return &purposes[i];
	return NULL;
}

static void detail_of(const struct msg_vm_open *m, uint64_t exec, struct detail *ret)
{
	if (exec)
		detail_add_id(ret, "exec_id", "exec_", exec);
	if (m->argv.len) {
		detail_add_list(ret, "command", m->argv);
		detail_add_u64(ret, "tty", m->tty);
		detail_add_u64(ret, "detach", m->detach);
	}
	if (m->path.len)
		detail_add(ret, "path", m->path);
	if (m->to.len)
		detail_add(ret, "to", m->to);
	if (m->argv.len || m->path.len)
		detail_add(ret, "user", m->user.len ? m->user : STR("agent"));
}

/* What irond or iron-vm had against it, as the API says it. */
static void refuse(struct request *r, const struct msg_result *result)
{
	struct str reason = result ? result->reason : STR("no answer in time");
	int64_t code = result ? result->code : -ETIMEDOUT;

	if (code == -EAGAIN)
		request_fail(r, CODE_RATE_LIMITED, "%.*s", STR_ARG(reason));
	else if (code == -ENOTCONN || code == -ENOENT)
		request_fail(r, CODE_VM_NOT_RUNNING, "%.*s; wait for the VM, or start it", STR_ARG(reason));
	else
		request_fail(r, CODE_UNAVAILABLE, "the VM gave no channel: %.*s; try again", STR_ARG(reason));
}

static bool on_stream(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct request *r = arg;
	const struct msg_result *result = m && m->info->type == MSG_TYPE_msg_result ? IPC_RECORD(m, msg_result) : NULL;
	const struct purpose *p = purpose_find(r->who.op);

	r->waiting = false;
	if (r->dropped) {
		request_discard(r);
		return true;
	}
	if (result && result->code == 0) {
		request_done_value(r, r->new_id);
		return true;
	}
	if (p->kind)
		request_note_outcome(r, p->kind, p->action, REQUEST_RECORD(r, msg_vm_open)->vm, "failed");
	refuse(r, result);
	return true;
}

static bool runs(struct request *r, const struct purpose *p, const struct store_vm *vm)
{
	if (p->states & VM_STATE_BIT(vm->state))
		return true;
	const char *progress = life_progress(r->control->lives, REQUEST_RECORD(r, msg_vm_open)->vm);
	bool gone = VM_STATES_GONE & VM_STATE_BIT(vm->state);
	request_fail(r, CODE_VM_NOT_RUNNING, "the VM is not ready, it is %s%s%s%s; %s", vm_state_detail(vm->state),
		     progress[0] ? " (" : "", progress, progress[0] ? ")" : "",
		     gone ? "create a new one" : "wait for it, or start it");
	return false;
}

void op_vm_open(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(detail_finish) struct detail d = {0};
	const struct msg_vm_open *m = REQUEST_RECORD(r, msg_vm_open);
	const struct purpose *p = purpose_find(r->who.op);
	struct store_vm vm;

	if (!op_find_vm(r, m->vm, &a, &vm) || !runs(r, p, &vm))
		return;
	bool is_command = p->op == OP_VM_EXEC || p->op == OP_VM_EXEC_WS; /* listed under the token */
	detail_of(m, is_command ? r->new_id : m->exec, &d);
	if (p->kind && !request_on_record_soon(r, p->kind, p->action, m->vm, &d))
		return;
	/* the token is no capability: the descriptor it names goes to iron-api alone */
	struct msg_vm_stream stream = {.vm = m->vm, .token = r->new_id};
	r->waiting = true;
	int code = ipc_call(links_irond(r->control->links), MSG_TYPE_msg_vm_stream, &stream, NULL, 0, STREAM_TIMEOUT_MS,
			    on_stream, r);
	if (code) {
		r->waiting = false;
		request_fail(r, CODE_UNAVAILABLE, "irond is not reached; try again");
	}
}

void op_vm_closed(struct control *c, const struct msg_vm_closed *m)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(detail_finish) struct detail d = {0};
	const struct purpose *p = purpose_find(m->op);
	struct store_key key = {0};

	if (!p || !p->kind)
		return;
	if (m->key_hash.len == STORE_KEY_HASH_SIZE)
		store_key_find_any(c->store, (const uint8_t *)m->key_hash.p, &a, &key);
	if (m->exec)
		detail_add_id(&d, "exec_id", "exec_", m->exec);
	if (m->path.len)
		detail_add(&d, "path", m->path);
	if (m->client.len)
		detail_add(&d, "client", m->client);
	detail_add_u64(&d, "bytes_sent", m->sent);
	detail_add_u64(&d, "bytes_received", m->received);
	struct record_event e = {
		.kind = str_of(p->kind),
		.action = str_of(m->op == OP_VM_EXEC || m->op == OP_VM_EXEC_WS ? "close" : p->action),
		.workspace = key.workspace,
		.vm = m->vm,
		.key = key.row.id,
		.address = m->address,
		.outcome = m->outcome,
		.detail = detail_end(&d),
	};
	journal_note(c->journal, &e);
}
