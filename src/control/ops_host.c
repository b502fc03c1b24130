#include <errno.h>

#include "control/ops.h"

#define HOST_TIMEOUT_MS 5000

/* --- images --- */

void op_image_list(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_images images;

	int code = store_images_list(r->control->store, REQUEST_RECORD(r, msg_page), &a, &images);
	if (code) {
		request_fail_list(r, code, "images_list");
		return;
	}
	for (size_t i = 0; i < images.n; i++)
		request_row(r, MSG_TYPE_row_image, &images.v[i]);
	request_done_page(r, images.page.has_more, images.page.cursor);
}

void op_image_get(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct row_image image;

	int code = store_image_get(r->control->store, REQUEST_RECORD(r, msg_object)->id, &a, &image);
	if (code == -ENOENT) {
		request_fail(r, CODE_IMAGE_NOT_FOUND,
		             "there is no such image; `iron image list` shows which there are");
		return;
	}
	if (code) {
		request_fail_store(r, code, "image_get");
		return;
	}
	request_row(r, MSG_TYPE_row_image, &image);
	request_done(r, 200);
}

/* --- me --- */

void op_me(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_workspace w;
	struct store_key key;

	int code = store_key_get(r->control->store, r->workspace, r->key, &a, &key);
	if (code == 0)
		code = store_workspace_get(r->control->store, r->workspace, &a, &w);
	if (code) {
		request_fail_store(r, code, "me");
		return;
	}
	request_row(r, MSG_TYPE_row_me,
	            &(struct row_me){.workspace = w.id,
	                             .workspace_name = w.name,
	                             .key = r->key,
	                             .key_name = key.row.name,
	                             .scopes = key.row.scopes,
	                             .expires_at = key.row.expires_at});
	request_done(r, 200);
}

/* --- host, health --- */

/* The asker may be gone by the time irond answers. */
static bool answer_is_due(struct request *r, const struct ipc_msg *m, bool last)
{
	if (last)
		r->waiting = false;
	if (r->dropped) {
		if (last)
			request_discard(r);
		return false;
	}
	if (!m)
		request_fail(r, CODE_UNAVAILABLE, "irond does not answer");
	return m != NULL;
}

static bool row_of_role(struct request *r, const struct ipc_msg *m)
{
	_cleanup_(buf_finish) struct buf b = {0};

	if (wire_encode(&msg_role_row_wire, m->record, &b) == 0)
		request_row(r, MSG_TYPE_row_role, &(struct row_role){.role = buf_str(&b)});
	return str_eq(IPC_RECORD(m, msg_role_row)->state, STR("ok"));
}

static bool on_roles(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct request *r = arg;
	bool row = m && m->info->type == MSG_TYPE_msg_role_row;

	if (!answer_is_due(r, m, !row))
		return !row;
	if (row) {
		if (!row_of_role(r, m) && !r->failure[0])
			snprintf(r->failure, sizeof r->failure, "%.*s does not answer",
				 STR_ARG(IPC_RECORD(m, msg_role_row)->name));
		return false;
	}
	if (r->who.op == OP_READYZ && (r->failure[0] || !r->control->ready)) {
		char why[128];
		snprintf(why, sizeof why, "%.100s", r->failure[0] ? r->failure : "iron is starting");
		request_fail(r, CODE_UNAVAILABLE, "%s", why);
	} else {
		request_done(r, 200);
	}
	return true;
}

static void ask_roles(struct request *r)
{
	r->waiting = true;
	if (ipc_call(links_irond(r->control->links), MSG_TYPE_msg_roles_get, &(struct msg_roles_get){}, NULL, 0,
		     HOST_TIMEOUT_MS, on_roles, r) == 0)
		return;
	r->waiting = false;
	request_fail(r, CODE_UNAVAILABLE, "irond is not reached");
}

void op_readyz(struct request *r)
{
	ask_roles(r);
}

void op_healthz(struct request *r)
{
	request_done(r, 200);
}

static int host_row(struct request *r, const struct ipc_msg *m)
{
	_cleanup_(buf_finish) struct buf b = {0};
	const uint32_t there = ((1U << VM_STATE_END) - 1) & ~(uint32_t)VM_STATES_GONE;
	struct store_usage running = {0}, holding = {0}, all = {0};
	struct store *s = r->control->store;

	int code = wire_encode(&msg_host_wire, m->record, &b);
	if (code == 0)
		code = store_vm_usage(s, 0, VM_STATES_RUNNING, &running);
	if (code == 0)
		code = store_vm_usage(s, 0, VM_STATES_HOLDING_MEMORY, &holding);
	if (code == 0)
		code = store_vm_usage(s, 0, there, &all);
	if (code)
		return code;
	struct row_host row = {
		.host = buf_str(&b),
		.vms_running = (uint32_t)running.vms,
		.vms_total = (uint32_t)all.vms,
		.memory_committed_mib = holding.memory_mib + holding.vms * SPEC_OVERHEAD_MIB,
		.memory_budget_mib = r->control->settings.memory_budget_mib,
	};
	request_row(r, MSG_TYPE_row_host, &row);
	return 0;
}

static bool on_host(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct request *r = arg;

	if (!answer_is_due(r, m, true))
		return true;
	int code = m->info->type == MSG_TYPE_msg_host ? host_row(r, m) : -EIO;
	if (code)
		request_fail_store(r, code, "host");
	else
		ask_roles(r);
	return true;
}

void op_host(struct request *r)
{
	r->waiting = true;
	if (ipc_call(links_irond(r->control->links), MSG_TYPE_msg_host_get, &(struct msg_host_get){}, NULL, 0,
	             HOST_TIMEOUT_MS, on_host, r) == 0)
		return;
	r->waiting = false;
	request_fail(r, CODE_UNAVAILABLE, "irond is not reached");
}

/* --- metrics --- */

static int vm_counts(struct request *r)
{
	for (unsigned state = 1; state < VM_STATE_END; state++) {
		struct store_usage u = {0};
		if (VM_STATE_BIT(state) & VM_STATES_GONE)
			continue;
		int code = store_vm_usage(r->control->store, 0, VM_STATE_BIT(state), &u);
		if (code)
			return code;
		request_row(r, MSG_TYPE_row_vm_count, &(struct row_vm_count){.state = (uint8_t)state, .vms = u.vms});
	}
	return 0;
}

void op_metrics(struct request *r)
{
	struct tail_status s;

	int code = vm_counts(r);
	if (code) {
		request_fail_store(r, code, "metrics");
		return;
	}
	tail_get_status(r->control->tail, &s);
	request_row(r, MSG_TYPE_row_index,
		    &(struct row_index){.indexed = s.indexed, .written = s.written, .skipped = s.skipped, .whole = s.whole});
	op_host(r);
}
