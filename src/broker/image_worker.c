#include "broker/image_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define STAGING 64 /* above every fixed number */
#define MAX_OUTPUT_BYTES ((size_t)64 << 10)
#define MAX_LINE_BYTES ((size_t)4096)

struct job {
	const struct image_worker *w;
	pid_t pid;
	int pidfd;
	int progress_fd, output_fd;
	struct buf line, output;
};

/* What apt and curl find their way out with, where a host needs that. */
static char **environment_make(const char *dir)
{
	static const char *const kept[] = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
					   "NO_PROXY", "SOURCE_DATE_EPOCH"};
	char **env = xcalloc(ARRAY_SIZE(kept) + 4, sizeof *env);
	size_t n = 0;

	env[n++] = xstrdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	env[n++] = xasprintf("HOME=%s", dir);
	env[n++] = xasprintf("TMPDIR=%s", dir);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (getenv(kept[i]))
			env[n++] = xasprintf("%s=%s", kept[i], getenv(kept[i]));
	return env;
}

/* Standard streams, progress on 3, what the job is given on 4 and 5. All are lifted first, so that none is overwritten
 * before it is used. */
static int descriptors_place(const struct image_worker *w, int progress, int output)
{
	const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	const int sources[] = {w->stdin_fd < 0 ? null : w->stdin_fd,
			       output < 0 ? w->log_fd : output,
			       w->log_fd,
			       progress,
			       w->fds[0],
			       w->fds[1]};
	int lifted[ARRAY_SIZE(sources)];

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		lifted[i] = sources[i] < 0 ? -1 : fcntl(sources[i], F_DUPFD_CLOEXEC, STAGING);
		if (sources[i] >= 0 && lifted[i] < 0)
			return -errno;
	}
	for (int i = 0; i < (int)ARRAY_SIZE(sources); i++) {
		close(i);
		if (lifted[i] >= 0 && dup2(lifted[i], i) < 0)
			return -errno;
	}
	return close_range(ARRAY_SIZE(sources), ~0U, 0) < 0 ? -errno : 0;
}

static char **arguments_make(const struct image_worker *w)
{
	size_t n = 0;

	while (w->words[n])
		n++;
	char **argv = xcalloc(n + 6, sizeof *argv);
	argv[0] = xstrdup(w->program);
	argv[1] = xstrdup("--uid");
	argv[2] = xasprintf("%u", w->uid);
	argv[3] = xstrdup("--gid");
	argv[4] = xasprintf("%u", w->gid);
	for (size_t i = 0; i < n; i++)
		argv[5 + i] = xstrdup(w->words[i]);
	return argv;
}

static _Noreturn void child_run(const struct image_worker *w, int progress, int output)
{
	_cleanup_free_ char *program = xasprintf("%s/%s", w->libexec, w->program);
	char **env = environment_make(w->dir), **argv = arguments_make(w);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	/* newuidmap names processes by the pids of this namespace: it needs the /proc that shows those. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 || chdir(w->dir) < 0)
		_exit(125);
	if (descriptors_place(w, progress, output) < 0)
		_exit(125);
	execve(program, argv, env);
	dprintf(STDERR_FILENO, "%s: %s\n", program, strerror(errno));
	_exit(127);
}

static pid_t child_clone(int *ret_pidfd)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID,
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
	};
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static int job_start(struct job *j, bool captured, struct error *reterr)
{
	int progress[2], output[2] = {-1, -1};

	if (pipe2(progress, O_CLOEXEC) < 0)
		return error_set(reterr, -errno, "pipe: %s", strerror(errno));
	if (captured && pipe2(output, O_CLOEXEC) < 0) {
		close(progress[0]);
		close(progress[1]);
		return error_set(reterr, -errno, "pipe: %s", strerror(errno));
	}
	j->progress_fd = progress[0];
	j->output_fd = output[0];
	j->pid = child_clone(&j->pidfd);
	if (j->pid == 0)
		child_run(j->w, progress[1], output[1]);
	int r = j->pid < 0 ? error_set(reterr, -errno, "clone: %s", strerror(errno)) : 0;
	close(progress[1]);
	closep(&output[1]);
	return r;
}

static void lines_deliver(struct job *j, void (*on_line)(struct str, void *), void *user)
{
	struct str rest = buf_str(&j->line);
	ptrdiff_t end;

	while ((end = str_chr(rest, '\n')) >= 0) {
		on_line(str_make(rest.p, (size_t)end), user);
		rest = str_make(rest.p + end + 1, rest.len - (size_t)end - 1);
	}
	buf_consume(&j->line, j->line.len - rest.len);
	if (j->line.len >= MAX_LINE_BYTES)
		buf_clear(&j->line);
}

/* Closes *fd at its end. */
static void drain(int *fd, struct buf *into)
{
	char space[4096];
	ssize_t n = read(*fd, space, sizeof space);

	if (n > 0) {
		buf_append(into, space, (size_t)n);
		return;
	}
	if (n < 0 && errno == EINTR)
		return;
	close(*fd);
	*fd = -1;
}

static int job_wait(struct job *j, void (*on_line)(struct str, void *), void *user, struct error *reterr)
{
	int status = 0;

	for (bool ended = false; !ended || j->progress_fd >= 0 || j->output_fd >= 0;) {
		struct pollfd p[] = {{.fd = j->progress_fd, .events = POLLIN},
				     {.fd = j->output_fd, .events = POLLIN},
				     {.fd = ended ? -1 : j->pidfd, .events = POLLIN},
				     {.fd = j->w->stop_fd, .events = POLLIN}};
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return error_set(reterr, -errno, "poll: %s", strerror(errno));
		if (p[3].revents)
			return error_set(reterr, -EINTR, "interrupted");
		if (p[0].revents)
			drain(&j->progress_fd, &j->line);
		if (p[1].revents)
			drain(&j->output_fd, &j->output);
		lines_deliver(j, on_line, user);
		ended = ended || p[2].revents;
	}
	while (waitpid(j->pid, &status, 0) < 0 && errno == EINTR)
		;
	j->pid = 0;
	if (status != 0 || j->output.failed)
		return error_set(reterr, -ECHILD, "the job failed");
	return 0;
}

/* The job is the first process of its pid namespace: its end is the end of all it started. */
static void job_finish(struct job *j)
{
	if (j->pid > 0) {
		kill(j->pid, SIGKILL);
		while (waitpid(j->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	closep(&j->pidfd);
	closep(&j->progress_fd);
	closep(&j->output_fd);
	buf_finish(&j->line);
	buf_finish(&j->output);
}

int image_worker_run(const struct image_worker *w, void (*on_line)(struct str line, void *user), void *user,
		     struct buf *ret_output, struct error *reterr)
{
	_cleanup_(job_finish) struct job j = {.w = w,
					      .pidfd = -1,
					      .progress_fd = -1,
					      .output_fd = -1,
					      .line = BUF_MAX(2 * MAX_LINE_BYTES),
					      .output = BUF_MAX(MAX_OUTPUT_BYTES)};
	int r = job_start(&j, ret_output != NULL, reterr);

	if (r == 0)
		r = job_wait(&j, on_line, user, reterr);
	if (r == 0 && ret_output) {
		buf_finish(ret_output);
		*ret_output = j.output;
		j.output = (struct buf){0};
	}
	return r;
}
