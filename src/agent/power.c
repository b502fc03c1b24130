#include "agent/power.h"

#include <signal.h>
#include <spawn.h>

#include "agent/file.h"
#include "base/log.h"

#define PROCS_MAX ((size_t)1 << 20)

/* Calls kill(2) for each process of the control group; how many there were. 0 too where there is no such group. */
static size_t signal_cgroup(const char *cgroup, int number)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(PROCS_MAX);
	_cleanup_free_ char *path = xasprintf("%s/cgroup.procs", cgroup ? cgroup : "");
	struct str rest, line;
	uint64_t pid;
	size_t n = 0;

	if (!cgroup || file_read(path, &text))
		return 0;
	rest = buf_str(&text);
	while (str_split(&rest, '\n', &line)) {
		if (str_parse_u64(line, INT32_MAX, &pid) || pid < 2)
			continue;
		n++;
		if (number)
			kill((pid_t)pid, number);
	}
	return n;
}

static void ask_init(void)
{
	char name[] = "systemctl", verb[] = "poweroff", path[] = "PATH=/usr/bin:/bin";
	char *argv[] = {name, verb, NULL}, *env[] = {path, NULL};
	pid_t pid;

	int r = posix_spawn(&pid, "/usr/bin/systemctl", NULL, NULL, argv, env);
	if (r)
		log_error("cannot power off", "error=%s", log_quote(strerror(r)));
}

void power_begin(struct power *p, struct exec_set *s, uint64_t now_ms)
{
	if (p->state != POWER_ON)
		return;
	p->state = POWER_ENDING;
	p->deadline_ms = now_ms + POWER_GRACE_MS;
	if (signal_cgroup(s->options.cgroup, SIGTERM) == 0)
		exec_signal(s, SIGTERM, false);
	exec_signal(s, SIGHUP, true);
}

void power_settle(struct power *p, struct exec_set *s, uint64_t now_ms)
{
	if (p->state != POWER_ENDING)
		return;
	size_t left = s->running + signal_cgroup(s->options.cgroup, 0);
	if (left && now_ms < p->deadline_ms)
		return;
	if (signal_cgroup(s->options.cgroup, SIGKILL) == 0)
		exec_signal(s, SIGKILL, false);
	p->state = POWER_OFF;
	ask_init();
}
