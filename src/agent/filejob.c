#include "agent/filejob.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "agent/become.h"
#include "base/log.h"

#define GATHER ((size_t)16 << 10)

int filejob_write_all(int fd, const void *p, size_t n)
{
	for (const char *at = p; n;) {
		ssize_t r = write(fd, at, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		at += r;
		n -= (size_t)r;
	}
	return 0;
}

void filejob_flush(struct filejob *j)
{
	/* Nobody listens any more: there is nothing to be told. */
	if (filejob_write_all(FILEJOB_OUT, j->out.data, j->out.len))
		_exit(1);
	buf_clear(&j->out);
}

void filejob_send(struct filejob *j, enum agent_type type, struct str payload)
{
	if (agent_frame_encode(type, j->stream, payload, &j->out))
		_exit(1);
	if (j->out.len >= GATHER)
		filejob_flush(j);
}

void filejob_send_record(struct filejob *j, enum agent_type type, const struct wire_type *t, const void *record)
{
	if (agent_record_encode(type, j->stream, t, record, &j->out))
		_exit(1);
	if (j->out.len >= GATHER)
		filejob_flush(j);
}

void filejob_done(struct filejob *j)
{
	filejob_send(j, AGENT_DONE, STR_NONE);
	filejob_flush(j);
	_exit(0);
}

void filejob_fail(struct filejob *j, const char *code, const char *fmt, ...)
{
	char message[500];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	struct stream_error e = {.code = str_of(code), .message = str_of(message)};
	filejob_send_record(j, AGENT_ERROR, &stream_error_wire, &e);
	filejob_flush(j);
	_exit(0);
}

void filejob_fail_errno(struct filejob *j, int code, const char *path)
{
	static const struct {
		int number;
		const char *code;
	} codes[] = {
		{ENOENT, "no_such_file"},  {ENOTDIR, "not_a_directory"}, {EISDIR, "is_a_directory"}, {EEXIST, "exists"},
		{ENOTEMPTY, "not_empty"},  {EACCES, "denied"},           {EPERM, "denied"},          {EROFS, "denied"},
		{EBUSY, "denied"},         {ENOSPC, "no_room"},          {EDQUOT, "no_room"},        {EFBIG, "no_room"},
		{ENAMETOOLONG, "bad_path"}, {ELOOP, "bad_path"},         {EINVAL, "bad_path"},       {EXDEV, "bad_path"},
	};

	if (code < 0)
		code = -code;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].number == code)
			filejob_fail(j, codes[i].code, "%.400s: %s", path, strerror(code));
	filejob_fail(j, "io", "%.400s: %s", path, strerror(code));
}

/* --- what is said about files --- */

static enum file_kind kind_of(mode_t mode)
{
	if (S_ISREG(mode))
		return FILE_REGULAR;
	if (S_ISDIR(mode))
		return FILE_DIRECTORY;
	return S_ISLNK(mode) ? FILE_LINK : FILE_OTHER;
}

