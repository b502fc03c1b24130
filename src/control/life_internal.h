#pragma once
/* Between life.c (which job, which step, the store) and life_steps.c (what each step does). */
#include "base/map.h"
#include "control/life.h"
#include "model/vm_state.h"

/* Numbers are kept in the store. */
enum job { JOB_NONE, JOB_START, JOB_STOP, JOB_REMOVE, JOB_CLEAN, JOB_COUNT };

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
/* A request to irond for the running step. answered: code and reason of its result, -ETIMEDOUT. */
typedef void life_answered(struct life *f, int code, const char *reason);
enum step_run life_call(struct life *f, enum msg_type type, const void *record, unsigned timeout_ms,
                        life_answered *answered);
void life_progress_set(struct life *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
