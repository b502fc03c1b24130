#include "broker/roles_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "os/pidfd.h"
#include "os/sandbox.h"

#define CHANNEL_FD 3
#define ADOPT_FD 4
#define START_TIMEOUT_MS 30000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 10000
#define SETTLED_MS 60000

static void arm(struct role_proc *r, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};

	event_add(r->timer, &tv);
}

static void on_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct role_proc *r = user;

	if (strcmp(reason, "closed by peer") != 0)
		snprintf(r->reason, sizeof r->reason, "its channel: %s", reason);
	/* Without its channel it is of no use; one that did not close it by exiting broke the protocol. */
	pidfd_signal(r->pidfd, SIGKILL);
}

static bool on_first_ping(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct role_proc *r = user;

	if (r->state != ROLE_STARTING || r->peer != peer)
		return true;
	if (!m) {
		if (ipc_peer_is_open(peer)) {
			snprintf(r->reason, sizeof r->reason, "it did not answer within %u s", START_TIMEOUT_MS / 1000);
			pidfd_signal(r->pidfd, SIGKILL);
		}
		return true;
	}
	role_is_up(r);
	return true;
}

void role_is_up(struct role_proc *r)
{
	r->state = ROLE_UP;
	r->setup.ops->up(r, r->setup.user);
}

/* --- the process --- */

struct child {
	const char *program, *argv[16];
	int channel, adopt, null_fd; /* adopt: -1, or where the next irond finds it */
	const int *cgroup_procs;
	size_t n_cgroup_procs;
};

/* Between fork and exec: only what is safe there. */
static void run_child(const struct child *c)
{
	static char *const environment[] = {
		(char *)(uintptr_t) "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		(char *)(uintptr_t) "LANG=C.UTF-8",
#if SANDBOX_SANITIZED
		/* the leak checker traces its own process, which the sandbox forbids */
		(char *)(uintptr_t) "ASAN_OPTIONS=detect_leaks=0",
#endif
		NULL
	};
	sigset_t none;

	for (size_t i = 0; i < c->n_cgroup_procs; i++)
		if (write(c->cgroup_procs[i], "0", 1) != 1)
			_exit(126);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	umask(077);
	if (dup2(c->null_fd, 0) < 0 || dup2(2, 1) < 0 || dup2(c->channel, CHANNEL_FD) < 0 ||
	    (c->adopt >= 0 && dup2(c->adopt, ADOPT_FD) < 0) ||
	    syscall(SYS_close_range, c->adopt >= 0 ? ADOPT_FD + 1 : CHANNEL_FD + 1, ~0U, 0) < 0)
		_exit(126);
	execve(c->program, (char *const *)(uintptr_t)c->argv, environment);
	_exit(127);
}

/* *ret_fd above the fixed numbers, or -1 for one that does not outlive irond. */
static int open_adopt_socket(const struct role_proc *r, int *ret_fd, struct error *reterr)
{
	_cleanup_free_ char *path = role_socket_path(r);
	_cleanup_close_ int fd = -1;
	int k;

	*ret_fd = -1;
	if (!role_can_be_adopted(r))
		return 0;
	k = ipc_listen(path, &fd);
	if (k == 0 && (*ret_fd = fcntl(fd, F_DUPFD_CLOEXEC, 10)) < 0)
		k = -errno;
	return k < 0 ? error_set(reterr, k, "%s: %s", path, strerror(-k)) : 0;
}

static pid_t fork_role(const struct role_proc *r, int channel, int adopt, struct error *reterr)
{
	_cleanup_free_ char *program = role_program(r);
	_cleanup_close_ int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int high = fcntl(channel, F_DUPFD_CLOEXEC, 10); /* so that dup2 to 3 never meets itself */
	char uid[12], gid[12], id[24];
	struct child c = {.program = program, .channel = high, .adopt = adopt, .null_fd = null_fd};
	pid_t pid;

	if (access(program, X_OK) < 0)
		return error_set(reterr, -errno, "%s: %s; is iron installed completely?", program, strerror(errno));
	if (null_fd < 0 || high < 0)
		return error_set(reterr, -errno, "starting %s: %s", r->setup.name, strerror(errno));
	snprintf(uid, sizeof uid, "%u", r->setup.uid);
	snprintf(gid, sizeof gid, "%u", r->setup.gid);
	snprintf(id, sizeof id, "%lu", r->setup.id);
	const char *argv[] = {r->setup.name, "--uid", uid, "--gid", gid, "--id", id,
			      "--state", r->host->state_dir, "--log", r->host->log_level,
			      r->host->degraded ? "--degraded" : NULL, NULL};
	memcpy(c.argv, argv, sizeof argv);
	if (r->setup.cgroup)
		c.cgroup_procs = cgroup_procs(r->setup.cgroup, &c.n_cgroup_procs);
	pid = fork();
	if (pid == 0)
		run_child(&c);
	return pid < 0 ? error_set(reterr, -errno, "starting %s: %s", r->setup.name, strerror(errno)) : pid;
}

