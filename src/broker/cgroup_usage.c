#include <errno.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "broker/cgroup_impl.h"

/* "name 123" among the lines of a file; an empty name: the first line is the number. "max" is no number. */
static bool find_number(const char *dir, const char *file, const char *name, uint64_t *ret)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line, word;

	if (cgroup_read(dir, file, &b) < 0)
		return false;
	text = buf_str(&b);
	while (str_split(&text, '\n', &line)) {
		if (name[0] && !(str_split(&line, ' ', &word) && str_eq(word, str_of(name))))
			continue;
		return str_parse_u64(line, UINT64_MAX, ret) == 0;
	}
	return false;
}

uint64_t cgroup_oom_kills(const struct cgroup *g)
{
	uint64_t n = 0;

	find_number(cgroup_dir(g, MEMORY), g->host->version == 2 ? "memory.events" : "memory.oom_control", "oom_kill", &n);
	return n;
}

static void usage_v2(const char *dir, struct cgroup_usage *u)
{
	find_number(dir, "cpu.stat", "usage_usec", &u->cpu_us);
	find_number(dir, "memory.current", "", &u->memory_bytes);
	find_number(dir, "memory.peak", "", &u->memory_peak_bytes); /* since Linux 5.19 */
	find_number(dir, "memory.max", "", &u->memory_limit_bytes);
}

static void usage_v1(const struct cgroup *g, struct cgroup_usage *u)
{
	const char *memory = cgroup_dir(g, MEMORY);
	uint64_t ns = 0;

	if (g->host->has_cpuacct)
		find_number(cgroup_dir(g, CPUACCT), "cpuacct.usage", "", &ns);
	u->cpu_us = ns / 1000;
	find_number(memory, "memory.usage_in_bytes", "", &u->memory_bytes);
	find_number(memory, "memory.max_usage_in_bytes", "", &u->memory_peak_bytes);
	find_number(memory, "memory.limit_in_bytes", "", &u->memory_limit_bytes);
}

void cgroup_usage(const struct cgroup *g, struct cgroup_usage *ret)
{
	struct cgroup_usage u = {0};

	if (g->host->version == 2)
		usage_v2(g->dirs[0], &u);
	else
		usage_v1(g, &u);
	if (u.memory_peak_bytes < u.memory_bytes)
		u.memory_peak_bytes = u.memory_bytes;
	*ret = u;
}
