/* iron-control opens the database and nothing else: no socket, no program, no other file. Segments of the journal reach it
 * as descriptors. */
#include <stddef.h>

#include "prog/sandboxes.h"

/* What SQLite does with its files: database, write-ahead log and its shared memory. */
static const char *const syscalls[] = {
	"access", "faccessat", "faccessat2", "fallocate", "fchmod", "fchown", "fdatasync", "fsync", "ftruncate", "getcwd",
	"lstat", "newfstatat", "open", "openat", "readlink", "readlinkat", "stat", "statx", "unlink", "unlinkat", NULL,
};

const struct role_sandbox sandbox_control = {
	.walls =
		{
			.role = "iron-control",
			.syscalls = syscalls,
			.max_files = 8192, /* a channel for each VM and each workspace */
			.max_memory_mib = 1024,
		},
	.paths = {{"@state/db", SANDBOX_READ | SANDBOX_WRITE | SANDBOX_CREATE}},
};
