/* `iron-worker flatten` reads one descriptor and writes another. QEMU, which a guest may have taken, wrote the first. */
#include <stddef.h>

#include "prog/sandboxes.h"

const struct role_sandbox sandbox_flatten = {
	.walls =
		{
			.role = "iron-worker flatten",
			.syscalls = (const char *const[]){"fallocate", "ftruncate", NULL},
			.max_files = 16,
			.max_memory_mib = 64,
		},
};
