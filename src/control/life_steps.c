#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "control/life_internal.h"
#include "control/vms.h"

#define PREPARE_TIMEOUT_MS 120000
#define START_TIMEOUT_MS 60000
#define KILL_TIMEOUT_MS 30000
#define REMOVE_TIMEOUT_MS 120000
#define PEER_TIMEOUT_MS 10000
#define RETRY_MS 1000
#define GRACE_MS 5000 /* past a deadline that another process keeps */

/* --- start --- */

static void prepared(struct life *f, int code, const char *reason)
{
	f->made = code == 0;
	if (code == 0 || code == -EEXIST)
		life_advance(f);
	else if (code == -ENOSPC)
		life_fail(f, "no room: %s", reason);
	else
		life_fail(f, "prepare: %s", reason);
}

static enum step_run run_prepare(struct life *f)
{
	struct msg_vm_prepare m;
	struct error e = {0};

	life_progress_set(f, "making its disk");
	if (f->state == VM_QUEUED)
		life_set_state(f, VM_CREATING, "");
	if (vm_prepare_message(f->lives->store, f->id, &m, &e)) {
		life_fail(f, "prepare: %s", e.text);
		return STEP_WAITS;
	}
	return life_call(f, MSG_TYPE_msg_vm_prepare, &m, PREPARE_TIMEOUT_MS, prepared);
}

static void removed(struct life *f, int code, const char *reason)
{
	if (code)
		life_timer(f, RETRY_MS);
	else
		life_advance(f);
}

static enum step_run run_remove(struct life *f)
{
	return life_call(f, MSG_TYPE_msg_vm_remove, &(struct msg_vm_remove){.vm = f->id}, REMOVE_TIMEOUT_MS, removed);
}

/* The disk of a VM that never ran holds nothing of anyone's. One that was there before stays. */
static enum step_run undo_prepare(struct life *f)
{
	return f->made ? run_remove(f) : STEP_DONE;
}

static void started(struct life *f, int code, const char *reason)
{
	if (code == -ESHUTDOWN) {
		log_info("a start is left to the next irond", "vm=%s", log_id("vm_", f->id));
		return;
	}
	if (code) {
		life_fail(f, "start: %s", reason);
		return;
	}
	life_session_open(f);
	life_advance(f);
}

static enum step_run run_start(struct life *f)
{
	life_progress_set(f, "starting its machine");
	f->generation++;
	f->confirmed = false;
	life_set_state(f, VM_STARTING, "");
	return life_call(f, MSG_TYPE_msg_vm_start, &(struct msg_vm_start){.vm = f->id, .generation = f->generation},
			 START_TIMEOUT_MS, started);
}

static void killed(struct life *f, int code, const char *reason)
{
	if (code) {
		life_timer(f, RETRY_MS);
		return;
	}
	dist_detach(f->lives->dist, f->id);
	life_sessions_close(f, 0, "its end was not seen");
	life_advance(f);
}

static enum step_run run_kill(struct life *f)
{
	return life_call(f, MSG_TYPE_msg_vm_kill, &(struct msg_vm_kill){.vm = f->id}, KILL_TIMEOUT_MS, killed);
}

struct policy_wait {
	struct lives *lives;
	uint64_t vm, epoch;
};

static void policy_done(int code, void *arg)
{
	_cleanup_free_ struct policy_wait *w = arg;
	struct life *f = code == -ECANCELED ? NULL : life_find(w->lives, w->vm);

	if (!f || f->epoch != w->epoch || !life_is_at(f, JOB_START, "policy"))
		return;
	if (code)
		life_fail(f, "policy: its door's worker did not take the policy; start it again");
	else
		life_advance(f);
}

/* Committed before the guest's first instruction of the contract. */
static enum step_run run_policy(struct life *f)
{
	life_progress_set(f, "waiting for its door to hold the policy");
	if (!links_get(f->lives->links, ROLE_EGRESS, f->workspace)) {
		f->waiting_peer = true;
		life_timer(f, PEER_TIMEOUT_MS);
		return STEP_WAITS;
	}
	struct policy_wait *w = xcalloc(1, sizeof *w);
	*w = (struct policy_wait){f->lives, f->id, f->epoch};
	dist_attach(f->lives->dist, f->id, f->workspace);
	dist_change_vm(f->lives->dist, f->id, policy_done, w);
	return STEP_WAITS;
}

