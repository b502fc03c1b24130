#pragma once
/* Completion scripts for bash, zsh and fish, from the commands' tables. */
#include <stdbool.h>
#include <stdio.h>

/* False when there is none for that shell. */
bool completion_print(FILE *to, const char *shell);
