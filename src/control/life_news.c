/* What others report of VMs, and the comparison with irond after a restart. */
#include <errno.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/vec.h"
#include "control/life_internal.h"

/* msg_vm_exited.reason where irond itself ended it: asked by us (then a job expects it), or told to stop. */
#define ENDED_BY_IROND "killed"

/* --- channels --- */

static void contract_anew(struct life *f)
{
	if (life_send_contract(f))
		log_debug("no channel for the contract", "vm=%s", log_id("vm_", f->id));
}

/* The first channel after our own start leads to an iron-vm that has a history: what the store says holds until it says
 * otherwise. A later one leads to a new iron-vm, which must reach the agent again. */
void lives_on_vm_peer(struct lives *l, uint64_t vm)
{
	struct life *f = life_find(l, vm);

	if (!f)
		return;
	if (f->waiting_peer) {
		f->waiting_peer = false;
		life_run(f);
		return;
	}
	if (life_is_at(f, JOB_START, "contract") || life_is_at(f, JOB_STOP, "shutdown")) {
		life_run(f);
		return;
	}
	if (f->job != JOB_NONE || !(VM_STATES_RUNNING & VM_STATE_BIT(f->state)))
		return;
	if (f->confirmed && f->state == VM_READY)
		life_set_state(f, VM_RUNNING, "its agent is being reached again");
	contract_anew(f);
}

void lives_on_worker(struct lives *l, uint64_t workspace)
{
	VEC(uint64_t) ids = {0};
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&l->all, &i, &slot)) {
		struct life *f = slot->value;
		if (f->workspace == workspace && f->waiting_peer && life_is_at(f, JOB_START, "policy"))
			VEC_PUSH(&ids, f->id);
	}
	for (i = 0; i < ids.n; i++) {
		struct life *f = life_find(l, ids.v[i]);
		if (!f)
			continue;
		f->waiting_peer = false;
		evtimer_del(f->timer);
		life_run(f);
	}
	VEC_FINISH(&ids);
}

/* --- reports of iron-vm --- */

static void on_ready(struct life *f)
{
	if (life_is_at(f, JOB_START, "contract"))
		life_advance(f);
	else if (f->job == JOB_NONE && f->state == VM_RUNNING)
		life_set_state(f, VM_READY, "");
}

static void on_failed(struct life *f, const char *step, const char *reason)
{
	char text[512];

	if (life_is_at(f, JOB_START, "contract")) {
		life_fail(f, "%s: %s", step[0] ? step : "boot", reason);
		return;
	}
	if (f->job != JOB_NONE || !(VM_STATES_RUNNING & VM_STATE_BIT(f->state)))
		return;
	snprintf(text, sizeof text, "%s: %.400s", step, reason);
	life_set_state(f, VM_RUNNING, text);
	life_note(f, "not_ready", text);
}

static void on_lost(struct life *f, const char *reason)
{
	if (f->job != JOB_NONE || f->state != VM_READY)
		return;
	life_set_state(f, VM_RUNNING, reason[0] ? reason : "the guest rebooted, or its agent is gone");
	life_note(f, "lost", reason);
	contract_anew(f);
}

void lives_on_report(struct lives *l, uint64_t vm, const struct msg_vm_state *m)
{
	struct life *f = life_find(l, vm);
	char step[64], reason[512];

	if (!f || m->vm != vm || m->generation != f->generation)
		return;
	f->confirmed = true;
	snprintf(step, sizeof step, "%.*s", STR_ARG(m->step));
	snprintf(reason, sizeof reason, "%.*s", STR_ARG(m->reason));
	switch ((enum vm_report)m->state) {
	case VM_REPORT_BOOTING:
		if (life_is_at(f, JOB_START, "contract"))
			life_progress_set(f, "waiting for the guest: %s", step[0] ? step : "boot");
		else if (f->job == JOB_NONE && f->state == VM_READY) /* an iron-vm that is new, as are we */
			life_set_state(f, VM_RUNNING, "its agent is being reached again");
		break;
	case VM_REPORT_READY:
		on_ready(f);
		break;
	case VM_REPORT_FAILED:
		on_failed(f, step, reason);
		break;
	case VM_REPORT_LOST:
		on_lost(f, reason);
		break;
	case VM_REPORT_OFF:
		break; /* msg_vm_exited follows, and says how */
	}
}

/* --- QEMU ended --- */

/* Nobody asked for it: stopped if irond ended it because it was itself told to stop (however gently), or if the guest
 * powered itself off; failed otherwise. QEMU's wait status decides: iron-vm sees the same closed socket in every case. */
static bool was_powered_off(int64_t status)
{
	return status == 0;
}

