#pragma once
/* The parts of irond's program: the daemon (irond_daemon.c), the operator's commands (irond_commands.c), the command
 * line (irond.c). Each command answers the exit status. */
#include "conf/conf.h"

struct command_line {
	const char *conf, *libexec, *scopes, *expires, *workspace, *older_than;
	bool foreground, force, vms;
	char **words;
	int n;
};

extern const char irond_usage[];

/* "irond: reason" on stderr; 1. */
int complain(const struct error *e);
void print_line(const char *line, void *user);

/* Both own conf. */
int daemon_foreground(const struct command_line *cl, struct conf *conf);
int daemon_start(const struct command_line *cl, struct conf *conf);

/* Whatever is not a start. */
int run_command(const struct command_line *cl, const struct conf *conf);
