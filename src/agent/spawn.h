#pragma once
/* A process of a user's in the guest: own session and process group, login environment, pipes or a pty. Everything
 * that may block (accounts, directories, the search of PATH) happens in the child, which reports a failure through a
 * pipe that closes by itself when the program runs. */
#include "codec/stream.h"

struct spawn_options {
	const char *default_user; /* for an empty user */
	const char *cgroup;       /* directory of a cgroup to be in; NULL: the agent's own */
};

/* The agent's ends, non-blocking, close-on-exec; -1 where there is none. With a pty in and out are two descriptors of
 * its master and err is -1. */
struct spawned {
	pid_t pid;
	int in, out, err;
	int report; /* an encoded stream_error when it did not start, then the end of file */
};

/* The biggest report. */
#define SPAWN_REPORT_MAX 1024

/* Negative errno: no process was made. */
int spawn(const struct stream_exec *x, const struct spawn_options *o, struct spawned *ret);
