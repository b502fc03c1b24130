/* Theory of operation
 *
 * qemu_spawn makes the three listening sockets, then clones a child straight into new mount, pid, ipc, network and uts
 * namespaces. The child joins its cgroups, puts its descriptors on their fixed numbers and closes all others, builds its
 * root and enters it, gives up root and every capability, and execs QEMU. A close-on-exec pipe tells the parent: end of
 * file means that exec has happened, else a struct error says what failed. QEMU is the first process of its pid namespace,
 * so that nothing outlives it, and in a network namespace with nothing in it: the tap came from elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "broker/qemu_command.h"
#include "broker/qemu_root.h"
#include "broker/vmhost.h"

#define MAX_FILES 256
#define STAGING 64 /* above every fixed number */

struct sockets {
	int qmp, agent, console;
};

static int socket_listen(const char *dir, const char *name, int *ret_fd, struct error *reterr)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", dir, name);
	if (n < 0 || (size_t)n >= sizeof address.sun_path)
		return error_set(reterr, -ENAMETOOLONG, "%s/%s is too long for a socket's path: shorten run_dir", dir, name);

	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(reterr, -errno, "socket: %s", strerror(errno));
	unlink(address.sun_path);
	/* Before bind, so that there is no moment in which anyone but root could connect. */
	fchmod(fd, 0600);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4) < 0)
		return error_set(reterr, -errno, "%s: %s", address.sun_path, strerror(errno));
	*ret_fd = take_fd(fd);
	return 0;
}

static void sockets_close(struct sockets *s)
{
	closep(&s->qmp);
	closep(&s->agent);
	closep(&s->console);
}

static int sockets_open(const char *dir, struct sockets *ret, struct error *reterr)
{
	int r;

	if ((r = socket_listen(dir, "qmp.sock", &ret->qmp, reterr)) < 0 ||
	    (r = socket_listen(dir, "agent.sock", &ret->agent, reterr)) < 0)
		return r;
	return socket_listen(dir, "console.sock", &ret->console, reterr);
}

static int cgroups_join(const struct qemu_args *a, struct error *reterr)
{
	for (size_t i = 0; i < a->n_cgroup_procs; i++)
		if (write(a->cgroup_procs[i], "0", 1) != 1)
			return error_set(reterr, -errno, "joining the cgroup: %s", strerror(errno));
	return 0;
}

/* Standard streams, then the descriptors on their fixed numbers, the error pipe after them; all others are closed. All
 * sources are lifted first, so that none is overwritten before it is used. */
static int descriptors_place(const struct qemu_args *a, const struct sockets *s, int *error_pipe)
{
	const int sources[QEMU_FD_END + 1] = {
		-1,
		a->log_fd,
		a->log_fd,
		[QEMU_FD_QMP] = s->qmp,
		[QEMU_FD_AGENT] = s->agent,
		[QEMU_FD_CONSOLE] = s->console,
		[QEMU_FD_KERNEL] = a->image->kernel_fd,
		[QEMU_FD_INITRD] = a->image->initrd_fd,
		[QEMU_FD_TAP] = a->tap_fd,
		[QEMU_FD_OVERLAY] = a->overlay_fd,
		[QEMU_FD_BASE] = a->overlay_fd < 0 ? -1 : a->image->disk_fd,
		[QEMU_FD_END] = *error_pipe,
	};
	int lifted[ARRAY_SIZE(sources)];

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		lifted[i] = sources[i] < 0 ? -1 : fcntl(sources[i], F_DUPFD_CLOEXEC, STAGING);
		if (sources[i] >= 0 && lifted[i] < 0)
			return -errno;
	}
	for (int i = 0; i <= QEMU_FD_END; i++) {
		close(i);
		if (lifted[i] >= 0 && dup2(lifted[i], i) < 0)
			return -errno;
	}
	if (open("/dev/null", O_RDONLY) != 0)
		return -EIO;
	*error_pipe = QEMU_FD_END;
	if (fcntl(QEMU_FD_END, F_SETFD, FD_CLOEXEC) < 0 || close_range(QEMU_FD_END + 1, ~0U, 0) < 0)
		return -errno;
	return 0;
}

