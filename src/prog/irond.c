/* irond: the privileged parent, and the operator's commands to it. Starting, in the background: the command forks twice,
 * hears from the daemon through a pipe how far it is, and ends when every role has answered or one reason why not. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/broker_conf.h"
#include "broker/ctl.h"
#include "model/scope.h"
#include "os/fdutil.h"

struct command_line {
	const char *conf, *libexec, *scopes, *expires;
	bool foreground, force;
	char **words;
	int n;
};

static const char usage[] =
	"irond runs iron's VMs and its API on this host.\n"
	"\n"
	"  irond start              start in the background; ends when everything answers\n"
	"  irond --foreground       the same in this process, logging to stderr\n"
	"  irond stop               end the VMs, then iron\n"
	"  irond status             what runs; exit status 3 when nothing does\n"
	"  irond reload             read iron.yaml, the certificate and the images again\n"
	"  irond image build NAME [--force]\n"
	"                           make the image `base` or `mini`, unless there is one of the same inputs\n"
	"  irond key create NAME [--scopes S,S] [--expires TIME]\n"
	"                           make an API key of the default workspace and print it\n"
	"\n"
	"  -c, --config FILE        instead of " CONF_DEFAULT_PATH "\n"
	"      --libexec DIR        where the roles' programs are\n";

static int complain(const struct error *e)
{
	fprintf(stderr, "irond: %s\n", e->text);
	return 1;
}

static int need_root(void)
{
	if (geteuid() == 0)
		return 0;
	fputs("irond: must be run as root: sudo irond …\n", stderr);
	return 1;
}

static char *socket_path(const struct conf *c)
{
	return xasprintf("%s/irond.sock", c->run_dir);
}

static void print_line(const char *line, void *user)
{
	puts(line);
	fflush(stdout);
}

/* --- the daemon --- */

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

static int cmd_start(const struct command_line *cl, struct conf *conf)
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

/* --- commands to a running one --- */

static int request(const struct conf *conf, const char *const *words, struct error *e)
{
	_cleanup_free_ char *path = socket_path(conf);

	return ctl_request(path, words, print_line, NULL, e);
}

static bool nobody_runs(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED;
}

static int not_running(void)
{
	fputs("irond: it does not run; start it: irond start\n", stderr);
	return 1;
}

/* The lock on the pid file goes with the process: only then is everything of it gone. */
static int wait_for_end(const struct conf *conf)
{
	_cleanup_free_ char *path = xasprintf("%s/irond.pid", conf->run_dir);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t end = mono_ms() + 10000;

	while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (mono_ms() > end) {
			fputs("irond: it has not ended yet; irond's log says what it waits for\n", stderr);
			return 1;
		}
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return 0;
}

static int cmd_stop(const struct conf *conf)
{
	const char *words[] = {"stop", NULL};
	struct error e = {0};
	int r = request(conf, words, &e);

	if (nobody_runs(r)) {
		puts("irond does not run");
		return 0;
	}
	if (r < 0 && r != -EPIPE)
		return complain(&e);
	return wait_for_end(conf);
}

static int cmd_status(const struct conf *conf)
{
	const char *words[] = {"status", NULL};
	struct error e = {0};
	int r = request(conf, words, &e);

	if (nobody_runs(r)) {
		puts("irond does not run; start it: irond start");
		return 3;
	}
	return r < 0 ? complain(&e) : 0;
}

static int cmd_reload(const struct conf *conf)
{
	const char *words[] = {"reload", NULL};
	struct error e = {0};
	int r = request(conf, words, &e);

	return nobody_runs(r) ? not_running() : r < 0 ? complain(&e) : 0;
}

static int cmd_image(const struct command_line *cl, const struct conf *conf)
{
	const char *words[] = {"rescan", NULL};
	struct error e = {0};
	int r;

	if (cl->n != 3 || strcmp(cl->words[1], "build") != 0) {
		fputs(usage, stderr);
		return 2;
	}
	log_init("irond", LOG_LEVEL_WARN);
	if (image_build(conf, cl->libexec, cl->words[2], cl->force, &e) < 0)
		return complain(&e);
	r = request(conf, words, &e);
	return r < 0 && !nobody_runs(r) ? complain(&e) : 0;
}

