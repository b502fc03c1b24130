#pragma once
/* What `--help` and `iron help` print, from the commands' tables. */
#include <stdio.h>

#include "cli/command.h"

/* The command whose words argv begins with: "egress add" is two, "create" one. *ret_used: how many. NULL: none. */
const struct command *command_find(int argc, char *const *argv, int *ret_used);
/* "egress": the first word of commands of two. */
bool command_is_group(const char *word);

/* The command whose name is nearest to what was typed, NULL when none is near. */
const char *command_nearest(const char *typed);

void help_all(FILE *to);
void help_group(FILE *to, const char *word);
void help_command(FILE *to, const struct command *c);

extern const struct command help_commands[]; /* help, completion */
