#pragma once
/* Accounts of the guest from /etc/passwd and /etc/group (passwd(5), group(5)). Read by hand: the agent is linked
 * statically, and name services would have it load libraries of the guest's. */
#include <sys/types.h>

#include "base/str.h"

#define USER_GROUPS_MAX 64

struct user {
	uid_t uid;
	gid_t gid;
	char name[64], home[256], shell[256]; /* shell: never empty */
	gid_t groups[USER_GROUPS_MAX];        /* gid first */
	size_t ngroups;
};

/* -ENOENT: no such user; another errno: the file cannot be read. */
int user_find(struct str name, struct user *ret);

/* The same over the files' text, for tests. */
int user_parse(struct str passwd, struct str group, struct str name, struct user *ret);
