#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

#include "agent/become.h"
#include "agent/environ.h"
#include "agent/file.h"
#include "base/log.h"

#define TTY_GROUP 5 /* Debian's */
#define SHELL_FALLBACK "/bin/sh"

struct ends {
	int in, out, err, report; /* the child's */
};

static void ends_close(const struct ends *e)
{
	closep(&e->in);
	if (e->out != e->in)
		closep(&e->out);
	if (e->err != e->in)
		closep(&e->err);
	closep(&e->report);
}

static void spawned_close(const struct spawned *s)
{
	closep(&s->in);
	closep(&s->out);
	closep(&s->err);
	closep(&s->report);
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

/* A pipe of which only our end does not block: the child's program expects its own to. */
static int make_pipe(int *ret_ours, int *ret_theirs, bool we_read)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	*ret_ours = fds[we_read ? 0 : 1];
	*ret_theirs = fds[we_read ? 1 : 0];
	return set_nonblocking(*ret_ours);
}

static int make_pipes(struct spawned *s, struct ends *e)
{
	int r = make_pipe(&s->in, &e->in, false);
	if (r == 0)
		r = make_pipe(&s->out, &e->out, true);
	if (r == 0)
		r = make_pipe(&s->err, &e->err, true);
	return r;
}

static int make_pty(const struct stream_exec *x, struct spawned *s, struct ends *e)
{
	struct winsize size = {.ws_row = x->rows ? x->rows : 24, .ws_col = x->cols ? x->cols : 80};

	s->out = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (s->out < 0)
		return -errno;
	s->in = fcntl(s->out, F_DUPFD_CLOEXEC, 3);
	int unlock = 0;
	if (s->in < 0 || ioctl(s->out, TIOCSPTLCK, &unlock) || ioctl(s->out, TIOCSWINSZ, &size))
		return -errno;
	e->in = ioctl(s->out, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	e->out = e->err = e->in;
	return e->in < 0 ? -errno : 0;
}

/* --- in the child --- */

__attribute__((noreturn, format(printf, 3, 4))) static void fail(int report, const char *code, const char *fmt, ...)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	struct stream_error e = {.code = str_of(code), .message = str_of(message)};
	if (wire_encode(&stream_error_wire, &e, &b) == 0 && write(report, b.data, b.len) < 0)
		_exit(126);
	_exit(127);
}

static void take_terminal(const struct user *u, int fd, int report)
{
	if (ioctl(fd, TIOCSCTTY, 0))
		fail(report, "exec_failed", "cannot take the terminal: %s", strerror(errno));
	if (geteuid() == 0 && (fchown(fd, u->uid, TTY_GROUP) || fchmod(fd, 0620)))
		fail(report, "exec_failed", "cannot hand over the terminal: %s", strerror(errno));
}

static void read_environment(const char *path, struct environ *e)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(ENVIRON_MAX);

	if (file_read(path, &text) == 0)
		environ_parse(e, buf_str(&text));
}

static void make_environment(const struct stream_exec *x, const struct user *u, struct environ *e, int report)
{
	struct str list = x->environment, item;

	environ_set_login(e, u);
	read_environment(ENVIRON_SYSTEM, e);
	read_environment(ENVIRON_IRON, e);
	if (x->tty)
		environ_set(e, STR("TERM=xterm-256color"));
	while (wire_list_next(&list, &item))
		if (environ_set(e, item))
			fail(report, "bad_request", "an environment entry is not NAME=VALUE");
}

static char *text_or_fail(struct str s, const char *what, int report)
{
	if (s.len && memchr(s.p, '\0', s.len))
		fail(report, "bad_request", "%s holds a NUL", what);
	return str_dup(s);
}

