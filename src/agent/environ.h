#pragma once
/* The environment of a login in the guest. /etc/iron/environment, which the contract writes, is both read here and
 * sourced by shells: each line is `export K='V'`, a quote in V being '\''. /etc/environment is pam_env(8)'s. */
#include "agent/user.h"
#include "base/buf.h"
#include "base/vec.h"

#define ENVIRON_IRON "/etc/iron/environment"
#define ENVIRON_SYSTEM "/etc/environment"
#define ENVIRON_MAX ((size_t)1 << 20) /* bytes of a file that is read */

/* "K=V" strings on the heap; a later K replaces an earlier one. */
struct environ {
	VEC(char *) vars;
};

void environ_finish(struct environ *e);
/* -EINVAL: no '=', an empty name, or a NUL. */
int environ_set(struct environ *e, struct str assignment);
/* NULL when it is not set. */
const char *environ_get(const struct environ *e, const char *name);
/* For execve: the strings and a NULL, borrowed. */
char **environ_array(struct environ *e);

/* HOME, USER, LOGNAME, SHELL, PATH and LANG of an account. */
void environ_set_login(struct environ *e, const struct user *u);
/* Either file's text; lines that are not assignments are passed over, as pam_env does. */
void environ_parse(struct environ *e, struct str text);
/* The text of /etc/iron/environment for a list of "K=V". -EINVAL, -EMSGSIZE. */
int environ_format(struct str list, struct buf *out);
