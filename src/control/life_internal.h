#pragma once
/* Between life.c (which job, which step, the store) and life_steps.c (what each step does). */
#include "base/map.h"
#include "control/life.h"
#include "model/vm_state.h"

/* Numbers are kept in the store. */
enum job { JOB_NONE, JOB_START, JOB_STOP, JOB_REMOVE, JOB_CLEAN, JOB_RESTART, JOB_COUNT };

struct lives {
	struct event_base *base;
	struct store *store;
	struct links *links;
	struct dist *dist;
	struct journal *journal;
	struct lives_config config;
	struct map all; /* VMs in a job, or with a QEMU */
};

struct life {
	struct lives *lives;
	uint64_t id, workspace, generation;
	enum vm_state state;
	enum job job;
	unsigned step;
	bool undoing;
	bool follow_start; /* start when the stop is done */
	bool automatic;	   /* the start that follows, or is under way, is what restart: always asks for */
	bool made;	   /* this start made the disk: its undo removes it */
	uint64_t epoch;	   /* counts jobs: an answer of an earlier one is stale */
	bool calling;	   /* irond has not answered yet; what replaced the job begins after it */
	bool waiting_peer; /* the step runs again when a channel comes */
	bool confirmed;	   /* its iron-vm has spoken to this iron-control */
	struct event *timer;
	char progress[160];
};

/* The outcome of a step's run or undo. */
enum step_run { STEP_DONE, STEP_WAITS };

struct step {
	const char *name;
	enum step_run (*run)(struct life *f);
	void (*timeout)(struct life *f); /* the timer that run set fired; NULL: run again */
	enum step_run (*undo)(struct life *f);
};
struct job_info {
	const char *name;
	const struct step *steps;
	unsigned nsteps;
};
extern const struct job_info jobs[JOB_COUNT];

const struct step *life_step(const struct life *f);
/* It is in that job, and going forward, at that step. */
bool life_is_at(const struct life *f, enum job job, const char *step);
/* The step is done: on to the next. */
void life_advance(struct life *f);
/* A start's step did not succeed: the VM is failed, its steps are undone. */
void life_fail(struct life *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* After ms the step's timeout runs, or where it has none (or is being undone) the step again. */
void life_timer(struct life *f, unsigned ms);
/* Stored, and told to on_change. reason NULL: as it is. */
void life_set_state(struct life *f, enum vm_state state, const char *reason);
void life_save(struct life *f, const char *reason);
struct life *life_find(struct lives *l, uint64_t vm);
struct life *life_load(struct lives *l, const struct store_vm *vm);
/* The job from its first step; life_save or life_set_state, then life_run. */
void life_begin(struct life *f, enum job job);
/* The step that f is at, and on from there. May free f, when its VM neither runs nor is in a job afterwards. */
void life_run(struct life *f);
void life_note(struct life *f, const char *action, const char *reason);
/* To its iron-vm. -EPIPE: there is none now. */
int life_send_contract(struct life *f);
/* Its machine ended and no job expects that (or the host was started anew): what is left is cleaned away, and where
 * restart: always says so a start follows. state: VM_STOPPED or VM_FAILED. COUNTED: for the limit of restarts. LATER: not
 * counted, and not before irond had the time to end: it is the one who ended it. */
enum restart_when { RESTART_COUNTED, RESTART_UNCOUNTED, RESTART_LATER };
void life_end_unasked(struct life *f, enum vm_state state, const char *action, const char *text, enum restart_when when);
/* Whether a start that restart: always made, and that failed, is made again; reason gets what follows. */
bool life_restart_again(struct life *f, enum restart_when when, char *reason, size_t size);
/* How long the pause before it is. */
unsigned life_restart_pause_ms(struct life *f);

/* Its run of this generation began; it ended (used NULL: the numbers of the last sample are all there is). now 0: not
 * known when. */
void life_session_open(struct life *f);
void life_session_close(struct life *f, int64_t now, const char *reason, const struct rec_vm_usage *used);
/* All of its sessions that are open, but that of the generation `running`. */
void life_sessions_close(struct life *f, uint64_t running, const char *reason);

/* A request to irond for the running step. answered: code and reason of its result, -ETIMEDOUT. */
typedef void life_answered(struct life *f, int code, const char *reason);
enum step_run life_call(struct life *f, enum msg_type type, const void *record, unsigned timeout_ms,
			life_answered *answered);
void life_progress_set(struct life *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