static int limits_set(void)
{
	static const struct {
		__rlimit_resource_t what;
		rlim_t value;
	} limits[] = {{RLIMIT_CORE, 0}, {RLIMIT_NOFILE, MAX_FILES}, {RLIMIT_MSGQUEUE, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct rlimit l = {limits[i].value, limits[i].value};
		if (setrlimit(limits[i].what, &l) < 0)
			return -errno;
	}
	return 0;
}

static int root_give_up(uid_t uid, gid_t gid)
{
	for (unsigned long cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
			return -errno;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

static void signals_reset(void)
{
	sigset_t none;

	for (int n = 1; n < NSIG; n++)
		signal(n, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int child_confine(const struct qemu_args *a, const struct qemu_root *root, const struct sockets *s, int *error_pipe,
			 struct error *reterr)
{
	int r;

	signals_reset();
	umask(022); /* what the root is made with; QEMU itself makes no file */
	if ((r = cgroups_join(a, reterr)) < 0)
		return r;
	if ((r = descriptors_place(a, s, error_pipe)) < 0)
		return error_set(reterr, r, "placing descriptors: %s", strerror(-r));
	if (setsid() < 0 || sethostname("qemu", 4) < 0)
		return error_set(reterr, -errno, "session: %s", strerror(errno));
	if ((r = qemu_root_enter(root, a->run_dir, a->kvm, a->uid, reterr)) < 0)
		return r;
	if ((r = limits_set()) < 0)
		return error_set(reterr, r, "resource limits: %s", strerror(-r));
	if ((r = root_give_up(a->uid, a->gid)) < 0)
		return error_set(reterr, r, "giving up root: %s", strerror(-r));
	return 0;
}

static _Noreturn void child_run(const struct qemu_args *a, const struct qemu_root *root, const struct sockets *s,
				int error_pipe, char *const *argv)
{
	static char *const environment[] = {"LC_ALL=C", NULL};
	struct error e = {0};

	if (child_confine(a, root, s, &error_pipe, &e) == 0) {
		execve(argv[0], argv, environment);
		error_set(&e, -errno, "exec: %s", strerror(errno));
	}
	ssize_t n = write(error_pipe, &e, sizeof e);
	_exit(n == sizeof e ? 126 : 127);
}

static pid_t child_clone(int *ret_pidfd)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS,
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
	};
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

/* What the child says before exec, or nothing. */
static int outcome_read(int fd, struct error *reterr)
{
	struct error e = {0};
	ssize_t n;

	while ((n = read(fd, &e, sizeof e)) < 0 && errno == EINTR)
		;
	if (n == 0)
		return 0;
	if (n != sizeof e)
		return error_set(reterr, -EIO, "starting QEMU: its process died before exec");
	return error_set(reterr, e.code, "starting QEMU: %s", e.text);
}

static int spawn(const struct qemu_args *a, const struct qemu_root *root, const struct sockets *s, char *const *argv,
		 struct qemu_process *ret, struct error *reterr)
{
	int fds[2], pidfd = -1;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set(reterr, -errno, "pipe: %s", strerror(errno));
	pid_t pid = child_clone(&pidfd);
	if (pid == 0)
		child_run(a, root, s, fds[1], argv);
	int r = pid < 0 ? error_set(reterr, -errno, "starting QEMU: clone: %s", strerror(errno)) : 0;
	close(fds[1]);
	if (r == 0)
		r = outcome_read(fds[0], reterr);
	close(fds[0]);
	if (r < 0 && pid > 0) {
		kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		close(pidfd);
	}
	if (r == 0)
		*ret = (struct qemu_process){.pid = pid, .pidfd = pidfd};
	return r;
}

/* What QEMU needs is listed once: a package upgrade while irond runs shows as an exec that fails, and listing anew. */
static struct qemu_root root_cache;

static int root_get(struct error *reterr)
{
	for (size_t i = 0; i < root_cache.files.n; i++)
		if (access(root_cache.files.v[i], R_OK) < 0)
			qemu_root_finish(&root_cache);
	return root_cache.files.n ? 0 : qemu_root_init(&root_cache, reterr);
}

int qemu_spawn(const struct qemu_args *args, struct qemu_process *ret, struct error *reterr)
{
	_cleanup_(sockets_close) struct sockets sockets = {-1, -1, -1};
	_cleanup_(qemu_argv_finish) qemu_argv argv = {0};
	int r;

	if ((r = root_get(reterr)) < 0 || (r = sockets_open(args->run_dir, &sockets, reterr)) < 0)
		return r;
	qemu_command_build(args, qemu_cpu_model(args->kvm), &argv);
	return spawn(args, &root_cache, &sockets, argv.v, ret, reterr);
}
