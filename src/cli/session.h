#pragma once
/* A command in a VM, live: its streams and these, over the WebSocket of exec or attach. */
#include "cli/command.h"

struct session {
	bool tty;      /* the local terminal is raw, its size follows, Ctrl-C is a byte like any other, and after a newline
			* "~." leaves ("~~" is one "~"). Else Ctrl-C and SIGTERM, HUP, QUIT are sent as signals, and the
			* third Ctrl-C within some seconds leaves */
	bool input;    /* standard input is sent */
	bool attached; /* the command was there before and stays when this leaves: Ctrl-C without a terminal leaves it */
	struct buf *out, *err; /* where its output goes; NULL: to the standard streams */

	/* set when it is over */
	bool timed_out; /* ended at its time limit */
	bool left;      /* the person left */
	bool truncated; /* out or err was full */
};

/* path: below /v1. first: the first text frame (borrowed). The command's exit code, EXIT_TIMED_OUT, or EXIT_EXEC_FAILED with
 * c->error set. */
int session_run(struct context *c, const char *path, const json_t *first, struct session *s);

/* {"rows", "cols"} and TERM of this terminal, for a command that gets one. */
void session_add_terminal(json_t *body);
