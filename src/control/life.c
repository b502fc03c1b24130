#include "control/life_internal.h"

#include <errno.h>
#include <stdarg.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"

/* A life is in memory while its VM is in a job or has a QEMU; the store has what must survive: state, generation, job
 * and step. A step is written before it runs, so a restart runs it again: each is made to be run twice.
 *
 * A job that replaces another (remove while starting) waits for irond's answer to the call that is under way, so that
 * requests about one VM never overtake each other there. */

/* store_vm.job: the kind, and flags above it */
#define JOB_MASK 0xffU
#define JOB_UNDOING 0x100U
#define JOB_FOLLOW 0x200U
#define JOB_AUTOMATIC 0x400U

struct life *life_find(struct lives *l, uint64_t vm)
{
	return map_get(&l->all, vm);
}

const struct step *life_step(const struct life *f)
{
	static const struct step none = {"", NULL, NULL, NULL};
	const struct job_info *j = &jobs[f->job];

	return f->step < j->nsteps ? &j->steps[f->step] : &none;
}

bool life_is_at(const struct life *f, enum job job, const char *step)
{
	return f->job == job && !f->undoing && strcmp(life_step(f)->name, step) == 0;
}

/* --- the store --- */

static uint32_t job_number(const struct life *f)
{
	return (uint32_t)f->job | (f->undoing ? JOB_UNDOING : 0) | (f->follow_start ? JOB_FOLLOW : 0) |
	       (f->automatic ? JOB_AUTOMATIC : 0);
}

static void stamp(struct store_vm *vm, enum vm_state state)
{
	int64_t now = real_ms();

	vm->row.updated_at = now;
	if (state == VM_READY && !(VM_STATES_RUNNING & VM_STATE_BIT(vm->state)))
		vm->row.started_at = now;
	if ((state == VM_STOPPED || state == VM_FAILED || state == VM_DESTROYED) && vm->row.started_at &&
	    vm->row.stopped_at < vm->row.started_at)
		vm->row.stopped_at = now;
	vm->state = state;
}

/* Writes all of a life. reason NULL: as it is. */
static int save(struct life *f, const char *reason, enum store_durability durability)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	_cleanup_(arena_finish) struct arena a = {0};
	struct store *s = f->lives->store;
	struct store_vm vm;

	int r = store_begin(s, durability, &tx);
	if (r == 0)
		r = store_vm_lookup(s, f->id, &a, &vm);
	if (r)
		return r;
	if (vm.state != f->state)
		stamp(&vm, f->state);
	vm.row.generation = f->generation;
	if (reason)
		vm.row.status_reason = str_of(reason);
	vm.job = job_number(f);
	vm.job_step = f->step;
	r = store_vm_update(s, &vm);
	if (r == 0 && f->state == VM_DESTROYED)
		r = store_rules_delete_vm(s, f->id);
	return r ? r : store_commit(&tx);
}

void life_save(struct life *f, const char *reason)
{
	int r = save(f, reason, STORE_NORMAL);
	if (r)
		log_limited(LOG_LEVEL_ERROR, 5, "a VM's state is not stored", "vm=%s code=%d",
		            log_id("vm_", f->id), r);
}

/* Failures and ends that nobody asked for are on record; what was asked for is, by who asked. */
void life_note(struct life *f, const char *action, const char *reason)
{
	_cleanup_(detail_finish) struct detail d = {0};

	detail_add(&d, "reason", str_of(reason));
	detail_add_u64(&d, "generation", f->generation);
	struct record_event e = {.kind = STR(EVENT_VM), .action = str_of(action), .workspace = f->workspace, .vm = f->id,
				 .outcome = str_of(vm_state_detail(f->state)), .detail = detail_end(&d)};
	journal_note(f->lives->journal, &e);
}

static void changed(struct life *f)
{
	f->lives->config.on_change(f->id, f->lives->config.user);
}

