/* iron-egress talks to the network and to descriptors that it was handed. It opens no file and starts nothing. Its
 * route socket was made before the filter: netlink is not among the families. */
#include <stddef.h>

#include "prog/sandboxes.h"

static const char *const syscalls[] = {"connect", "splice", "ftruncate", NULL};

#ifdef __SANITIZE_ADDRESS__
#define MEMORY_MIB 0 /* its shadow is counted as data */
#else
#define MEMORY_MIB 2048
#endif

const struct role_sandbox sandbox_egress = {
	.walls =
		{
			.role = "iron-egress",
			.syscalls = syscalls,
			.families = SANDBOX_INET | SANDBOX_INET6,
			.max_files = 16384, /* two a connection, and pipes while bytes are in them */
			.max_memory_mib = MEMORY_MIB,
		},
};
