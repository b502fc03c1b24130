#pragma once
/* One role: a process of libexec/iron with its channel, started, configured, pinged, ended and started again when it
 * dies by itself (after 0.1 s, doubling up to 10 s; a minute of life resets that). What a role is told and what it is
 * connected to are its owner's, by callbacks; nothing here knows a VM or a workspace.
 *
 * DOWN → STARTING (process and channel are there, configuration sent) → UP (answered a ping) → STOPPING → DOWN. */
#include <event2/event.h>

#include "base/error.h"
#include "broker/cgroup.h"
#include "os/ipc.h"

enum role_state { ROLE_DOWN, ROLE_STARTING, ROLE_UP, ROLE_STOPPING };

struct role_proc;

struct role_ops {
	/* Sends the configuration on `fd` with ipc_send_blocking (the socket is empty: nothing blocks). An error is as
	 * if the process had died. */
	int (*configure)(struct role_proc *r, int fd, void *user, struct error *reterr);
	/* One of the rows with which an adopted role answers msg_adopt, before `up`; NULL: it has none. */
	void (*row)(struct role_proc *r, const struct ipc_msg *m, void *user);
	/* STARTING → UP. */
	void (*up)(struct role_proc *r, void *user);
	/* The process is gone and reaped (wait status) or could not be started (reason); the channel is closed. again:
	 * it will be started again by itself. May destroy r when again is false. */
	void (*down)(struct role_proc *r, int status, const char *reason, bool again, void *user);
};

/* The same for every role of an irond. Borrowed. */
struct role_host {
	struct event_base *base;
	const char *libexec, *state_dir, *run_dir, *log_level;
	bool degraded;
	/* Tells one configuration of a role from another. */
	uint64_t (*config_mark)(enum role kind, void *user);
	void *user;
};

struct role_setup {
	enum role kind;
	uint64_t id;      /* VM or workspace, 0 */
	const char *name; /* literal: "iron-api", also the program's */
	uid_t uid;
	gid_t gid;
	struct cgroup *cgroup; /* borrowed; NULL: irond's own */
	const struct ipc_rule *rules; /* their handlers' `user` is the struct role_proc; see role_owner */
	size_t nrules;
	const struct role_ops *ops;
	void *user;
};

struct role_proc *role_create(const struct role_host *host, const struct role_setup *setup);
/* SIGKILL when it still runs, and reaped; no callback. NULL allowed. */
void role_destroy(struct role_proc *r);

/* DOWN → STARTING, with the process that an irond before this one left, if it is the one that would be started now: the
 * same program, user and configuration. Any other that its record names is killed, and gone when this returns.
 * -ESRCH: there is none to adopt. */
int role_adopt(struct role_proc *r);
/* The process is left to the next irond; r is freed. As role_destroy for one that ends with irond, or that is ending. */
void role_leave(struct role_proc *r);

/* DOWN → STARTING. STOPPING: started again, by itself, as soon as the old one is gone. */
int role_start(struct role_proc *r, struct error *reterr);
/* Tells it to end (msg_end), or closes the channel where that is the same; SIGKILL after grace_ms (0: at once). `down` follows. In state
 * DOWN it only cancels a pending restart, and `down` does not follow: false. */
bool role_stop(struct role_proc *r, unsigned grace_ms);
/* Ends as role_stop does, and is started again, with the configuration of then; tried until it succeeds. */
void role_restart(struct role_proc *r, unsigned grace_ms);
/* SIGKILL; it is started again as after any death. */
void role_kill(struct role_proc *r);

/* Its process, or the latest one that it had, was an earlier irond's. */
bool role_is_adopted(const struct role_proc *r);
void *role_owner(const struct role_proc *r); /* setup.user */
enum role_state role_state(const struct role_proc *r);
struct ipc_peer *role_peer(struct role_proc *r); /* NULL unless STARTING or UP */
enum role role_kind(const struct role_proc *r);
uint64_t role_id(const struct role_proc *r);
const char *role_name(const struct role_proc *r);
pid_t role_pid(const struct role_proc *r);
unsigned role_restarts(const struct role_proc *r);
int64_t role_started_at(const struct role_proc *r); /* ms, real time */
/* Grows with each start: an answer owed to an earlier process is not given to the next. */
uint64_t role_incarnation(const struct role_proc *r);

/* Both get a new channel to each other. Nothing happens unless both are STARTING or UP, nor where two adopted ones have
 * theirs still. */
int role_link(struct role_proc *a, struct role_proc *b);

/* Of processes that no struct role_proc of this irond stands for; run_dir is irond's. */
/* What run_dir/roles holds beyond those: killed, record and socket removed. */
void roles_sweep(const char *run_dir, bool (*is_known)(const char *file, void *user), void *user);
/* One request to a role whose irond is gone, blocking; *ret_value is msg_result's. file: as in role_file. */
int role_ask_orphan(const char *run_dir, const char *file, enum msg_type type, const void *record, int timeout_ms,
		    uint64_t *ret_value);
/* The name of a role's record: "vm-vm_…", "egress-ws_…", "api". */
const char *role_file(const struct role_proc *r);