void life_set_state(struct life *f, enum vm_state state, const char *reason)
{
	if (f->state != state && !vm_state_may_follow(f->state, state))
		log_error("a state that may not follow", "vm=%s from=%s to=%s", log_id("vm_", f->id),
			  vm_state_detail(f->state), vm_state_detail(state));
	f->state = state;
	life_save(f, reason);
	changed(f);
}

/* --- the engine --- */

static void forget_if_idle(struct life *f)
{
	if (f->job != JOB_NONE || f->calling || VM_STATES_RUNNING & VM_STATE_BIT(f->state))
		return;
	map_remove(&f->lives->all, f->id);
	event_free(f->timer);
	free(f);
}

void life_begin(struct life *f, enum job job)
{
	f->epoch++;
	f->job = job;
	f->step = 0;
	f->undoing = false;
	f->waiting_peer = false;
	f->progress[0] = '\0';
	evtimer_del(f->timer);
}

/* Nothing of it runs. The start that is to follow begins, a pause before it where nobody waits for it. */
static void follow(struct life *f)
{
	enum job next = !f->follow_start ? JOB_NONE : f->automatic ? JOB_RESTART : JOB_START;

	f->follow_start = false;
	life_begin(f, next);
	if (f->state == VM_STOPPING)
		life_set_state(f, VM_STOPPED, NULL);
	if (next == JOB_START)
		life_set_state(f, VM_STARTING, "");
	else if (next == JOB_RESTART)
		life_set_state(f, VM_STARTING, NULL);
	else
		life_save(f, NULL);
}

static void end_start(struct life *f)
{
	if (f->undoing) {
		follow(f);
		return;
	}
	f->automatic = false;
	life_begin(f, JOB_NONE);
	life_set_state(f, VM_READY, "");
	life_note(f, "ready", "");
}

/* The job is over; another may have begun. May free f. */
static void end_job(struct life *f)
{
	switch (f->job) {
	case JOB_START:
		end_start(f);
		break;
	case JOB_STOP:
	case JOB_CLEAN:
		follow(f);
		break;
	case JOB_RESTART:
		life_begin(f, JOB_START);
		life_save(f, "");
		break;
	case JOB_REMOVE:
		life_begin(f, JOB_NONE);
		life_set_state(f, VM_DESTROYED, NULL);
		break;
	case JOB_NONE:
	case JOB_COUNT:
		break;
	}
	if (f->job != JOB_NONE)
		life_run(f);
	else
		forget_if_idle(f);
}

/* One step further, without running it: false at the end. */
static bool next_step(struct life *f)
{
	evtimer_del(f->timer);
	f->waiting_peer = false;
	if (f->undoing)
		return f->step-- > 0;
	return ++f->step < jobs[f->job].nsteps;
}

void life_run(struct life *f)
{
	if (f->calling)
		return; /* goes on with irond's answer */
	for (;;) {
		uint64_t epoch = f->epoch;
		const struct step *s = life_step(f);
		enum step_run (*run)(struct life *) = f->undoing ? s->undo : s->run;
		life_save(f, NULL);
		if ((run ? run(f) : STEP_DONE) == STEP_WAITS || f->epoch != epoch)
			return;
		if (!next_step(f)) {
			end_job(f);
			return;
		}
	}
}

void life_advance(struct life *f)
{
	if (next_step(f))
		life_run(f);
	else
		end_job(f);
}

void life_fail(struct life *f, const char *fmt, ...)
{
	char reason[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof reason, fmt, ap);
	va_end(ap);
	evtimer_del(f->timer);
	f->epoch++;
	f->undoing = true;
	f->waiting_peer = false;
	f->progress[0] = '\0';
	f->automatic = f->automatic && life_restart_again(f, RESTART_COUNTED, reason, sizeof reason);
	f->follow_start = f->automatic;
	life_set_state(f, VM_FAILED, reason);
	life_note(f, "failed", reason);
	if (f->automatic)
		life_set_state(f, VM_STARTING, NULL);
	life_run(f);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct life *f = arg;
	const struct step *s = life_step(f);

	if (!f->undoing && s->timeout)
		s->timeout(f);
	else
		life_run(f);
}

