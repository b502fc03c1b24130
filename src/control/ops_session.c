/* A VM's runs, and what it uses. */
#include <errno.h>

#include "base/clock.h"
#include "control/ops.h"

#define STATS_TIMEOUT_MS 5000

static uint64_t duration_ms(const struct row_session *s)
{
	int64_t end = s->ended_at ? s->ended_at : real_ms();

	return end > s->started_at ? (uint64_t)(end - s->started_at) : 0;
}

void op_vm_sessions(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_vm_page *q = REQUEST_RECORD(r, msg_vm_page);
	struct store_sessions sessions;
	struct store_vm vm;

	if (!op_find_vm(r, q->vm, &a, &vm))
		return;
	int code = store_sessions_list(r->control->store, q->vm, q->cursor, q->limit, &a, &sessions);
	if (code) {
		request_fail_list(r, code, "sessions_list");
		return;
	}
	for (size_t i = 0; i < sessions.n; i++) {
		sessions.v[i].duration_ms = duration_ms(&sessions.v[i]);
		request_row(r, MSG_TYPE_row_session, &sessions.v[i]);
	}
	request_done_page(r, sessions.page.has_more, sessions.page.cursor);
}

/* --- stats --- */

/* Of the run that there was last: what irond no longer knows. */
static void add_last_run(struct row_stats *row, const struct row_session *s)
{
	row->generation = s->generation;
	row->cpu_time_ms = s->cpu_time_ms;
	row->memory_peak_bytes = s->memory_peak_bytes;
	row->disk_read_bytes = s->disk_read_bytes;
	row->disk_written_bytes = s->disk_written_bytes;
	row->network_sent_bytes = s->network_sent_bytes;
	row->network_received_bytes = s->network_received_bytes;
}

static struct row_stats row_of(const struct msg_vm_stats *m, uint64_t vm)
{
	return (struct row_stats){
		.vm = vm,
		.generation = m->generation,
		.running = m->running,
		.cpu_time_ms = m->cpu_us / 1000,
		.memory_bytes = m->memory_bytes,
		.memory_peak_bytes = m->memory_peak_bytes,
		.memory_limit_bytes = m->memory_limit_bytes,
		.disk_bytes = m->disk_bytes,
		.disk_limit_bytes = m->disk_limit_bytes,
		.disk_read_bytes = m->disk_read_bytes,
		.disk_written_bytes = m->disk_written_bytes,
		.network_sent_bytes = m->net_sent_bytes,
		.network_received_bytes = m->net_received_bytes,
	};
}

static void answer_stats(struct request *r, const struct msg_vm_stats *m)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct row_session last = {0};
	struct store_vm vm;
	uint64_t id = REQUEST_RECORD(r, msg_object)->vm;

	if (!op_find_vm(r, id, &a, &vm))
		return;
	int code = store_session_last(r->control->store, id, &a, &last);
	if (code && code != -ENOENT) {
		request_fail_store(r, code, "session_last");
		return;
	}
	struct row_stats row = row_of(m, id);
	if (!row.running) /* a VM that never ran: all 0 */
		add_last_run(&row, &last);
	else if (last.generation == row.generation)
		row.uptime_ms = duration_ms(&last);
	if (VM_STATES_GONE & VM_STATE_BIT(vm.state))
		row.disk_bytes = row.disk_limit_bytes = 0;
	request_row(r, MSG_TYPE_row_stats, &row);
	request_done(r, 200);
}

static bool on_stats(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	static const struct msg_vm_stats none = {0};
	struct request *r = arg;

	r->waiting = false;
	if (r->dropped)
		request_discard(r);
	else if (m && m->info->type == MSG_TYPE_msg_vm_stats)
		answer_stats(r, IPC_RECORD(m, msg_vm_stats));
	else if (m && m->info->type == MSG_TYPE_msg_result && IPC_RECORD(m, msg_result)->code == -ENOENT)
		answer_stats(r, &none); /* not made yet, or destroyed */
	else
		request_fail(r, CODE_UNAVAILABLE, "irond does not answer");
	return true;
}

void op_vm_stats(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	uint64_t id = REQUEST_RECORD(r, msg_object)->vm;
	struct store_vm vm;

	if (!op_find_vm(r, id, &a, &vm))
		return;
	r->waiting = true;
	if (ipc_call(links_irond(r->control->links), MSG_TYPE_msg_vm_stats_get, &(struct msg_vm_stats_get){.vm = id}, NULL, 0,
		     STATS_TIMEOUT_MS, on_stats, r) == 0)
		return;
	r->waiting = false;
	request_fail(r, CODE_UNAVAILABLE, "irond is not reached");
}
