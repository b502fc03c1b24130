#pragma once
/* What vms.c (disk, requests) and vm_run.c (the life of one that runs) share. */
#include "base/vec.h"
#include "broker/state.h"
#include "broker/vms.h"
#include "broker/workspaces.h"

enum vm_phase { PHASE_STOPPED, PHASE_STARTING, PHASE_RUNNING, PHASE_STOPPING };

struct vm {
	struct broker *b;
	struct vm_record record;
	char text[24]; /* vm_… */
	char *dir, *run_dir;
	enum vm_phase phase;
	uint64_t generation;

	/* While not stopped. */
	struct workspace *workspace;
	struct cgroup *group, *role_group; /* QEMU's, iron-vm's */
	struct vm_net net;
	int names_fd;
	struct qemu_process qemu;
	struct event *qemu_ended, *timer; /* timer: the longest a start, then a teardown, may take */
	struct role_proc *role;
	bool attached, attaching, detaching; /* the door, at the worker; -ing: its answer is still owed to us */
	bool announced; /* iron-control was told that it runs: it is told of the end too */

	struct reply starter;                      /* who waits for the start */
	VEC(struct reply) killers;                 /* and for the end */
	struct error start_error;

	bool exited; /* the end of the last run, as in msg_vm_exited */
	bool killed;
	int status;
	char reason[512];
	struct rec_vm_usage usage; /* of this run, or the last one */
};

/* --- between vm_run.c and vm_adopt.c --- */
#define VM_STATUS_UNSEEN (-1) /* of a QEMU that was not our child, and that nobody saw end */
/* take_running: they hold processes that are to live on. */
int vm_make_groups(struct vm *v, bool take_running, struct error *reterr);
bool vm_drop_group(struct cgroup **g);
void vm_make_role(struct vm *v);
void vm_make_timer(struct vm *v);
int vm_watch_qemu(struct vm *v, struct error *reterr);
/* Writes down which process is this VM's QEMU. */
void vm_note_qemu(const struct vm *v);
void vm_set_exit_reason(struct vm *v, int status);
/* What a start made, in reverse, but for the groups. Nothing of the VM runs any more. */
void vm_release_run(struct vm *v);

/* Brings v->usage up to date; before QEMU is reaped it still tells all. */
void vm_usage_read(struct vm *v);
/* v->usage, encoded; borrows from space. */
struct str vm_usage_encode(const struct vm *v, struct buf *space);

/* STOPPED → STARTING; answers `to` when it runs or has failed. */
void vm_run(struct vm *v, uint64_t generation, struct reply to);
/* Ends it: SIGKILL to its cgroup. No-op when stopped. */
void vm_run_kill(struct vm *v);
/* For the end of irond: all at once, without the loop. */
void vm_run_abandon(struct vm *v);
