#pragma once
/* What an irond leaves of a process that outlives it, so that the next one knows it again: a small file in run_dir, of
 * lines "key value". A pid alone is trusted by nobody: it counts with its start time and this boot of the host. */
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct run_record {
	pid_t pid;
	uint64_t start; /* proc_start_time; filled in by run_record_write */
	int64_t started_at;
	uint64_t id; /* a VM's or a workspace's, 0 */
	uint64_t generation;
	uint64_t config; /* mark of what a role was told */
};

/* dir/name, of a process that is there. */
int run_record_write(const char *dir, const char *name, struct run_record *r);
/* -ENOENT: no file; -EINVAL: not one of ours; -ESTALE: of an earlier boot. */
int run_record_read(const char *dir, const char *name, struct run_record *ret);
/* The process that the record means, by descriptor. -ESRCH: it is gone, whoever has its number now. */
int run_record_open(const struct run_record *r, int *ret_pidfd);

/* FNV-1a, 64 bits: tells one's own files and settings apart, not an attacker's. */
uint64_t run_mark(const void *data, size_t n);
/* Of a whole file. */
int run_mark_file(const char *path, uint64_t *ret);
