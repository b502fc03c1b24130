#pragma once
/* The agent's one loop: the channel, processes, ends of children. */
#include "agent/exec.h"

enum loop_mode {
	LOOP_SERVICE, /* a service of the guest's init; the port is looked for */
	LOOP_INIT,    /* the guest's init */
	LOOP_FD,      /* a given descriptor, on any machine: ends with it */
};

struct loop_options {
	enum loop_mode mode;
	const char *port; /* name of the virtio port */
	int fd;           /* LOOP_FD */
	struct spawn_options spawn;
};

/* Returns an exit status when the descriptor of LOOP_FD ends; otherwise only when the loop cannot be set up. */
int loop_run(const struct loop_options *o);
