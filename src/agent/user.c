#include "agent/user.h"

#include <errno.h>
#include <stdio.h>

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

/* --- names of ids --- */

/* The text of an account file, for the rest of the process. */
static struct str accounts(const char *path, struct buf *kept)
{
	if (kept->max == 0) {
		*kept = BUF_MAX(ACCOUNTS_MAX);
		if (file_read(path, kept))
			buf_clear(kept);
	}
	return buf_str(kept);
}

/* The first field of the line whose third is the number. */
static bool name_of(struct str text, uint64_t number, char ret[64])
{
	struct str line, name, skipped, id;
	uint64_t n;

	while (str_split(&text, '\n', &line)) {
		if (!str_split(&line, ':', &name) || !str_split(&line, ':', &skipped) || !str_split(&line, ':', &id))
			continue;
		if (str_parse_u64(id, UINT32_MAX, &n) == 0 && n == number && name.len &&
		    str_copy(name, ret, 64) == 0)
			return true;
	}
	return false;
}

/* A directory's entries have mostly one owner. */
struct last_name {
	bool set;
	uint64_t number;
	char name[64];
};

static void name_or_number(const char *path, struct buf *kept, struct last_name *last, uint64_t number, char ret[64])
{
	if (!last->set || last->number != number) {
		*last = (struct last_name){.set = true, .number = number};
		if (!name_of(accounts(path, kept), number, last->name))
			snprintf(last->name, sizeof last->name, "%llu", (unsigned long long)number);
	}
	memcpy(ret, last->name, sizeof last->name);
}

void user_name(uid_t uid, char ret[64])
{
	static struct buf kept;
	static struct last_name last;

	name_or_number("/etc/passwd", &kept, &last, uid, ret);
}

void group_name(gid_t gid, char ret[64])
{
	static struct buf kept;
	static struct last_name last;

	name_or_number("/etc/group", &kept, &last, gid, ret);
}

int group_find(struct str name, gid_t *ret)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(ACCOUNTS_MAX);
	struct str rest, line, field[3];
	uint64_t gid;

	if (file_read("/etc/group", &text) == 0) {
		rest = buf_str(&text);
		while (str_split(&rest, '\n', &line)) {
			size_t n = 0;
			while (n < ARRAY_SIZE(field) && str_split(&line, ':', &field[n]))
				n++;
			if (n < 3 || !str_eq(field[0], name) || str_parse_u64(field[2], UINT32_MAX - 1, &gid))
				continue;
			*ret = (gid_t)gid;
			return 0;
		}
	}
	if (str_parse_u64(name, UINT32_MAX - 1, &gid))
		return -ENOENT;
	*ret = (gid_t)gid;
	return 0;
}