void filejob_send_info(struct filejob *j, int dir, const char *name, const struct stat *st, const char *shown,
		       bool more)
{
	char owner[64], group[64], target[4097] = "";

	user_name(st->st_uid, owner);
	group_name(st->st_gid, group);
	ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(dir, name, target, sizeof target - 1) : 0;
	struct stream_file_info i = {
		.name = str_of(shown),
		.kind = (uint8_t)kind_of(st->st_mode),
		.size = (uint64_t)st->st_size,
		.mode = st->st_mode & 07777,
		.owner = str_of(owner),
		.group = str_of(group),
		.modified_at = (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000,
		.target = str_make(target, n > 0 ? (size_t)n : 0),
		.more = more,
	};
	filejob_send_record(j, AGENT_INFO, &stream_file_info_wire, &i);
}

void filejob_send_own_info(struct filejob *j)
{
	struct stat st;

	if (fstatat(AT_FDCWD, j->path, &st, AT_SYMLINK_NOFOLLOW))
		filejob_fail_errno(j, errno, j->path);
	filejob_send_info(j, AT_FDCWD, j->path, &st, NULL, false);
}

/* --- helpers --- */

bool filejob_committed(void)
{
	char word[16];

	for (;;) {
		ssize_t n = read(FILEJOB_GATE, word, sizeof word);
		if (n >= 0 || errno != EINTR)
			return n > 0;
	}
}

int filejob_make_parents(const char *path, bool whole)
{
	_cleanup_free_ char *copy = xstrdup(path);

	for (char *p = copy + 1; *copy && *p; p++) {
		if (*p != '/' || p[-1] == '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return whole && mkdir(copy, 0755) && errno != EEXIST ? -errno : 0;
}

int filejob_owner(const struct filejob *j, uid_t *ret_uid, gid_t *ret_gid)
{
	struct str group = j->x->owner, name;
	struct user u;

	*ret_uid = j->user.uid;
	*ret_gid = j->user.gid;
	if (group.len == 0)
		return 0;
	bool both = str_chr(group, ':') >= 0;
	str_split(&group, ':', &name);
	if (name.len) {
		uint64_t n;
		if (user_find(name, &u) == 0) {
			*ret_uid = u.uid;
			*ret_gid = u.gid;
		} else if (str_parse_u64(name, UINT32_MAX - 1, &n) == 0) {
			*ret_uid = (uid_t)n;
		} else {
			return -ENOENT;
		}
	}
	return both && group.len ? group_find(group, ret_gid) : 0;
}

int filejob_split(const char *path, char **ret_dir, const char **ret_name)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	if (!slash)
		*ret_dir = xstrdup(".");
	else
		*ret_dir = slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
	*ret_name = name;
	return 0;
}

/* --- the process --- */

/* Its own three descriptors, and none of what the agent holds: the ends of others' pipes among them. */
static void keep_ends(const struct filejob_ends *e)
{
	int in = fcntl(e->in, F_DUPFD, 10), out = fcntl(e->out, F_DUPFD, 10), gate = fcntl(e->gate, F_DUPFD, 10);

	if (dup2(in, FILEJOB_IN) < 0 || dup2(out, FILEJOB_OUT) < 0 || dup2(gate, FILEJOB_GATE) < 0 ||
	    close_range(FILEJOB_FDS, ~0U, 0))
		_exit(1);
}

static char *text_or_fail(struct filejob *j, struct str s)
{
	if (s.len && memchr(s.p, '\0', s.len))
		filejob_fail(j, "bad_path", "a path holds a NUL");
	return str_dup(s);
}

static void prepare(struct filejob *j, const struct spawn_options *o)
{
	struct str name = j->x->user.len ? j->x->user : str_of(o->default_user);

	int r = become_child(o->cgroup);
	if (r)
		filejob_fail(j, "io", "cannot enter the control group of user processes: %s", strerror(-r));
	if (user_find(name, &j->user))
		filejob_fail(j, "no_such_user", "there is no user %.*s in this machine", STR_ARG(name));
	/* The agent wakes us with each piece that it passes; on one processor, that must not stop it at each. */
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
	/* Our memory holds what others' processes said. */
	prctl(PR_SET_DUMPABLE, 0);
	r = become_user(&j->user);
	if (r)
		filejob_fail(j, "io", "cannot become user %s: %s", j->user.name, strerror(-r));
	if (j->x->path.len == 0)
		filejob_fail(j, "bad_path", "the path is empty");
	j->path = text_or_fail(j, j->x->path);
	j->to = text_or_fail(j, j->x->to);
	if (chdir(j->user.home) && chdir("/"))
		filejob_fail_errno(j, errno, "/");
}

void filejob_run(const struct stream_file *x, uint32_t stream, const struct spawn_options *o,
		 const struct filejob_ends *ends)
{
	static void (*const ops[])(struct filejob *j) = {
		[FILE_READ] = filejob_read,   [FILE_WRITE] = filejob_write, [FILE_REMOVE] = filejob_remove,
		[FILE_STAT] = filejob_stat,   [FILE_LIST] = filejob_list,   [FILE_MKDIR] = filejob_mkdir,
		[FILE_MOVE] = filejob_move,   [FILE_PACK] = filejob_pack,   [FILE_UNPACK] = filejob_unpack,
	};
	struct filejob j = {.x = x, .stream = stream};

	keep_ends(ends);
	prepare(&j, o);
	if (x->op >= ARRAY_SIZE(ops) || !ops[x->op])
		filejob_fail(&j, "bad_request", "this machine's agent does not know that operation");
	ops[x->op](&j);
	filejob_done(&j);
}
