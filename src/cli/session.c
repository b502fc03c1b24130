#include "cli/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "base/clock.h"
#include "cli/ws.h"

#define CHUNK ((size_t)16 << 10)
#define INTERRUPTS_TO_LEAVE 3
#define INTERRUPTS_WITHIN_MS 5000

static int signal_pipe[2] = {-1, -1};
static struct termios saved_terminal;
static bool terminal_is_raw;
static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT};
static struct sigaction before[ARRAY_SIZE(caught)];

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

static int catch_signals(struct context *c)
{
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	if (signal_pipe[0] < 0 && pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK))
		return error_set(&c->error, -errno, "pipe: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaction(caught[i], &a, &before[i]);
	return 0;
}

static void release_signals(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaction(caught[i], &before[i], NULL);
}

static struct winsize window_size(void)
{
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	struct winsize real;
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &real) == 0 && real.ws_row && real.ws_col)
		w = real;
	return w;
}

void session_add_terminal(json_t *body)
{
	struct winsize w = window_size();
	const char *term = getenv("TERM");

	json_object_set_new(body, "tty", json_true());
	json_object_set_new(body, "rows", json_integer(w.ws_row));
	json_object_set_new(body, "cols", json_integer(w.ws_col));
	if (!term || !*term)
		return;
	json_t *env = json_object_get(body, "env");
	if (!env)
		json_object_set_new(body, "env", env = json_object());
	if (!json_object_get(env, "TERM"))
		json_object_set_new(env, "TERM", json_string(term));
}

/* --- output --- */

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

static int deliver(struct session *s, enum channel channel, struct str data)
{
	struct buf *to = channel == CHANNEL_STDERR ? s->err : s->out;

	if (!to)
		return write_all(channel == CHANNEL_STDERR ? STDERR_FILENO : STDOUT_FILENO, data);
	if (buf_append_str(to, data)) {
		s->truncated = true;
		buf_append(to, data.p, to->max - MIN(to->max, to->len));
		to->failed = false;
	}
	return 0;
}

/* --- input --- */

struct conversation {
	struct context *c;
	struct session *s;
	struct ws *w;
	bool input, line_start, tilde;
	unsigned interrupts;
	uint64_t interrupted_ms;
};

/* Raw input without the escapes, as far as the person stayed; true when they left. */
static bool take_escapes(struct conversation *v, char *data, size_t *len)
{
	char out[2 * CHUNK];
	bool left = false;
	size_t n = 0;

	for (size_t i = 0; i < *len && !left; i++) {
		char b = data[i];
		if (v->line_start && !v->tilde && b == '~') {
			v->tilde = true;
			continue;
		}
		left = v->tilde && b == '.';
		if (v->tilde && !left && b != '~')
			out[n++] = '~';
		v->tilde = false;
		if (!left)
			out[n++] = b;
		v->line_start = b == '\r' || b == '\n';
	}
	*len = n;
	memcpy(data, out, n);
	return left;
}

static int send_stdin(struct conversation *v)
{
	char chunk[2 * CHUNK];
	ssize_t n = read(STDIN_FILENO, chunk, CHUNK);

	if (n > 0) {
		size_t len = (size_t)n;
		v->s->left = v->s->tty && take_escapes(v, chunk, &len);
		return len ? ws_send(v->w, CHANNEL_STDIN, chunk, len) : 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	v->input = false;
	return ws_send_control(v->w, json_pack("{s:s}", "type", "eof"));
}

/* Ctrl-C again and again: the command, or the way to it, does not hear. */
static void count_interrupt(struct conversation *v)
{
	uint64_t now = mono_ms();

	v->interrupts = now - v->interrupted_ms < INTERRUPTS_WITHIN_MS ? v->interrupts + 1 : 1;
	v->interrupted_ms = now;
	if (v->interrupts >= INTERRUPTS_TO_LEAVE)
		v->s->left = true;
	else if (v->interrupts == INTERRUPTS_TO_LEAVE - 1 && isatty(STDERR_FILENO))
		fprintf(stderr, "\riron: once more Ctrl-C hangs up\n");
}

static int send_signals(struct conversation *v)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {{SIGINT, "INT"}, {SIGTERM, "TERM"}, {SIGHUP, "HUP"}, {SIGQUIT, "QUIT"}};
	unsigned char b;

	while (read(signal_pipe[0], &b, 1) == 1) {
		int r = 0;
		if (b == SIGCONT && terminal_is_raw)
			make_terminal_raw();
		if (b == SIGWINCH && v->s->tty) {
			struct winsize size = window_size();
			r = ws_send_control(v->w, json_pack("{s:s, s:i, s:i}", "type", "resize", "rows", size.ws_row,
			                                    "cols", size.ws_col));
		}
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			if (names[i].number != b)
				continue;
			if (v->s->attached)
				v->s->left = true;
			else
				r = ws_send_control(v->w,
				                    json_pack("{s:s, s:s}", "type", "signal", "signal", names[i].name));
			if (b == SIGINT)
				count_interrupt(v);
		}
		if (r)
			return r;
	}
	return 0;
}

