/* iron-recipe is a client of the API: it opens no file, starts nothing and listens nowhere. Which address it connects to is its
 * job's word, not a wall: neither a filter nor Landlock can tell one from another on Debian 12's kernel. Names are not
 * resolved (the job's address is a literal), so that a socket of the host's cannot be connected to either. */
#include <stddef.h>

#include "prog/sandboxes.h"

const struct role_sandbox sandbox_recipe = {
	.walls =
		{
			.role = "iron-recipe",
			.syscalls = (const char *const[]){"connect", NULL},
			.families = SANDBOX_INET | SANDBOX_INET6 | SANDBOX_PAIR, /* libcurl wakes itself by a pair */
			.max_files = 64,
			.max_memory_mib = 512,
		},
};
