#pragma once
/* The groups of VMs and roles: limits, death as a whole, and whether memory ran out. cgroups(7); Documentation/
 * admin-guide/cgroup-v1/{memory,freezer-subsystem}.rst and cgroup-v2.rst of the kernel.
 *
 * v2 where the unified hierarchy has the controllers memory, cpu and pids; else v1, one directory in each of memory,
 * cpu, pids and freezer, and in cpuacct where there is one. A group is `<mount>/<root>/<name>`. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct cgroup_host;
struct cgroup;

#define CGROUP_MAX_HIERARCHIES 5

/* cpu_weight: a VM's is its size; what serves all of them comes before any. */
enum { CGROUP_WEIGHT_VCPU = 100, CGROUP_WEIGHT_ROLE = 10000 };

struct cgroup_limits {
	uint64_t memory_bytes; /* 0: none; swap is not granted on top */
	uint32_t cpu_percent;  /* of one CPU: 200 is two of them; 0: none */
	uint32_t pids;         /* 0: none */
	/* Its share where CPUs are wanted by more than there are, against the other groups below root: 1 to 10000, 0 for the
	 * kernel's 100. v1's shares are in proportion. */
	uint32_t cpu_weight;
};

/* Finds the hierarchies by the mount table of this process and makes `root` (relative) in each. proc_mountinfo, or NULL
 * for /proc/self/mountinfo (tests). The reason says what is missing. */
int cgroup_host_create(const char *proc_mountinfo, const char *root, struct cgroup_host **ret, struct error *reterr);
void cgroup_host_destroy(struct cgroup_host *h);
/* Removes `root`, and the groups above it that were only there for it, as far as they are empty. */
void cgroup_host_remove(const struct cgroup_host *h);
int cgroup_version(const struct cgroup_host *h); /* 1 or 2 */

/* Kills what is in any group below root that is not to be kept (keep NULL: none is) and removes the group: what an earlier
 * irond left. Answers how many groups had processes. Waits for them to be gone, 5 s a group at most. */
int cgroup_sweep(struct cgroup_host *h, bool (*keep)(const char *name, void *user), void *user, unsigned *ret_killed,
		 struct error *reterr);

/* An empty group of that name; one that is there already is emptied (its processes killed) and taken. */
int cgroup_create(struct cgroup_host *h, const char *name, const struct cgroup_limits *limits, struct cgroup **ret,
		  struct error *reterr);
/* The same with what is in it left alone: for processes that outlive whoever made the group. */
int cgroup_take(struct cgroup_host *h, const char *name, const struct cgroup_limits *limits, struct cgroup **ret,
		struct error *reterr);
/* Kills what is in it and waits for that to be gone, 5 s at most. */
int cgroup_empty(struct cgroup *g);
bool cgroup_has(const struct cgroup *g, pid_t pid);
/* Forgets the group; the directories stay. */
void cgroup_destroy(struct cgroup *g);
/* Removes the directories of an empty group; -EBUSY while a process is in it. */
int cgroup_remove(struct cgroup *g);

/* Descriptors of cgroup.procs, one a hierarchy, valid until cgroup_destroy. A child that writes "0" to each is in. */
const int *cgroup_procs(const struct cgroup *g, size_t *ret_n);
/* SIGKILL to all of it, such that nothing it forks meanwhile escapes. Does not wait. */
int cgroup_kill(struct cgroup *g);
bool cgroup_is_empty(const struct cgroup *g);
/* Stops all of it where it stands, and answers when nothing of it runs any more: milliseconds; at most timeout_ms, after
 * which it is thawed and the answer is -ETIMEDOUT. Frozen, it can still be killed. */
int cgroup_freeze(struct cgroup *g, unsigned timeout_ms);
int cgroup_thaw(struct cgroup *g);
/* Nothing of it runs. */
bool cgroup_is_frozen(const struct cgroup *g);
/* Processes of the group that the kernel killed because its memory was used up. */
uint64_t cgroup_oom_kills(const struct cgroup *g);

struct cgroup_usage {
	uint64_t cpu_us;
	uint64_t memory_bytes, memory_peak_bytes; /* with the page cache of its files */
	uint64_t memory_limit_bytes;              /* 0: none */
};
/* Since the group was made; what the kernel does not tell is 0. */
void cgroup_usage(const struct cgroup *g, struct cgroup_usage *ret);
