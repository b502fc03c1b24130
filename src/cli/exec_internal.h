#pragma once
/* Between exec, run, attach and logs. */
#include "cli/command.h"

/* The request of a command, from the words after `--` and the options that exec and run share. -EINVAL */
int exec_body(struct context *c, json_t *body);
#define EXEC_OPTIONS                                                                                                   \
	{"user", 'u', "USER", "as this user (agent)"}, {"workdir", 'w', "DIR", "in this directory of the VM"},            \
		{"env", 'e', "K=V", "an environment variable; may be repeated"},                                          \
		{"timeout", 0, "S", "end the command after this many seconds; exit code 124"}

/* "/vms/ID/execs/EXEC" of the VM and the EXEC that c's first two words name: an id, or the program's name where one command
 * alone has it. Heap, NULL. */
char *exec_path(struct context *c);
/* A command line as one text. Heap. */
char *exec_text(const json_t *exec);

int run_ps(struct context *c);
int run_attach(struct context *c);
int run_logs(struct context *c);
int run_kill(struct context *c);
int run_run(struct context *c);
extern const struct arg_option ps_options[], attach_options[], logs_options[], kill_options[], run_options[];
