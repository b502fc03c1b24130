/* A role that outlives irond listens for the next one on a socket in run_dir/roles, and its record lies beside it. What is
 * adopted must be what would be started: its program is compared with what lies in libexec now (so an upgrade replaces
 * it), its configuration by its mark, its user by what the kernel says. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/roles_impl.h"
#include "os/fdutil.h"
#include "os/pidfd.h"
#include "os/proc.h"

#define ADOPT_TIMEOUT_MS 5000
#define KILL_TIMEOUT_MS 5000

bool role_can_be_adopted(const struct role_proc *r)
{
	const enum role k = r->setup.kind;

	return k == ROLE_API || k == ROLE_VM || k == ROLE_EGRESS || k == ROLE_AUDIT;
}

static char *record_dir(const struct role_proc *r)
{
	return xasprintf("%s/roles", r->host->run_dir);
}

char *role_socket_path(const struct role_proc *r)
{
	return xasprintf("%s/roles/%s.sock", r->host->run_dir, r->file);
}

char *role_program(const struct role_proc *r)
{
	return xasprintf("%s/%s", r->host->libexec, r->setup.name);
}

int role_note(const struct role_proc *r)
{
	_cleanup_free_ char *dir = record_dir(r);
	struct run_record record = {.pid = r->pid,
				    .started_at = r->started_at,
				    .id = r->setup.id,
				    .config = r->host->config_mark(r->setup.kind, r->host->user)};

	return role_can_be_adopted(r) ? run_record_write(dir, r->file, &record) : 0;
}

void role_forget(const struct role_proc *r)
{
	_cleanup_free_ char *socket = role_socket_path(r);
	_cleanup_free_ char *record = xasprintf("%s/roles/%s", r->host->run_dir, r->file);

	unlink(record);
	unlink(socket);
}

/* NULL: it is what would be started; else what is different. */
static const char *difference(const struct role_proc *r, const struct run_record *record)
{
	_cleanup_free_ char *program = role_program(r);
	char exe[32];
	uint64_t now, then;
	uid_t uid;

	snprintf(exe, sizeof exe, "/proc/%d/exe", record->pid);
	if (record->id != r->setup.id)
		return "it is another's";
	if (proc_uid(record->pid, &uid) < 0 || uid != r->setup.uid)
		return "its user";
	if (run_mark_file(exe, &then) < 0 || run_mark_file(program, &now) < 0 || then != now)
		return "its program";
	if (record->config != r->host->config_mark(r->setup.kind, r->host->user))
		return "its configuration";
	return NULL;
}

static bool on_adopted(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct role_proc *r = user;

	if (r->state != ROLE_STARTING || r->peer != peer)
		return true;
	if (!m) {
		if (ipc_peer_is_open(peer)) {
			snprintf(r->reason, sizeof r->reason, "it did not say what it has");
			pidfd_signal(r->pidfd, SIGKILL);
		}
		return true;
	}
	if (m->info->type != MSG_TYPE_msg_result) {
		if (r->setup.ops->row)
			r->setup.ops->row(r, m, r->setup.user);
		return false;
	}
	r->links = IPC_RECORD(m, msg_result)->value;
	log_info("adopted", "name=%s%s pid=%d", r->setup.name, r->of, r->pid);
	role_is_up(r);
	return true;
}

static int connect_to(struct role_proc *r, const struct run_record *record, int pidfd)
{
	_cleanup_free_ char *path = role_socket_path(r);
	struct error e = {0};
	int fd, k = ipc_connect(path, &fd);

	if (k < 0)
		return k;
	r->pid = record->pid;
	r->pidfd = pidfd;
	r->adopted = true;
	r->incarnation++;
	r->reason[0] = '\0';
	r->started_mono_ms = mono_ms();
	r->started_at = record->started_at;
	if ((k = role_open_channel(r, fd, &e)) < 0 || (k = role_watch(r, &e)) < 0)
		return k;
	return ipc_call(r->peer, MSG_TYPE_msg_adopt, &(struct msg_adopt){}, NULL, 0, ADOPT_TIMEOUT_MS, on_adopted, r);
}

