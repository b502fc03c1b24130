#pragma once
/* irond: the table of roles, workspaces and VMs, and what joins them. One loop, one thread. Nothing here reads a byte
 * that a guest, the network or a database sent: roles' messages are records of ids and bounded numbers, and only
 * iron-control may send any (requests.h). */
#include <event2/event.h>

#include "base/map.h"
#include "broker/cgroup.h"
#include "broker/roles.h"
#include "broker/uids.h"
#include "broker/vmhost.h"
#include "conf/conf.h"

struct ctl_server;
struct listeners;

struct broker_options {
	const char *conf_path;
	const char *libexec;
	/* A line of progress for whoever started irond; NULL: none. */
	void (*progress)(const char *line, void *user);
	void *user;
};

/* VMs first, then what serves them, the record last. LEAVING: none of these; iron-control ends, and what is half-way. */
enum broker_stopping { STOP_NO, STOP_LEAVING, STOP_VMS, STOP_SERVICES, STOP_AUDIT, STOP_DONE };

struct broker {
	struct event_base *base;
	struct broker_options options;
	struct conf *conf;
	struct role_host role_host;
	struct accel accel;
	struct uids *uids;
	struct cgroup_host *cgroups;
	struct image_list images;
	struct listeners *listeners;
	struct ctl_server *ctl;
	struct role_proc *api, *control, *audit;
	struct cgroup *role_groups[ROLE_WORKER + 1]; /* by enum role: of those three */
	struct map workspaces, vms; /* by id: struct workspace, struct vm */
	struct event *signals[4], *stop_timer, *reap_timer;
	struct event *log_timer; /* NULL: the log is not a file of ours */
	struct event *certificate_timer;
	struct buf certificate_mark; /* which files iron-api was told (certificate.h); empty: not known */
	int lock_fd;
	enum broker_stopping stopping;
	bool leave; /* what runs is left to the next irond: until an earlier one's is adopted, and when told to */
	bool ready; /* every role has answered once */
	void (*on_ready)(void *user);
	void *on_ready_user;
	int64_t started_at;
	struct buf told[ROLE_WORKER + 1]; /* by enum role: fingerprint of the configuration in force */
	struct error failure; /* why the loop was left, when that was not asked for */
};

/* Prepares everything up to the running roles; the reason says what to do. Owns conf from now on, also on failure. */
int broker_create(const struct broker_options *options, struct conf *conf, struct broker **ret, struct error *reterr);
/* Runs until it is told to stop; `ready` is called once every role has answered. 0, or why it ended by itself. */
int broker_run(struct broker *b, void (*ready)(void *user), void *user, struct error *reterr);
void broker_destroy(struct broker *b);

void broker_progress(const struct broker *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Ends VMs, then roles, then the loop; the second call does not wait for guests any more. Or (vms false), where VMs run:
 * ends iron-control and the loop, and leaves all else to the next irond. */
void broker_stop(struct broker *b, bool vms);
/* Reads iron.yaml and the images again. What changed for a role restarts that role. -EINVAL: a key that only a restart
 * changes (the reason names it), or a bad file: the old configuration stays. */
int broker_reload(struct broker *b, struct error *reterr);
int broker_rescan_images(struct broker *b, struct error *reterr);

/* Connects a role that has come up with every partner that is up (docs/ARCHITECTURE.md). */
void broker_link(struct broker *b, struct role_proc *r);
int broker_remember_conf(struct broker *b, struct error *reterr);
/* A reason to end: a role could not be started. */
void broker_fail(struct broker *b, const char *reason);
/* Called when a VM, a workspace or a role has ended, so that a stop goes on. */
void broker_stop_step(struct broker *b);

const struct image *broker_find_image(const struct broker *b, uint64_t id);

/* Who is owed an answer by iron-control's channel: one to an earlier process is dropped. */
struct reply {
	uint64_t incarnation;
	uint32_t txn; /* 0: nobody */
};
void broker_answer(struct broker *b, struct reply to, int code, const char *reason, uint64_t value);

typedef void broker_role_fn(struct role_proc *r, void *user);
void broker_each_role(struct broker *b, broker_role_fn *fn, void *user);

struct role_info {
	char name[32];
	uint64_t id;
	char state[16]; /* "ok", "silent" (did not answer the ping within a second), "starting", "down" */
	pid_t pid;      /* 0: down */
	unsigned restarts;
	int64_t started_at;
};
/* Pings every role; done is called once, from the loop or before this returns. */
typedef void broker_roles_fn(const struct role_info *roles, size_t n, void *user);
void broker_ping_roles(struct broker *b, broker_roles_fn *done, void *user);
