#pragma once
/* From a fork of the agent to a process of a user's. */
#include "agent/user.h"

/* A session of its own, signals and umask as a login's, the control group (NULL: the agent's own), and no protection
 * from the guest's out-of-memory killer. Negative errno: the control group cannot be entered. */
int become_child(const char *cgroup);
/* The user's groups and ids, for good. Nothing to do for an agent that runs as that user. */
int become_user(const struct user *u);