/* Another's child: only the descriptor tells that it is gone. */
static void kill_and_wait(int pidfd)
{
	pidfd_signal(pidfd, SIGKILL);
	fd_wait(pidfd, POLLIN, KILL_TIMEOUT_MS);
}

int role_adopt(struct role_proc *r)
{
	_cleanup_free_ char *dir = record_dir(r);
	_cleanup_close_ int pidfd = -1;
	struct run_record record;
	const char *why;

	if (!role_can_be_adopted(r) || run_record_read(dir, r->file, &record) < 0 ||
	    run_record_open(&record, &pidfd) < 0)
		return -ESRCH;
	why = difference(r, &record);
	if (!why) {
		if (connect_to(r, &record, pidfd) == 0) {
			pidfd = -1;
			r->wanted = true;
			return 0;
		}
		why = "it does not listen";
		r->pidfd = -1;
	}
	log_info("not adopted, ended", "name=%s%s pid=%d why=%s", r->setup.name, r->of, record.pid, log_quote(why));
	kill_and_wait(pidfd);
	role_finish_process(r);
	r->state = ROLE_DOWN;
	return -ESRCH;
}

void role_leave(struct role_proc *r)
{
	if (!r)
		return;
	if (!role_can_be_adopted(r) || r->state == ROLE_STOPPING || r->state == ROLE_DOWN) {
		role_destroy(r);
		return;
	}
	ipc_peer_destroy(r->peer);
	if (r->ended)
		event_free(r->ended);
	if (r->pidfd >= 0)
		close(r->pidfd);
	event_free(r->timer);
	free(r);
}

/* --- without a struct role_proc --- */

const char *role_file(const struct role_proc *r)
{
	return r->file;
}

static void end_orphan(const char *dir, const char *file)
{
	_cleanup_free_ char *record_path = xasprintf("%s/%s", dir, file);
	_cleanup_free_ char *socket_path = xasprintf("%s/%s.sock", dir, file);
	_cleanup_close_ int pidfd = -1;
	struct run_record record;

	if (run_record_read(dir, file, &record) == 0 && run_record_open(&record, &pidfd) == 0) {
		log_info("left over, ended", "role=%s pid=%d", file, record.pid);
		kill_and_wait(pidfd);
	}
	unlink(record_path);
	unlink(socket_path);
}

void roles_sweep(const char *run_dir, bool (*is_known)(const char *file, void *user), void *user)
{
	_cleanup_free_ char *dir = xasprintf("%s/roles", run_dir);
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		_cleanup_free_ char *file = xstrdup(e->d_name);
		char *suffix = strrchr(file, '.');
		if (suffix == file)
			continue;
		if (suffix)
			*suffix = '\0';
		if (!is_known(file, user))
			end_orphan(dir, file);
	}
	if (d)
		closedir(d);
}

int role_ask_orphan(const char *run_dir, const char *file, enum msg_type type, const void *record, int timeout_ms,
		    uint64_t *ret_value)
{
	_cleanup_free_ char *path = xasprintf("%s/roles/%s.sock", run_dir, file);
	static uint8_t space[MSG_MAX];
	_Alignas(16) char answer[MSG_RECORD_MAX];
	const struct msg_info *info;
	_cleanup_close_ int fd = -1;
	int fds[MSG_MAX_FDS], r;
	size_t nfds = 0;
	uint32_t txn;

	if ((r = ipc_connect(path, &fd)) < 0 || (r = ipc_send_blocking(fd, type, 1, record, NULL, 0)) < 0 ||
	    (r = ipc_recv_blocking(fd, timeout_ms, space, &info, &txn, answer, fds, &nfds)) < 0)
		return r;
	while (nfds > 0)
		close(fds[--nfds]);
	if (info->type != MSG_TYPE_msg_result)
		return -EPROTO;
	*ret_value = ((const struct msg_result *)(const void *)answer)->value;
	return (int)((const struct msg_result *)(const void *)answer)->code;
}
