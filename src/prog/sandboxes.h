#pragma once
/* How a role starts, and the walls of each. (The image builder's are its own: see iron-worker.c. iron-recipe and
 * `iron-worker flatten` are no roles: they enter their constant of the same kind by sandbox_enter.)
 *
 * Convention. Role R's walls are one constant `const struct role_sandbox sandbox_R` in src/prog/iron-R_sandbox.c,
 * linked into iron-R and into tests/role_probe, which enters the very same walls and then tries what must not work. Its
 * main:
 *
 *	if (role_args_parse("iron-R", argc, argv, &args) < 0) return 2;
 *	role_config_receive(MSG_TYPE_msg_R_config, …)             // irond's first message
 *	… open what only root can open …                          // (nothing, for most)
 *	role_sandbox_enter(&sandbox_R, &args, NULL, &error)       // from here on unprivileged
 *	role_parent_create(base, rules, …)                        // msg_ping (a request, answered by msg_result),
 *	… msg_peer (a notice with one descriptor), msg_end, msg_adopt; see role_parent.h for when irond is gone.
 *
 * irond counts a role as started when it has answered its first msg_ping, sent right after the configuration. irond
 * runs it as `iron-R --uid N --gid N --state DIR --log LEVEL [--degraded] [--id ID]` with an empty environment (PATH and
 * LANG are set), stdin from /dev/null, stdout and stderr to the log, the channel as descriptor 3 and nothing else open but, in those that
 * outlive irond, the socket for the next one as descriptor 4. */
#include <stdint.h>
#include <sys/types.h>

#include "base/log.h"
#include "codec/msg.h"
#include "os/sandbox.h"

#define ROLE_CHANNEL_FD 3
#define ROLE_PATHS_MAX 16

struct role_sandbox {
	struct sandbox walls;
	/* NULL path: end. A path that begins with "@state" has it replaced by the state directory. The path is also
	 * what Landlock checks below a directory descriptor that was handed over (iron-audit). Libraries are loaded by then:
	 * name /usr/lib only where something is loaded later (resolver modules, TLS providers: avoid that instead). */
	struct sandbox_path paths[ROLE_PATHS_MAX];
};

extern const struct role_sandbox sandbox_api, sandbox_control, sandbox_vm, sandbox_egress, sandbox_audit, sandbox_recipe, sandbox_flatten;

struct role_args {
	uid_t uid;
	gid_t gid;
	const char *state_dir; /* from argv */
	bool degraded;
	enum log_level level;
	uint64_t id; /* the VM's or the workspace's, for logs; 0 */
};

/* Parses argv and calls log_init(role, level). -EINVAL, said on stderr. role: a string literal ("iron-api"). */
int role_args_parse(const char *role, int argc, char **argv, struct role_args *ret);

/* Irond's first message, which must be of this type and come within 10 s. The record, and what its strings borrow from,
 * live as long as the process; the descriptors (*ret_nfds of them) are the caller's. */
int role_config_receive(unsigned type, const void **ret_record, int ret_fds[MSG_MAX_FDS], size_t *ret_nfds, struct error *reterr);

int role_sandbox_enter(const struct role_sandbox *r, const struct role_args *args, struct sandbox_report *ret_report,
		       struct error *reterr);
