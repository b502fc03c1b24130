/* The runs of VMs, as the store has them: opened when a machine runs, sampled while it does, closed at its end. */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/life_internal.h"

#define SAMPLE_TIMEOUT_MS 10000

static void session_failed(const struct life *f, int r)
{
	if (r)
		log_limited(LOG_LEVEL_ERROR, 5, "a VM's session is not stored", "vm=%s code=%d", log_id("vm_", f->id), r);
}

void life_session_open(struct life *f)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = f->lives->store;

	int r = store_begin(s, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_session_open(s, f->id, f->generation, real_ms());
	session_failed(f, r ? r : store_commit(&tx));
}

void life_session_close(struct life *f, int64_t now, const char *reason, const struct rec_vm_usage *used)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = f->lives->store;

	int r = store_begin(s, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_session_close(s, f->id, f->generation, now, str_of(reason), used);
	session_failed(f, r ? r : store_commit(&tx));
}

static struct rec_vm_usage usage_of(const struct msg_vm_stats *s)
{
	return (struct rec_vm_usage){
		.cpu_us = s->cpu_us,
		.memory_bytes = s->memory_bytes,
		.memory_peak_bytes = s->memory_peak_bytes,
		.memory_limit_bytes = s->memory_limit_bytes,
		.disk_bytes = s->disk_bytes,
		.disk_limit_bytes = s->disk_limit_bytes,
		.disk_read_bytes = s->disk_read_bytes,
		.disk_written_bytes = s->disk_written_bytes,
		.net_sent_bytes = s->net_sent_bytes,
		.net_received_bytes = s->net_received_bytes,
	};
}

static bool on_sample(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct lives *l = arg;

	if (!m || m->info->type != MSG_TYPE_msg_vm_stats)
		return true;
	const struct msg_vm_stats *s = IPC_RECORD(m, msg_vm_stats);
	const struct life *f = s->running ? life_find(l, s->vm) : NULL;
	if (!f || f->generation != s->generation)
		return true;
	struct rec_vm_usage used = usage_of(s);
	int r = store_begin(l->store, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_session_sample(l->store, s->vm, s->generation, real_ms(), &used);
	session_failed(f, r ? (r == -ENOENT ? 0 : r) : store_commit(&tx));
	return true;
}

void lives_sample(struct lives *l)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&l->all, &i, &slot)) {
		const struct life *f = slot->value;
		if (VM_STATES_RUNNING & VM_STATE_BIT(f->state))
			ipc_call(links_irond(l->links), MSG_TYPE_msg_vm_stats_get, &(struct msg_vm_stats_get){.vm = f->id}, NULL,
				 0, SAMPLE_TIMEOUT_MS, on_sample, l);
	}
}

void life_sessions_close(struct life *f, uint64_t running, const char *reason)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = f->lives->store;

	int r = store_begin(s, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_sessions_close(s, f->id, running, str_of(reason));
	session_failed(f, r ? r : store_commit(&tx));
}
