/* Starting in the background: the command forks twice, hears from the daemon through a pipe how far it is, and ends
 * when every role has answered or with the one reason why not. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/broker_conf.h"
#include "os/fdutil.h"
#include "prog/irond.h"

/* fd: the pipe to `irond start`, or -1. */
struct starter {
	int fd;
};

static void tell(const struct starter *s, const char *kind, const char *text)
{
	if (s->fd >= 0)
		dprintf(s->fd, "%s %s\n", kind, text);
}

static void on_progress(const char *line, void *user)
{
	log_info(line, NULL);
	tell(user, "text", line);
}

static void on_ready(void *user)
{
	struct starter *s = user;

	log_info("ready", NULL);
	tell(s, "ok", "");
	if (s->fd >= 0)
		close(take_fd(s->fd));
}

static int run_daemon(const struct command_line *cl, struct conf *conf, struct starter *s)
{
	const struct broker_options options = {
		.conf_path = cl->conf, .libexec = cl->libexec, .progress = on_progress, .user = s};
	struct broker *b = NULL;
	struct error e = {0};
	int r;

	log_init("irond", conf_log_level(conf));
	umask(022);
	setgroups(0, NULL);
	r = broker_create(&options, conf, &b, &e);
	if (r == 0)
		r = broker_run(b, on_ready, s, &e);
	broker_destroy(b);
	if (r < 0) {
		log_error("irond ends", "reason=%s", log_quote(e.text));
		tell(s, "fail", e.text);
	}
	return r < 0 ? 1 : 0;
}

static int open_log(const struct conf *conf, struct error *reterr)
{
	_cleanup_free_ char *dir = xasprintf("%s/log", conf->state_dir);
	_cleanup_free_ char *path = xasprintf("%s/irond.log", dir);
	int r = dir_make_parents(dir);
	int fd = r < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);

	return fd < 0 ? error_set(reterr, r < 0 ? r : -errno, "%s: %s", path, strerror(r < 0 ? -r : errno)) : fd;
}

/* The grandchild: a session of its own, nothing of the terminal's. */
static void daemonize(const struct command_line *cl, struct conf *conf, int log, int pipe_fd)
{
	_cleanup_close_ int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct starter s = {.fd = pipe_fd};
	pid_t pid;

	setsid();
	pid = fork();
	if (pid != 0)
		_exit(pid < 0 ? 1 : 0);
	if (null_fd < 0 || chdir("/") < 0 || dup2(null_fd, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(1);
	close(log);
	_exit(run_daemon(cl, conf, &s));
}

/* Prints what the daemon says until "ok" or "fail". */
static int follow_start(int fd)
{
	_cleanup_fclose_ FILE *f = fdopen(fd, "r");
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while (f && (n = getline(&line, &size, f)) > 0) {
		line[n - 1] = '\0';
		if (strncmp(line, "ok ", 3) == 0) {
			puts("iron is up");
			return 0;
		}
		if (strncmp(line, "fail ", 5) == 0) {
			fprintf(stderr, "irond: %s\n", line + 5);
			return 1;
		}
		print_line(line + 5, NULL);
	}
	fputs("irond: ended while it started\n", stderr);
	return 1;
}

int daemon_start(const struct command_line *cl, struct conf *conf)
{
	_cleanup_free_ char *state_dir = xstrdup(conf->state_dir);
	struct error e = {0};
	int fds[2], status, r, log;
	pid_t pid;

	if ((log = open_log(conf, &e)) < 0) {
		conf_destroy(conf);
		return complain(&e);
	}
	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		fprintf(stderr, "irond: %s\n", strerror(errno));
		return 1;
	}
	if (pid == 0) {
		close(fds[0]);
		daemonize(cl, conf, log, fds[1]);
	}
	close(fds[1]);
	close(log);
	conf_destroy(conf);
	waitpid(pid, &status, 0);
	r = follow_start(fds[0]);
	if (r != 0)
		fprintf(stderr, "irond: the log is %s/log/irond.log\n", state_dir);
	return r;
}

int daemon_foreground(const struct command_line *cl, struct conf *conf)
{
	return run_daemon(cl, conf, &(struct starter){.fd = -1});
}
