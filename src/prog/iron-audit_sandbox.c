/* iron-audit opens files in the journal's directory and nothing else; it has one thread beside the loop, which waits for the
 * disk. */
#include <stddef.h>

#include "prog/sandboxes.h"

/* RLIMIT_DATA counts a sanitizer's shadow. */
#ifdef __SANITIZE_ADDRESS__
#define MEMORY_MIB 0
#else
#define MEMORY_MIB 1024
#endif

static const char *const syscalls[] = {
	"clone", "clone3", "fallocate", "fdatasync", "fsync", "ftruncate", "getdents64", "newfstatat", "openat", NULL,
};

const struct role_sandbox sandbox_audit = {
	.walls =
		{
			.role = "iron-audit",
			.syscalls = syscalls,
			.max_files = 8192, /* a channel for each workspace */
			.max_memory_mib = MEMORY_MIB,
		},
	.paths = {{"@state/audit", SANDBOX_READ | SANDBOX_WRITE | SANDBOX_CREATE}},
};
