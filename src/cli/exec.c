/* exec: a command in a VM, live. Standard streams are carried over a WebSocket; with -t the local terminal is raw, its
 * size follows, and Ctrl-C is a byte like any other; without it Ctrl-C is sent as the signal. The exit code is the
 * command's; 125 when it could not be run. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "cli/command.h"
#include "cli/ws.h"

#define CHUNK ((size_t)16 << 10)

static int signal_pipe[2] = {-1, -1};
static struct termios saved_terminal;
static bool terminal_is_raw;

static void on_signal(int number)
{
	int e = errno;
	unsigned char b = (unsigned char)number;
	(void)!write(signal_pipe[1], &b, 1);
	errno = e;
}

static void restore_terminal(void)
{
	if (terminal_is_raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_terminal);
	terminal_is_raw = false;
}

static int catch_signals(struct context *c, bool tty)
{
	static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK))
		return error_set(&c->error, -errno, "pipe: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		if (forwarded[i] != SIGWINCH || tty)
			sigaction(forwarded[i], &a, NULL);
	return 0;
}

static void make_terminal_raw(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &saved_terminal))
		return;
	raw = saved_terminal;
	cfmakeraw(&raw);
	atexit(restore_terminal);
	terminal_is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

static struct winsize window_size(void)
{
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	struct winsize real;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &real) == 0 && real.ws_row && real.ws_col)
		w = real;
	return w;
}

/* --- the request --- */

static int add_environment(struct context *c, json_t *body)
{
	json_t *env = json_object();
	const char *v;

	for (size_t i = 0; (v = args_nth(&c->args, "env", i)); i++) {
		const char *eq = strchr(v, '=');
		if (!eq || eq == v) {
			json_decref(env);
			return error_set(&c->error, -EINVAL, "-e must be NAME=VALUE, not '%s'", v);
		}
		_cleanup_free_ char *name = xstrndup(v, (size_t)(eq - v));
		json_object_set_new(env, name, json_string(eq + 1));
	}
	if (json_object_size(env))
		json_object_set(body, "env", env);
	json_decref(env);
	return 0;
}

static int exec_body(struct context *c, bool tty, json_t *body)
{
	json_t *argv = json_array();
	long timeout = 0;

	for (char *const *word = c->args.rest; *word; word++)
		if (json_array_append_new(argv, json_string(*word))) {
			json_decref(argv);
			return error_set(&c->error, -EINVAL, "a word of the command is not valid UTF-8");
		}
	json_object_set_new(body, "argv", argv);
	if (args_value(&c->args, "user"))
		json_object_set_new(body, "user", json_string(args_value(&c->args, "user")));
	if (args_value(&c->args, "workdir"))
		json_object_set_new(body, "cwd", json_string(args_value(&c->args, "workdir")));
	if (args_number(&c->args, "timeout", 1, 86400, &timeout, &c->error))
		return -EINVAL;
	if (timeout)
		json_object_set_new(body, "timeout_s", json_integer(timeout));
	if (tty) {
		struct winsize w = window_size();
		json_object_set_new(body, "tty", json_true());
		json_object_set_new(body, "rows", json_integer(w.ws_row));
		json_object_set_new(body, "cols", json_integer(w.ws_col));
		const char *term = getenv("TERM");
		if (term && *term) {
			json_t *env = json_object_get(body, "env");
			if (!env)
				json_object_set_new(body, "env", env = json_object());
			json_object_set_new(env, "TERM", json_string(term));
		}
	}
	return 0;
}

/* --- the conversation --- */

static int write_all(int fd, struct str s)
{
	while (s.len) {
		ssize_t n = write(fd, s.p, s.len);
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};
			poll(&p, 1, -1);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		s.p += n;
		s.len -= (size_t)n;
	}
	return 0;
}

static int send_stdin(struct ws *w, bool *open)
{
	char chunk[CHUNK];
	ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);

	if (n > 0)
		return ws_send(w, CHANNEL_STDIN, chunk, (size_t)n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	*open = false;
	return ws_send_control(w, json_pack("{s:s}", "type", "eof"));
}

static int send_signals(struct ws *w)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {{SIGINT, "INT"}, {SIGTERM, "TERM"}, {SIGHUP, "HUP"}, {SIGQUIT, "QUIT"}};
	unsigned char b;

	while (read(signal_pipe[0], &b, 1) == 1) {
		int r = 0;
		if (b == SIGWINCH) {
			struct winsize size = window_size();
			r = ws_send_control(w, json_pack("{s:s, s:i, s:i}", "type", "resize", "rows", size.ws_row, "cols", size.ws_col));
		}
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (names[i].number == b)
				r = ws_send_control(w, json_pack("{s:s, s:s}", "type", "signal", "signal", names[i].name));
		if (r)
			return r;
	}
	return 0;
}

