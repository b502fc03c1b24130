/* iron-vm holds connected sockets and makes pairs of them; it opens nothing and connects to nothing. */
#include "prog/sandboxes.h"

const struct role_sandbox sandbox_vm = {
	.walls =
		{
			.role = "iron-vm",
			.families = SANDBOX_UNIX, /* socketpair: the streams' */
			.max_files = 1024,
			.max_memory_mib = 256, /* 256 streams of one window each way, and the rest */
		},
};