static void enter_directory(const struct stream_exec *x, const struct user *u, int report)
{
	if (x->cwd.len == 0) {
		if (chdir(u->home) && chdir("/"))
			fail(report, "no_such_directory", "/: %s", strerror(errno));
		return;
	}
	_cleanup_free_ char *cwd = text_or_fail(x->cwd, "the directory", report);
	if (chdir(cwd))
		fail(report, "no_such_directory", "%s: %s", cwd, strerror(errno));
}

/* execvp(3)'s search, in the PATH that the program will have. Returns the errno that is worth telling. */
static int exec_by_path(char **argv, char **env, const char *path)
{
	struct str rest = str_of(path ? path : "/usr/bin:/bin"), dir;
	int worst = ENOENT;

	if (strchr(argv[0], '/')) {
		execve(argv[0], argv, env);
		return errno;
	}
	while (str_split(&rest, ':', &dir)) {
		_cleanup_free_ char *file = dir.len ? xasprintf("%.*s/%s", STR_ARG(dir), argv[0]) : xstrdup(argv[0]);
		execve(file, argv, env);
		if (errno == E2BIG || errno == ENOMEM)
			return errno;
		if (errno != ENOENT && errno != ENOTDIR)
			worst = errno;
	}
	return worst;
}

__attribute__((noreturn)) static void run(const struct stream_exec *x, const struct user *u, struct environ *e,
					  int report)
{
	VEC(char *) argv = {0};
	struct str list = x->argv, item;

	if (x->command.len) {
		VEC_PUSH(&argv, xstrdup(u->shell));
		VEC_PUSH(&argv, xstrdup("-c"));
		VEC_PUSH(&argv, text_or_fail(x->command, "the command", report));
	}
	while (x->command.len == 0 && wire_list_next(&list, &item))
		VEC_PUSH(&argv, text_or_fail(item, "an argument", report));
	if (argv.n == 0 || argv.v[0][0] == '\0')
		fail(report, "bad_request", "there is nothing to run");
	VEC_PUSH(&argv, NULL);
	int code = exec_by_path(argv.v, environ_array(e), environ_get(e, "PATH"));
	fail(report, "exec_failed", "%s: %s", argv.v[0], strerror(code));
}

__attribute__((noreturn)) static void child(const struct stream_exec *x, const struct spawn_options *o,
					    const struct ends *ends)
{
	struct environ e = {0};
	struct str name = x->user.len ? x->user : str_of(o->default_user);
	struct user u;

	int r = become_child(o->cgroup);
	if (r)
		fail(ends->report, "exec_failed", "cannot enter the control group of user processes: %s", strerror(-r));
	if (user_find(name, &u))
		fail(ends->report, "no_such_user", "there is no user %.*s in this machine", STR_ARG(name));
	if (x->tty)
		take_terminal(&u, ends->in, ends->report);
	if (dup2(ends->in, 0) < 0 || dup2(ends->out, 1) < 0 || dup2(ends->err, 2) < 0)
		fail(ends->report, "exec_failed", "cannot set up input and output: %s", strerror(errno));
	r = become_user(&u);
	if (r)
		fail(ends->report, "exec_failed", "cannot become user %s: %s", u.name, strerror(-r));
	make_environment(x, &u, &e, ends->report);
	enter_directory(x, &u, ends->report);
	run(x, &u, &e, ends->report);
}

int spawn(const struct stream_exec *x, const struct spawn_options *o, struct spawned *ret)
{
	struct spawned s = {.in = -1, .out = -1, .err = -1, .report = -1};
	struct ends e = {.in = -1, .out = -1, .err = -1, .report = -1};

	int r = make_pipe(&s.report, &e.report, true);
	if (r == 0)
		r = x->tty ? make_pty(x, &s, &e) : make_pipes(&s, &e);
	if (r == 0) {
		s.pid = fork();
		if (s.pid == 0)
			child(x, o, &e);
		r = s.pid < 0 ? -errno : 0;
	}
	ends_close(&e);
	if (r) {
		spawned_close(&s);
		return r;
	}
	*ret = s;
	return 0;
}