static int parse_scopes(const char *text, uint32_t *ret)
{
	struct str rest = str_of(text), word;
	uint32_t bits = 0;

	while (text && str_split(&rest, ',', &word)) {
		uint32_t bit = scope_parse(word);
		if (bit == 0) {
			fprintf(stderr, "irond: there is no scope '%.*s'\n", STR_ARG(word));
			return -EINVAL;
		}
		bits |= bit;
	}
	*ret = bits;
	return 0;
}

static int cmd_key(const struct command_line *cl, const struct conf *conf)
{
	char scopes[12], expires[24];
	const char *words[] = {"key", NULL, scopes, expires, NULL};
	struct error e = {0};
	uint32_t bits = 0;
	int64_t at = 0;

	if (cl->n != 3 || strcmp(cl->words[1], "create") != 0 || strpbrk(cl->words[2], "\t\n")) {
		fputs(usage, stderr);
		return 2;
	}
	if (parse_scopes(cl->scopes, &bits) < 0)
		return 2;
	if (cl->expires && (rfc3339_parse(str_of(cl->expires), &at) < 0 || at <= 0)) {
		fputs("irond: --expires takes a time like 2027-01-31T00:00:00Z\n", stderr);
		return 2;
	}
	words[1] = cl->words[2];
	snprintf(scopes, sizeof scopes, "%u", bits);
	snprintf(expires, sizeof expires, "%ld", at);
	int r = request(conf, words, &e);
	return nobody_runs(r) ? not_running() : r < 0 ? complain(&e) : 0;
}

/* --- the command line --- */

static int parse(int argc, char **argv, struct command_line *ret)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},  {"libexec", required_argument, NULL, 'L'},
		{"scopes", required_argument, NULL, 's'},  {"expires", required_argument, NULL, 'e'},
		{"foreground", no_argument, NULL, 'f'},    {"force", no_argument, NULL, 'F'},         {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},       {NULL, 0, NULL, 0},
	};
	struct command_line cl = {.conf = CONF_DEFAULT_PATH, .libexec = IRON_LIBEXEC};
	int c;

	while ((c = getopt_long(argc, argv, "c:fh", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			cl.conf = optarg;
			break;
		case 'L':
			cl.libexec = optarg;
			break;
		case 's':
			cl.scopes = optarg;
			break;
		case 'e':
			cl.expires = optarg;
			break;
		case 'f':
			cl.foreground = true;
			break;
		case 'F':
			cl.force = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case 'V':
			puts("irond " IRON_VERSION);
			exit(0);
		default:
			return -EINVAL;
		}
	}
	cl.words = argv + optind;
	cl.n = argc - optind;
	*ret = cl;
	return (cl.n == 0) == cl.foreground ? 0 : -EINVAL;
}

static int run_command(const struct command_line *cl, struct conf *conf)
{
	const char *word = cl->n > 0 ? cl->words[0] : "";

	if (strcmp(word, "stop") == 0)
		return cmd_stop(conf);
	if (strcmp(word, "status") == 0)
		return cmd_status(conf);
	if (strcmp(word, "reload") == 0)
		return cmd_reload(conf);
	if (strcmp(word, "image") == 0)
		return cmd_image(cl, conf);
	if (strcmp(word, "key") == 0)
		return cmd_key(cl, conf);
	fputs(usage, stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct command_line cl;
	struct conf *conf;
	struct error e = {0};
	int r;

	if (parse(argc, argv, &cl) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	if (need_root() != 0)
		return 1;
	if (conf_load(cl.conf, &conf, &e) < 0)
		return complain(&e);
	if (cl.foreground)
		return run_daemon(&cl, conf, &(struct starter){.fd = -1});
	if (strcmp(cl.words[0], "start") == 0)
		return cmd_start(&cl, conf);
	r = run_command(&cl, conf);
	conf_destroy(conf);
	return r;
}