static bool was_ended_by_irond(const char *reason)
{
	return strcmp(reason, ENDED_BY_IROND) == 0;
}

static void on_unasked_exit(struct life *f, int64_t status, const char *reason)
{
	bool ended = was_ended_by_irond(reason), off = !ended && was_powered_off(status);
	char text[600];

	snprintf(text, sizeof text, "%s%.480s", off || ended ? "" : "its machine ended: ",
		 off ? "the guest powered off" : ended ? "iron was stopped" : reason);
	life_end_unasked(f, off || ended ? VM_STOPPED : VM_FAILED, off ? "powered_off" : ended ? "stopped" : "failed", text,
			 ended ? RESTART_LATER : RESTART_COUNTED);
}

static void on_exit_of(struct life *f, int64_t status, const char *reason)
{
	if (life_is_at(f, JOB_STOP, "shutdown"))
		life_advance(f);
	else if (was_ended_by_irond(reason) && f->job == JOB_START && !f->undoing)
		log_info("a start is left to the next irond", "vm=%s", log_id("vm_", f->id));
	else if (life_is_at(f, JOB_START, "policy") || life_is_at(f, JOB_START, "contract"))
		life_fail(f, "boot: its machine ended while the guest started: %s", reason);
	else if (f->job == JOB_NONE && VM_STATES_RUNNING & VM_STATE_BIT(f->state))
		on_unasked_exit(f, status, reason);
}

/* What the session's end is called: what iron was asked for, before how the machine went. */
static const char *end_reason(const struct life *f, int64_t status, const char *reason)
{
	if (f->job == JOB_STOP)
		return "stopped";
	if (f->job == JOB_REMOVE)
		return "destroyed";
	if (f->job == JOB_START && f->undoing)
		return "the start failed";
	if (was_ended_by_irond(reason))
		return "iron was stopped";
	return was_powered_off(status) ? "the guest powered off" : reason;
}

static const struct rec_vm_usage *usage_decode(struct str usage, struct rec_vm_usage *space)
{
	return usage.len && wire_decode(&rec_vm_usage_wire, usage, space) == 0 ? space : NULL;
}

void lives_on_exited(struct lives *l, const struct msg_vm_exited *m)
{
	struct life *f = life_find(l, m->vm);
	struct rec_vm_usage used;
	char reason[512];

	if (!f || m->generation != f->generation)
		return;
	dist_detach(l->dist, m->vm); /* irond has taken the door away with it */
	snprintf(reason, sizeof reason, "%.*s", STR_ARG(m->reason));
	life_session_close(f, real_ms(), end_reason(f, m->status, reason), usage_decode(m->usage, &used));
	on_exit_of(f, m->status, reason);
}

/* --- after a restart --- */

struct resume {
	struct lives *lives;
	struct map rows; /* VM: struct known */
};
struct known {
	bool running, exited;
	uint64_t generation;
	int64_t status;
	char reason[512];
	bool has_used;
	struct rec_vm_usage used;
};

/* irond may be starting it for an iron-control that died meanwhile, or run another generation than the store has (which
 * was restored from a backup, or lost its last steps with the host's power): first nothing of it may run. */
static void start_anew(struct life *f)
{
	life_begin(f, JOB_CLEAN);
	f->follow_start = true;
	life_run(f);
}

static void resume_start(struct life *f, const struct known *k, bool runs)
{
	if (f->undoing) {
		life_run(f);
	} else if (runs && f->step > 0) {
		f->step = 2; /* its machine runs: the policy once more, then the contract */
		life_run(f);
	} else if (k && k->exited && k->generation == f->generation && f->step > 1) {
		life_fail(f, "boot: its machine ended while the guest started: %s", k->reason);
	} else if (k) {
		start_anew(f);
	} else {
		f->step = 0;
		life_run(f);
	}
}

static bool ignore_answer(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	return true;
}

static void ignore_done(int code, void *arg)
{
}

static void resume_running(struct life *f, const struct known *k, bool runs)
{
	if (runs) {
		dist_attach(f->lives->dist, f->id, f->workspace);
		dist_change_vm(f->lives->dist, f->id, ignore_done, NULL);
		contract_anew(f);
	} else if (k && k->exited && k->generation == f->generation) {
		on_unasked_exit(f, k->status, k->reason);
	} else {
		life_end_unasked(f, VM_STOPPED, "stopped", "irond was restarted", RESTART_UNCOUNTED);
	}
}

static void resume_session(struct life *f, const struct known *k, bool runs)
{
	if (runs)
		life_session_open(f);
	else if (k && k->exited && k->generation == f->generation)
		life_session_close(f, k->has_used ? real_ms() : 0, end_reason(f, k->status, k->reason),
				   k->has_used ? &k->used : NULL);
	life_sessions_close(f, runs ? f->generation : 0, "irond or the host was restarted: its end was not seen");
}

