#pragma once
/* Between cgroup.c and cgroup_usage.c. */
#include "base/buf.h"
#include "broker/cgroup.h"

/* The last is not asked for: without it, v1 does not tell CPU time. */
enum controller { MEMORY, CPU, PIDS, FREEZER, CPUACCT, CONTROLLERS };

struct cgroup_host {
	int version;
	bool has_cpuacct; /* v1 */
	/* Distinct mount points with root appended; v2: one. of[c] is the index of controller c's. */
	char *dirs[CGROUP_MAX_HIERARCHIES];
	size_t n;
	size_t of[CONTROLLERS];
	size_t depth; /* parts of root */
};

struct cgroup {
	const struct cgroup_host *host;
	char *dirs[CGROUP_MAX_HIERARCHIES];
	int procs[CGROUP_MAX_HIERARCHIES];
};

const char *cgroup_dir(const struct cgroup *g, enum controller c);
int cgroup_read(const char *dir, const char *file, struct buf *out);