void life_timer(struct life *f, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};
	evtimer_add(f->timer, &tv);
}

void life_progress_set(struct life *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->progress, sizeof f->progress, fmt, ap);
	va_end(ap);
}

struct call {
	struct lives *lives;
	uint64_t vm, epoch;
	life_answered *answered;
};

static bool on_answer(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	_cleanup_free_ struct call *c = arg;
	struct life *f = life_find(c->lives, c->vm);
	char reason[512] = "irond did not answer in time";
	int code = -ETIMEDOUT;

	if (!ipc_peer_is_open(p) || !f)
		return true; /* without irond this process ends; the next one resumes */
	if (m && m->info->type == MSG_TYPE_msg_result) {
		const struct msg_result *r = IPC_RECORD(m, msg_result);
		code = (int)r->code;
		snprintf(reason, sizeof reason, "%.*s", STR_ARG(r->reason));
	}
	f->calling = false;
	if (f->epoch == c->epoch)
		c->answered(f, code, reason);
	else if (f->job != JOB_NONE)
		life_run(f);
	else
		forget_if_idle(f);
	return true;
}

enum step_run life_call(struct life *f, enum msg_type type, const void *record, unsigned timeout_ms,
			life_answered *answered)
{
	struct call *c = xcalloc(1, sizeof *c);

	*c = (struct call){f->lives, f->id, f->epoch, answered};
	if (ipc_call(links_irond(f->lives->links), type, record, NULL, 0, timeout_ms, on_answer, c))
		free(c);
	else
		f->calling = true;
	return STEP_WAITS;
}

/* --- what is asked for --- */

struct life *life_load(struct lives *l, const struct store_vm *vm)
{
	struct life *f = life_find(l, vm->row.id);

	if (f)
		return f;
	f = xcalloc(1, sizeof *f);
	*f = (struct life){
		.lives = l,
		.id = vm->row.id,
		.workspace = vm->workspace,
		.generation = vm->row.generation,
		.state = vm->state,
		.job = (vm->job & JOB_MASK) < JOB_COUNT ? (enum job)(vm->job & JOB_MASK) : JOB_NONE,
		.step = vm->job_step,
		.undoing = vm->job & JOB_UNDOING,
		.follow_start = vm->job & JOB_FOLLOW,
		.automatic = vm->job & JOB_AUTOMATIC,
	};
	if (f->step >= jobs[f->job].nsteps)
		f->step = 0;
	f->timer = evtimer_new(l->base, on_timer, f);
	if (!f->timer)
		abort();
	map_put(&l->all, f->id, f);
	return f;
}

static int load(struct lives *l, uint64_t vm, struct life **ret)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm row;

	*ret = life_find(l, vm);
	if (*ret)
		return 0;
	int r = store_vm_lookup(l->store, vm, &a, &row);
	if (r == 0)
		*ret = life_load(l, &row);
	return r;
}

/* What the caller is told it did must be in the store. If that fails all stays as it was. */
static int commit(struct life *f, const struct life *before, const char *reason, enum store_durability durability)
{
	int r = save(f, reason, durability);

	if (r == 0) {
		changed(f);
		return 0;
	}
	f->state = before->state;
	f->job = before->job;
	f->step = before->step;
	f->undoing = before->undoing;
	f->follow_start = before->follow_start;
	f->automatic = before->automatic;
	forget_if_idle(f);
	return r;
}

