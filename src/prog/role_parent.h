#pragma once
/* irond, as a role that outlives it sees it: the channel that the role was started with (descriptor 3), and after its end
 * the one that the next irond opens on the listening socket that the role inherited (descriptor 4). One at a time: a
 * second one waits in the socket's queue until the first is gone.
 *
 * A role whose irond is away takes nothing new, and goes on with what it has. The next one asks with msg_adopt, which is
 * among the role's own rules. */
#include "os/ipc.h"

#define ROLE_ADOPT_FD 4

struct role_parent;

/* away: irond is gone. Not away: another one is there, and will ask. */
typedef void role_parent_away(bool away, void *user);

/* The rules' user and that of on_away is `user`. Without a listening socket at descriptor 4 the loop is left when irond
 * goes. NULL: no memory, or no channel. */
struct role_parent *role_parent_create(struct event_base *base, const struct ipc_rule *rules, size_t nrules,
				       role_parent_away *on_away, void *user);
void role_parent_destroy(struct role_parent *p); /* NULL allowed */
/* For the role's rules: msg_end. Leaves the loop. */
void role_parent_end(struct ipc_peer *peer, const struct ipc_msg *m, void *user);
