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

/* The name of an id, or its number. The files are read once a process. */
void user_name(uid_t uid, char ret[64]);
void group_name(gid_t gid, char ret[64]);
/* By name or number. -ENOENT. */
int group_find(struct str name, gid_t *ret);

/* user_find over the files' text, for tests. */
int user_parse(struct str passwd, struct str group, struct str name, struct user *ret);