int life_start(struct lives *l, uint64_t vm)
{
	struct life *f;
	int r = load(l, vm, &f);

	if (r)
		return r;
	struct life before = *f;
	if (f->job == JOB_STOP || f->job == JOB_CLEAN || (f->job == JOB_START && f->undoing)) {
		if (f->follow_start)
			return -EALREADY;
		f->follow_start = true;
		return commit(f, &before, NULL, STORE_FULL);
	}
	if (f->state != VM_QUEUED && f->state != VM_STOPPED && f->state != VM_FAILED) {
		forget_if_idle(f);
		return -EALREADY;
	}
	life_begin(f, JOB_START);
	if (f->state != VM_QUEUED)
		f->state = VM_STARTING;
	r = commit(f, &before, "", STORE_FULL);
	if (r == 0)
		life_run(f);
	return r;
}

/* The start that was to follow. One that restart: always had in mind was shown as starting already. */
static int call_off(struct life *f, const char *reason)
{
	struct life before = *f;
	bool pausing = f->job == JOB_RESTART;

	f->follow_start = false;
	if (f->automatic)
		f->state = VM_STOPPED;
	f->automatic = false;
	if (pausing)
		f->job = JOB_NONE;
	int r = commit(f, &before, before.automatic ? reason : NULL, STORE_FULL);
	if (r == 0 && pausing) {
		life_begin(f, JOB_NONE);
		forget_if_idle(f);
	}
	return r;
}

void life_restart_changed(struct lives *l, uint64_t vm)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct life *f = life_find(l, vm);
	struct store_vm row;

	if (!f || !f->automatic || !(f->follow_start || f->job == JOB_RESTART))
		return;
	if (store_vm_lookup(l->store, vm, &a, &row) || row.row.restart != VM_RESTART_NEVER)
		return;
	int r = call_off(f, "it was to be started again; its restart is never now");
	if (r)
		log_error("a restart is not called off", "vm=%s code=%d", log_id("vm_", vm), r);
}

int life_stop(struct lives *l, uint64_t vm)
{
	struct life *f;
	int r = load(l, vm, &f);

	if (r)
		return r;
	struct life before = *f;
	if (f->follow_start || f->job == JOB_RESTART)
		return call_off(f, "");
	if (!(VM_STATES_RUNNING & VM_STATE_BIT(f->state))) {
		forget_if_idle(f);
		return -EINVAL;
	}
	life_begin(f, JOB_STOP);
	f->state = VM_STOPPING;
	r = commit(f, &before, "", STORE_FULL);
	if (r == 0)
		life_run(f);
	return r;
}

int life_remove(struct lives *l, uint64_t vm)
{
	struct life *f;
	int r = load(l, vm, &f);

	if (r)
		return r;
	struct life before = *f;
	if (VM_STATES_GONE & VM_STATE_BIT(f->state)) {
		forget_if_idle(f);
		return 0;
	}
	life_begin(f, JOB_REMOVE);
	f->follow_start = f->automatic = false;
	f->state = VM_DESTROYING;
	/* on the disk before the VM's own is removed: it must not come back without it */
	r = commit(f, &before, "", STORE_FULL);
	if (r == 0)
		life_run(f);
	return r;
}

bool life_start_follows(const struct lives *l, uint64_t vm)
{
	const struct life *f = map_get(&l->all, vm);
	return f && (f->follow_start || f->job == JOB_RESTART);
}

const char *life_progress(const struct lives *l, uint64_t vm)
{
	const struct life *f = map_get(&l->all, vm);
	return f ? f->progress : "";
}

struct lives *lives_create(struct event_base *base, struct store *store, struct links *links, struct dist *dist,
			   struct journal *journal, const struct lives_config *config)
{
	struct lives *l = xcalloc(1, sizeof *l);

	*l = (struct lives){
	        .base = base, .store = store, .links = links, .dist = dist, .journal = journal, .config = *config};
	return l;
}

void lives_destroy(struct lives *l)
{
	struct map_slot *slot;
	size_t i = 0;

	if (!l)
		return;
	while (map_next(&l->all, &i, &slot)) {
		struct life *f = slot->value;
		event_free(f->timer);
		free(f);
	}
	map_finish(&l->all);
	free(l);
}