/* >= 0: the command's exit code. -EAGAIN: go on. */
static int on_control(struct context *c, struct str text)
{
	json_t *m = json_loadb(text.p, text.len, JSON_REJECT_DUPLICATES, NULL);
	const char *type = get_string(m, "type");
	int code = -EAGAIN;

	if (strcmp(type, "exit") == 0) {
		code = (int)json_integer_value(json_object_get(m, "exit_code")) & 255;
		if (json_is_true(json_object_get(m, "timed_out")))
			error_set(&c->error, -ETIMEDOUT, "the command was ended at its time limit");
	} else if (strcmp(type, "error") == 0) {
		const char *message = get_string(m, "message");
		code = EXIT_EXEC_FAILED;
		error_set(&c->error, -EREMOTEIO, "%s", *message ? message : get_string(m, "code"));
	}
	json_decref(m);
	return code;
}

/* What has come; as on_control. */
static int receive(struct context *c, struct ws *w)
{
	enum channel channel;
	struct str data;
	int r;

	while ((r = ws_receive(w, &channel, &data, &c->error)) == 1) {
		if (channel == CHANNEL_CONTROL) {
			r = on_control(c, data);
			if (r != -EAGAIN)
				return r;
		} else if (write_all(channel == CHANNEL_STDERR ? STDERR_FILENO : STDOUT_FILENO, data)) {
			return 128 + SIGPIPE;
		}
	}
	if (r == 0)
		return -EAGAIN;
	error_set(&c->error, r, "the connection ended before the command did");
	return EXIT_EXEC_FAILED;
}

static int converse(struct context *c, struct ws *w, bool with_stdin)
{
	for (;;) {
		int code = receive(c, w);
		if (code != -EAGAIN)
			return code;
		bool full = ws_wants_write(w);
		struct pollfd p[] = {{.fd = ws_fd(w), .events = full ? POLLIN | POLLOUT : POLLIN},
				     {.fd = signal_pipe[0], .events = POLLIN},
				     {.fd = with_stdin && !full ? STDIN_FILENO : -1, .events = POLLIN}};
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return EXIT_EXEC_FAILED;
		int r = ws_flush(w);
		if (r == 0 && p[1].revents)
			r = send_signals(w);
		if (r == 0 && p[2].revents)
			r = send_stdin(w, &with_stdin);
		if (r) {
			/* what the other side said before it went is worth more than that it went */
			code = receive(c, w);
			return code == -EAGAIN ? EXIT_EXEC_FAILED : code;
		}
	}
}

static int run_exec(struct context *c)
{
	bool tty = args_has(&c->args, "tty");
	json_t *body = json_object();
	struct ws *w = NULL;
	char id[24];

	if (!c->args.rest || !*c->args.rest) {
		json_decref(body);
		error_set(&c->error, -EINVAL, "say what to run after `--`: iron exec VM -- COMMAND");
		return EXIT_USAGE;
	}
	if (tty && !isatty(STDIN_FILENO)) {
		json_decref(body);
		error_set(&c->error, -ENOTTY, "-t needs a terminal as standard input");
		return EXIT_USAGE;
	}
	int r = add_environment(c, body);
	if (r == 0)
		r = exec_body(c, tty, body);
	if (r == 0)
		r = resolve_vm(c, c->args.words[0], id);
	if (r == 0)
		r = catch_signals(c, tty);
	if (r == 0) {
		_cleanup_free_ char *path = xasprintf("/vms/%s/exec", id);
		r = ws_open(c->client, path, body, &w, &c->error);
	}
	json_decref(body);
	if (r)
		return EXIT_EXEC_FAILED;
	if (tty)
		make_terminal_raw();
	int code = converse(c, w, true);
	restore_terminal();
	ws_destroy(w);
	return code;
}

static const struct arg_option options[] = {{"tty", 't', false},    {"user", 'u', true}, {"workdir", 'w', true},
					    {"env", 'e', true}, {"timeout", 0, true}, {0}};

const struct command exec_commands[] = {
	{"exec", "VM -- COMMAND…", "run a command in a VM; its exit code is this one's",
	 "  -t, --tty           with a terminal\n"
	 "  -u, --user USER     as this user (agent)\n"
	 "  -w, --workdir DIR   in this directory\n"
	 "  -e, --env K=V       an environment variable; may be repeated\n"
	 "  --timeout S         end the command after this long\n\n"
	 "Exit code 125: the command could not be run.\n\n"
	 "Examples:\n  iron exec demo -- git --version\n  iron exec -t demo -- bash\n  tar c src | iron exec demo -- tar x -C /tmp\n",
	 options, 1, 1, true, run_exec},
	{0},
};
