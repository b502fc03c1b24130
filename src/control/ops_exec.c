#include <errno.h>

#include "control/ops.h"

#define STREAM_TIMEOUT_MS 10000

static void detail_of(const struct msg_exec_open *m, struct detail *ret)
{
	detail_add_list(ret, "command", m->argv);
	detail_add(ret, "user", m->user.len ? m->user : STR("agent"));
	detail_add_u64(ret, "tty", m->tty);
}

static bool on_stream(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct request *r = arg;
	const struct msg_result *result = m && m->info->type == MSG_TYPE_msg_result ? IPC_RECORD(m, msg_result) : NULL;

	r->waiting = false;
	if (r->dropped) {
		request_discard(r);
		return true;
	}
	if (result && result->code == 0) {
		request_done_value(r, r->new_id);
		return true;
	}
	request_note_outcome(r, "exec", "open", REQUEST_RECORD(r, msg_exec_open)->vm, "failed");
	request_fail(r, CODE_UNAVAILABLE, "the VM gave no channel: %.*s",
		     STR_ARG(result ? result->reason : STR("no answer in time")));
	return true;
}

void op_exec_open(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(detail_finish) struct detail d = {0};
	const struct msg_exec_open *m = REQUEST_RECORD(r, msg_exec_open);
	struct store_vm vm;

	if (!op_find_vm(r, m->vm, &a, &vm))
		return;
	if (vm.state != VM_READY) {
		const char *progress = life_progress(r->control->lives, m->vm);
		bool gone = VM_STATES_GONE & VM_STATE_BIT(vm.state);
		request_fail(r, CODE_VM_NOT_RUNNING, "the VM is not ready, it is %s%s%s%s; %s", vm_state_detail(vm.state),
			     progress[0] ? " (" : "", progress, progress[0] ? ")" : "",
			     gone ? "create a new one" : "wait for it, or start it");
		return;
	}
	detail_of(m, &d);
	if (!request_on_record_soon(r, "exec", "open", m->vm, &d))
		return;
	/* the token is no capability: the descriptor it names goes to iron-api alone */
	struct msg_vm_stream stream = {.vm = m->vm, .token = r->new_id};
	r->waiting = true;
	int code = ipc_call(links_irond(r->control->links), MSG_TYPE_msg_vm_stream, &stream, NULL, 0, STREAM_TIMEOUT_MS,
			    on_stream, r);
	if (code) {
		r->waiting = false;
		request_fail(r, CODE_UNAVAILABLE, "irond is not reached");
	}
}
