/* What an operator says to a running irond, over its control socket; and the building of images, which needs none. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/ctl.h"
#include "broker/orphans.h"
#include "model/scope.h"
#include "prog/irond.h"

#define REBUILD_DAYS 7

static char *socket_path(const struct conf *c)
{
	return xasprintf("%s/irond.sock", c->run_dir);
}

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

static int cmd_stop(const struct command_line *cl, const struct conf *conf)
{
	const char *words[] = {"stop", cl->vms ? "vms" : NULL, NULL};
	struct error e = {0};
	int r = request(conf, words, &e);

	if (nobody_runs(r) && !cl->vms) {
		unsigned n = orphans_count(conf);
		puts("irond does not run");
		if (n > 0)
			printf("%u VM%s on without it; irond stop --vms ends %s\n", n, n == 1 ? " runs" : "s run",
			       n == 1 ? "it" : "them");
		return 0;
	}
	if (nobody_runs(r))
		return orphans_end(conf, print_line, NULL, &e) < 0 ? complain(&e) : 0;
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
		unsigned n = orphans_count(conf);
		puts("irond does not run; start it: irond start");
		if (n > 0)
			printf("VMs running %u: they go on, and the next start takes them up again\n", n);
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

static int cmd_audit(const struct command_line *cl, const struct conf *conf)
{
	const char *words[] = {"reindex", NULL};
	struct error e = {0};

	if (cl->n != 2 || strcmp(cl->words[1], "reindex") != 0) {
		fputs(irond_usage, stderr);
		return 2;
	}
	int r = request(conf, words, &e);
	return nobody_runs(r) ? not_running() : r < 0 ? complain(&e) : 0;
}

static int ask(const struct conf *conf, const char *const *words, void (*print)(const char *line, void *user), void *user,
	       struct error *e)
{
	_cleanup_free_ char *path = socket_path(conf);

	return ctl_request(path, words, print, user, e);
}

static int days_of(const struct command_line *cl, unsigned *ret)
{
	uint64_t days = REBUILD_DAYS;

	if (cl->older_than && str_parse_u64(str_of(cl->older_than), 3650, &days) < 0) {
		fputs("irond: --older-than takes a number of days, 0 to 3650\n", stderr);
		return -EINVAL;
	}
	*ret = (unsigned)days;
	return 0;
}

static int cmd_image(const struct command_line *cl, const struct conf *conf)
{
	const struct image_builder by = {.conf = conf, .libexec = cl->libexec, .force = cl->force, .request = ask};
	const char *words[] = {"rescan", NULL};
	struct error e = {0}, no_rescan = {0};
	bool builds = cl->n == 3 && strcmp(cl->words[1], "build") == 0;
	unsigned days = 0;
	int r;

	if (!builds && !(cl->n == 2 && strcmp(cl->words[1], "rebuild") == 0)) {
		fputs(irond_usage, stderr);
		return 2;
	}
	if (days_of(cl, &days) < 0)
		return 2;
	log_init("irond", LOG_LEVEL_WARN);
	int made = builds ? image_build(&by, cl->words[2], &e) : image_rebuild(&by, days, &e);
	/* of several, some may have been made */
	r = made < 0 && builds ? 0 : request(conf, words, &no_rescan);
	if (made < 0)
		return complain(&e);
	return r < 0 && !nobody_runs(r) ? complain(&no_rescan) : 0;
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
	const char *words[] = {"key", NULL, scopes, expires, cl->workspace ? cl->workspace : "", NULL};
	struct error e = {0};
	uint32_t bits = 0;
	int64_t at = 0;

	if (cl->n != 3 || strcmp(cl->words[1], "create") != 0 || strpbrk(cl->words[2], "\t\n") ||
	    strpbrk(words[4], "\t\n")) {
		fputs(irond_usage, stderr);
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

int run_command(const struct command_line *cl, const struct conf *conf)
{
	const char *word = cl->n > 0 ? cl->words[0] : "";

	if (strcmp(word, "stop") == 0)
		return cmd_stop(cl, conf);
	if (strcmp(word, "status") == 0)
		return cmd_status(conf);
	if (strcmp(word, "reload") == 0)
		return cmd_reload(conf);
	if (strcmp(word, "image") == 0)
		return cmd_image(cl, conf);
	if (strcmp(word, "key") == 0)
		return cmd_key(cl, conf);
	if (strcmp(word, "audit") == 0)
		return cmd_audit(cl, conf);
	fputs(irond_usage, stderr);
	return 2;
}