static void policy_timeout(struct life *f)
{
	life_fail(f, "policy: no egress worker came for its door");
}

int life_send_contract(struct life *f)
{
	_cleanup_(contract_finish) struct contract c = {0};

	int r = vm_contract_message(f->lives->store, f->id, f->generation, &c);
	if (r)
		return r;
	c.message.deadline_ms = f->lives->config.boot_timeout_ms;
	c.message.trust = f->lives->config.extra_ca;
	return ipc_notify(links_get(f->lives->links, ROLE_VM, f->id), MSG_TYPE_msg_contract, &c.message, NULL, 0);
}

static enum step_run run_contract(struct life *f)
{
	if (!f->progress[0] || strncmp(f->progress, "waiting for the guest", 21))
		life_progress_set(f, "waiting for the guest to boot");
	int r = life_send_contract(f);
	if (r == -EPIPE)
		f->waiting_peer = true;
	else if (r) {
		life_fail(f, "contract: %s", strerror(-r));
		return STEP_WAITS;
	}
	if (!evtimer_pending(f->timer, NULL))
		life_timer(f, f->lives->config.boot_timeout_ms + GRACE_MS);
	return STEP_WAITS;
}

static void contract_timeout(struct life *f)
{
	life_fail(f, "boot: the guest was not ready in %u s (%s)", f->lives->config.boot_timeout_ms / 1000,
		  f->progress[0] ? f->progress : "no report");
}

/* --- stop, remove, clean --- */

struct asked {
	struct lives *lives;
	uint64_t vm, epoch;
};

/* A guest that cannot be asked is not waited for. */
static bool shutdown_asked(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	_cleanup_free_ struct asked *a = arg;
	struct life *f;

	if (!m || m->info->type != MSG_TYPE_msg_result || IPC_RECORD(m, msg_result)->code == 0)
		return true;
	f = life_find(a->lives, a->vm);
	if (f && f->epoch == a->epoch && life_is_at(f, JOB_STOP, "shutdown"))
		life_advance(f);
	return true;
}

static enum step_run run_shutdown(struct life *f)
{
	unsigned deadline = f->lives->config.stop_timeout_ms;
	struct asked *a = xcalloc(1, sizeof *a);

	life_progress_set(f, "waiting for the guest to power off");
	*a = (struct asked){f->lives, f->id, f->epoch};
	int r = ipc_call(links_get(f->lives->links, ROLE_VM, f->id), MSG_TYPE_msg_vm_shutdown,
	                 &(struct msg_vm_shutdown){.vm = f->id, .deadline_ms = deadline}, NULL, 0, 0, shutdown_asked,
	                 a);
	if (r) {
		free(a);
		f->waiting_peer = true;
	}
	if (!evtimer_pending(f->timer, NULL))
		life_timer(f, deadline + GRACE_MS);
	return STEP_WAITS;
}

static enum step_run run_pause(struct life *f)
{
	life_timer(f, life_restart_pause_ms(f));
	return STEP_WAITS;
}

static const struct step start_steps[] = {
	{"prepare", run_prepare, NULL, undo_prepare},
	{"start", run_start, NULL, run_kill},
	{"policy", run_policy, policy_timeout, NULL},
	{"contract", run_contract, contract_timeout, NULL},
};
static const struct step stop_steps[] = {
	{"shutdown", run_shutdown, life_advance, NULL},
	{"kill", run_kill, NULL, NULL},
};
static const struct step remove_steps[] = {
	{"kill", run_kill, NULL, NULL},
	{"remove", run_remove, NULL, NULL},
};
static const struct step clean_steps[] = {
	{"kill", run_kill, NULL, NULL},
};

static const struct step restart_steps[] = {
	{"pause", run_pause, life_advance, NULL},
};

const struct job_info jobs[JOB_COUNT] = {
	[JOB_NONE] = {"none", NULL, 0},
	[JOB_START] = {"start", start_steps, ARRAY_SIZE(start_steps)},
	[JOB_STOP] = {"stop", stop_steps, ARRAY_SIZE(stop_steps)},
	[JOB_REMOVE] = {"remove", remove_steps, ARRAY_SIZE(remove_steps)},
	[JOB_CLEAN] = {"clean", clean_steps, ARRAY_SIZE(clean_steps)},
	[JOB_RESTART] = {"restart", restart_steps, ARRAY_SIZE(restart_steps)},
};