void role_finish_process(struct role_proc *r)
{
	event_del(r->timer);
	if (r->ended)
		event_free(take_ptr(r->ended));
	if (r->pidfd >= 0)
		close(take_fd(r->pidfd));
	ipc_peer_destroy(take_ptr(r->peer));
	r->pid = 0;
	role_forget(r);
}

static void went_down(struct role_proc *r, int status, const char *why)
{
	char text[256], ended[WAIT_TEXT_SIZE];
	bool expected = r->state == ROLE_STOPPING;

	wait_status_format(status, ended);
	snprintf(text, sizeof text, "%s%s%s", why ? why : ended, r->reason[0] ? "; " : "", r->reason);
	r->state = ROLE_DOWN;
	if (!expected)
		log_warn("role ended", "name=%s%s reason=%s", r->setup.name, r->of, log_quote(text));
	if (r->wanted) {
		if (mono_ms() - r->started_mono_ms > SETTLED_MS)
			r->backoff_ms = BACKOFF_MIN_MS;
		arm(r, r->backoff_ms);
		r->backoff_ms = MIN(r->backoff_ms * 2, BACKOFF_MAX_MS);
	}
	r->setup.ops->down(r, status, text, r->wanted, r->setup.user);
}

static void on_ended(evutil_socket_t fd, short what, void *user)
{
	struct role_proc *r = user;
	int status = 0;

	if (pidfd_reap(r->pidfd, &status) == -EAGAIN)
		return;
	role_finish_process(r);
	went_down(r, status, NULL);
}

int role_watch(struct role_proc *r, struct error *reterr)
{
	int k = r->pidfd >= 0 ? 0 : pidfd_get(r->pid, &r->pidfd);

	if (k == 0) {
		r->ended = event_new(r->host->base, r->pidfd, EV_READ | EV_PERSIST, on_ended, r);
		k = r->ended && event_add(r->ended, NULL) == 0 ? 0 : -ENOMEM;
	}
	return k < 0 ? error_set(reterr, k, "watching %s: %s", r->setup.name, strerror(-k)) : 0;
}

int role_open_channel(struct role_proc *r, int fd, struct error *reterr)
{
	r->peer = ipc_peer_create(r->host->base, fd, r->setup.name, r->setup.rules, r->setup.nrules, on_closed, r);
	if (!r->peer)
		return error_set(reterr, -ENOMEM, "channel to %s: out of memory", r->setup.name);
	r->state = ROLE_STARTING;
	return 0;
}

static int spawn(struct role_proc *r, struct error *reterr)
{
	int pair[2], k;

	if ((k = ipc_socketpair(pair)) < 0)
		return error_set(reterr, k, "channel to %s: %s", r->setup.name, strerror(-k));
	_cleanup_close_ int ours = pair[0];
	_cleanup_close_ int theirs = pair[1];

	_cleanup_close_ int adopt = -1;

	if ((k = open_adopt_socket(r, &adopt, reterr)) < 0 || (k = fork_role(r, theirs, adopt, reterr)) < 0)
		return k;
	r->pid = k;
	r->adopted = false;
	r->links = 0;
	r->incarnation++;
	r->reason[0] = '\0';
	r->started_mono_ms = mono_ms();
	r->started_at = real_ms();
	if ((k = role_watch(r, reterr)) < 0)
		return k;
	/* before it has its configuration: until then it ends with this process */
	if ((k = role_note(r)) < 0)
		return error_set(reterr, k, "writing down %s: %s", r->setup.name, strerror(-k));
	if ((k = r->setup.ops->configure(r, ours, r->setup.user, reterr)) < 0 ||
	    (k = role_open_channel(r, take_fd(ours), reterr)) < 0)
		return k;
	k = ipc_call(r->peer, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0, START_TIMEOUT_MS, on_first_ping, r);
	return k < 0 ? error_set(reterr, k, "%s ended at once", r->setup.name) : 0;
}

/* For a start that failed half-way, and for role_destroy. */
static void kill_and_reap(struct role_proc *r)
{
	int status;

	if (r->pidfd >= 0) {
		pidfd_signal(r->pidfd, SIGKILL);
		pidfd_wait(r->pidfd, -1, &status);
	}
	role_finish_process(r);
	r->state = ROLE_DOWN;
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
	struct role_proc *r = user;
	struct error e = {0};

	if (r->state == ROLE_STOPPING) {
		snprintf(r->reason, sizeof r->reason, "it did not end by itself");
		pidfd_signal(r->pidfd, SIGKILL);
		return;
	}
	r->restarts++;
	if (spawn(r, &e) == 0)
		return;
	kill_and_reap(r);
	went_down(r, 0, e.text);
}