static void resume(struct life *f, const struct known *k)
{
	bool runs = k && k->running && k->generation == f->generation;

	resume_session(f, k, runs);
	if (k && k->generation > f->generation)
		f->generation = k->generation; /* the next one is new to irond too */
	switch (f->job) {
	case JOB_START:
		resume_start(f, k, runs);
		break;
	case JOB_STOP:
		if (f->step == 0 && !(k && k->running))
			life_advance(f);
		else
			life_run(f);
		break;
	case JOB_REMOVE:
	case JOB_CLEAN:
	case JOB_RESTART:
		life_run(f);
		break;
	case JOB_NONE:
	case JOB_COUNT:
		if (f->state == VM_QUEUED) {
			life_begin(f, JOB_START);
			resume_start(f, k, false);
		} else if (VM_STATES_RUNNING & VM_STATE_BIT(f->state)) {
			resume_running(f, k, runs);
		} else { /* at rest, says the store; irond runs it */
			life_begin(f, JOB_CLEAN);
			life_run(f);
		}
		break;
	}
}

/* irond has a VM that the store calls gone, or does not know: nothing of it may run on. Its disk is removed only where
 * the store says that it was destroyed. */
static void drop_unknown(struct lives *l, uint64_t vm, const struct known *k)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm row;

	int r = store_vm_lookup(l->store, vm, &a, &row);
	if (r == 0 && row.state == VM_DESTROYED) {
		struct life *f = life_load(l, &row);
		life_begin(f, JOB_REMOVE);
		life_run(f);
	} else if (r == -ENOENT && !k->running) {
		log_warn("irond keeps the disk of a VM that the database does not know", "vm=%s", log_id("vm_", vm));
	} else if (r == -ENOENT) {
		log_error("irond runs a VM that the database does not know: it is killed", "vm=%s",
		          log_id("vm_", vm));
		ipc_call(links_irond(l->links), MSG_TYPE_msg_vm_kill, &(struct msg_vm_kill){.vm = vm}, NULL, 0, 0,
			 ignore_answer, NULL);
	}
}

static void resume_all(struct resume *s)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)256 << 20};
	uint32_t states = VM_STATES_PENDING | VM_STATES_RUNNING | VM_STATE_BIT(VM_STOPPING) |
	                  VM_STATE_BIT(VM_DESTROYING) | VM_STATE_BIT(VM_STOPPED) | VM_STATE_BIT(VM_FAILED);
	struct store_vms vms = {0};
	struct map_slot *slot;
	size_t i = 0;

	int r = store_vms_in_states(s->lives->store, states, &a, &vms);
	if (r)
		log_error("the VMs cannot be read", "code=%d", r);
	for (size_t n = 0; n < vms.n; n++) {
		const struct store_vm *vm = &vms.v[n];
		struct known *k = map_remove(&s->rows, vm->row.id);
		bool rests = vm->state == VM_STOPPED || vm->state == VM_FAILED;
		if (!rests || vm->job || (k && k->running))
			resume(life_load(s->lives, vm), k);
		free(k);
	}
	while (r == 0 && map_next(&s->rows, &i, &slot))
		drop_unknown(s->lives, slot->key, slot->value);
}

static void resume_free(struct resume *s)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&s->rows, &i, &slot))
		free(slot->value);
	map_finish(&s->rows);
	free(s);
}

static bool on_rows(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct resume *s = arg;

	if (m && m->info->type == MSG_TYPE_msg_vm_row) {
		const struct msg_vm_row *row = IPC_RECORD(m, msg_vm_row);
		struct known *k = xcalloc(1, sizeof *k);
		*k = (struct known){.running = row->running, .exited = row->exited, .generation = row->generation, .status = row->status};
		snprintf(k->reason, sizeof k->reason, "%.*s", STR_ARG(row->reason));
		k->has_used = usage_decode(row->usage, &k->used) != NULL;
		free(map_put(&s->rows, row->vm, k));
		return false;
	}
	if (m) {
		resume_all(s);
		s->lives->config.on_resumed(s->lives->config.user);
	}
	resume_free(s);
	return true;
}

int lives_resume(struct lives *l)
{
	struct resume *s = xcalloc(1, sizeof *s);

	s->lives = l;
	int r = ipc_call(links_irond(l->links), MSG_TYPE_msg_vms_get, &(struct msg_vms_get){}, NULL, 0, 0, on_rows, s);
	if (r)
		resume_free(s);
	return r;
}
