#include "agent/user.h"

#include <errno.h>

#include "agent/file.h"

#define ACCOUNTS_MAX ((size_t)4 << 20)

static bool parse_line(struct str line, struct str name, struct user *u)
{
	struct str field[7] = {0};
	uint64_t uid, gid;

	for (size_t i = 0; i < ARRAY_SIZE(field); i++)
		if (!str_split(&line, ':', &field[i]))
			return false;
	if (!str_eq(field[0], name) || str_parse_u64(field[2], UINT32_MAX - 1, &uid) ||
	    str_parse_u64(field[3], UINT32_MAX - 1, &gid))
		return false;
	u->uid = (uid_t)uid;
	u->gid = (gid_t)gid;
	if (field[6].len == 0)
		field[6] = STR("/bin/sh");
	return str_copy(field[0], u->name, sizeof u->name) == 0 && str_copy(field[5], u->home, sizeof u->home) == 0 &&
	       str_copy(field[6], u->shell, sizeof u->shell) == 0;
}

static bool lists(struct str members, struct str name)
{
	struct str member;

	while (str_split(&members, ',', &member))
		if (str_eq(member, name))
			return true;
	return false;
}

static void add_groups(struct str text, struct str name, struct user *u)
{
	struct str line, field[4];
	uint64_t gid;

	while (u->ngroups < USER_GROUPS_MAX && str_split(&text, '\n', &line)) {
		size_t n = 0;
		while (n < ARRAY_SIZE(field) && str_split(&line, ':', &field[n]))
			n++;
		if (n == 4 && str_parse_u64(field[2], UINT32_MAX - 1, &gid) == 0 && gid != u->gid &&
		    lists(field[3], name))
			u->groups[u->ngroups++] = (gid_t)gid;
	}
}

int user_parse(struct str passwd, struct str group, struct str name, struct user *ret)
{
	struct user u = {0};
	struct str line;

	while (str_split(&passwd, '\n', &line)) {
		if (!parse_line(line, name, &u))
			continue;
		u.groups[u.ngroups++] = u.gid;
		add_groups(group, name, &u);
		*ret = u;
		return 0;
	}
	return -ENOENT;
}

int user_find(struct str name, struct user *ret)
{
	_cleanup_(buf_finish) struct buf passwd = BUF_MAX(ACCOUNTS_MAX), group = BUF_MAX(ACCOUNTS_MAX);

	int r = file_read("/etc/passwd", &passwd);
	if (r)
		return r;
	r = file_read("/etc/group", &group);
	if (r && r != -ENOENT)
		return r;
	return user_parse(buf_str(&passwd), buf_str(&group), name, ret);
}