/* --- what the other side says --- */

/* >= 0: the command's exit code. -EAGAIN: go on. */
static int on_control(struct conversation *v, struct str text)
{
	json_t *m = json_loadb(text.p, text.len, JSON_REJECT_DUPLICATES, NULL);
	const char *type = get_string(m, "type");
	int code = -EAGAIN;

	if (strcmp(type, "exit") == 0) {
		code = (int)(get_integer(m, "exit_code") & 255);
		if (json_is_true(json_object_get(m, "timed_out"))) {
			v->s->timed_out = true;
			error_set(&v->c->error, -ETIMEDOUT, "the command was ended at its time limit");
			code = EXIT_TIMED_OUT;
		}
	} else if (strcmp(type, "error") == 0) {
		const char *message = get_string(m, "message");
		code = EXIT_EXEC_FAILED;
		error_set(&v->c->error, -EREMOTEIO, "%s", *message ? message : get_string(m, "code"));
	}
	json_decref(m);
	return code;
}

/* What has come; as on_control. */
static int receive(struct conversation *v)
{
	enum channel channel;
	struct str data;
	int r;

	while ((r = ws_receive(v->w, &channel, &data, &v->c->error)) == 1) {
		if (channel == CHANNEL_CONTROL) {
			r = on_control(v, data);
			if (r != -EAGAIN)
				return r;
		} else if (deliver(v->s, channel, data)) {
			return 128 + SIGPIPE;
		}
	}
	if (r == 0)
		return -EAGAIN;
	error_set(&v->c->error, r, "the connection ended before the command did");
	return EXIT_EXEC_FAILED;
}

static int converse(struct conversation *v)
{
	for (;;) {
		int code = receive(v);
		if (code != -EAGAIN)
			return code;
		bool full = ws_wants_write(v->w);
		struct pollfd p[] = {{.fd = ws_fd(v->w), .events = full ? POLLIN | POLLOUT : POLLIN},
		                     {.fd = signal_pipe[0], .events = POLLIN},
		                     {.fd = v->input && !full ? STDIN_FILENO : -1, .events = POLLIN}};
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return EXIT_EXEC_FAILED;
		int r = ws_flush(v->w);
		if (r == 0 && p[1].revents)
			r = send_signals(v);
		if (r == 0 && p[2].revents)
			r = send_stdin(v);
		if (v->s->left)
			return EXIT_INTERRUPTED;
		if (r) {
			/* what the other side said before it went is worth more than that it went */
			code = receive(v);
			return code == -EAGAIN ? EXIT_EXEC_FAILED : code;
		}
	}
}

int session_run(struct context *c, const char *path, const json_t *first, struct session *s)
{
	struct conversation v = {.c = c, .s = s, .input = s->input, .line_start = true};

	/* until it is open, Ctrl-C ends this program, and with the connection what was begun */
	if (ws_open(c->client, path, first, &v.w, &c->error) || catch_signals(c)) {
		ws_destroy(v.w);
		return EXIT_EXEC_FAILED;
	}
	if (s->tty)
		make_terminal_raw();
	int code = converse(&v);
	restore_terminal();
	ws_destroy(v.w);
	release_signals();
	return code;
}