static void name_owner(struct role_proc *r)
{
	const char *name = r->setup.name + strlen("iron-");
	char id[ID_TEXT_SIZE];

	snprintf(r->file, sizeof r->file, "%s", name);
	if (!r->setup.id)
		return;
	id_format(r->setup.kind == ROLE_VM ? "vm_" : "ws_", r->setup.id, id);
	snprintf(r->file, sizeof r->file, "%s-%s", name, id);
	snprintf(r->of, sizeof r->of, " %s=%s", r->setup.kind == ROLE_VM ? "vm" : "workspace", id);
}

struct role_proc *role_create(const struct role_host *host, const struct role_setup *setup)
{
	struct role_proc *r = xcalloc(1, sizeof *r);

	r->host = host;
	r->setup = *setup;
	r->pidfd = -1;
	name_owner(r);
	r->backoff_ms = BACKOFF_MIN_MS;
	r->timer = evtimer_new(host->base, on_timer, r);
	if (!r->timer)
		abort();
	return r;
}

void role_destroy(struct role_proc *r)
{
	if (!r)
		return;
	kill_and_reap(r);
	event_free(r->timer);
	free(r);
}

int role_start(struct role_proc *r, struct error *reterr)
{
	int k;

	if (r->state == ROLE_STARTING || r->state == ROLE_UP)
		return error_set(reterr, -EALREADY, "%s runs already", r->setup.name);
	r->wanted = true;
	if (r->state == ROLE_STOPPING)
		return 0;
	event_del(r->timer);
	k = spawn(r, reterr);
	if (k < 0) {
		r->wanted = false;
		kill_and_reap(r);
	}
	return k;
}

static void end(struct role_proc *r, unsigned grace_ms)
{
	if (r->state == ROLE_STOPPING)
		return;
	r->state = ROLE_STOPPING;
	if (role_can_be_adopted(r))
		ipc_notify(r->peer, MSG_TYPE_msg_end, &(struct msg_end){}, NULL, 0);
	ipc_peer_destroy(take_ptr(r->peer));
	if (grace_ms)
		arm(r, grace_ms);
	else
		pidfd_signal(r->pidfd, SIGKILL);
}

bool role_stop(struct role_proc *r, unsigned grace_ms)
{
	r->wanted = false;
	if (r->state != ROLE_DOWN)
		end(r, grace_ms);
	else
		event_del(r->timer);
	return r->state != ROLE_DOWN;
}

void role_restart(struct role_proc *r, unsigned grace_ms)
{
	if (r->state == ROLE_DOWN) /* it is told anew when it comes back, or is not wanted */
		return;
	r->backoff_ms = BACKOFF_MIN_MS;
	end(r, grace_ms);
}

void role_kill(struct role_proc *r)
{
	if (r->pidfd >= 0)
		pidfd_signal(r->pidfd, SIGKILL);
}

bool role_is_adopted(const struct role_proc *r)
{
	return r->adopted;
}

void *role_owner(const struct role_proc *r)
{
	return r->setup.user;
}

enum role_state role_state(const struct role_proc *r)
{
	return r->state;
}

struct ipc_peer *role_peer(struct role_proc *r)
{
	return r->state == ROLE_STARTING || r->state == ROLE_UP ? r->peer : NULL;
}

enum role role_kind(const struct role_proc *r)
{
	return r->setup.kind;
}

uint64_t role_id(const struct role_proc *r)
{
	return r->setup.id;
}

const char *role_name(const struct role_proc *r)
{
	return r->setup.name;
}

pid_t role_pid(const struct role_proc *r)
{
	return r->pid;
}

unsigned role_restarts(const struct role_proc *r)
{
	return r->restarts;
}

int64_t role_started_at(const struct role_proc *r)
{
	return r->started_at;
}

uint64_t role_incarnation(const struct role_proc *r)
{
	return r->incarnation;
}

/* Both came with the channel between them. */
static bool have_one(const struct role_proc *a, const struct role_proc *b)
{
	return a->adopted && b->adopted && (a->links & 1U << b->setup.kind || b->links & 1U << a->setup.kind);
}

int role_link(struct role_proc *a, struct role_proc *b)
{
	struct ipc_peer *pa = role_peer(a), *pb = role_peer(b);
	int pair[2], r;

	if (!pa || !pb || have_one(a, b))
		return 0;
	if ((r = ipc_socketpair(pair)) < 0)
		return r;
	_cleanup_close_ int end_a = pair[0];
	_cleanup_close_ int end_b = pair[1];
	struct msg_peer to_a = {.role = (uint8_t)b->setup.kind, .id = b->setup.id};
	struct msg_peer to_b = {.role = (uint8_t)a->setup.kind, .id = a->setup.id};

	r = ipc_notify(pa, MSG_TYPE_msg_peer, &to_a, &end_a, 1);
	return r < 0 ? r : ipc_notify(pb, MSG_TYPE_msg_peer, &to_b, &end_b, 1);
}
