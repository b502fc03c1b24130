/* UNPACK: a tar archive into a directory, as it comes. Each name is walked from the root's descriptor, one part at a
 * time and never through a link, so that neither the archive's own links nor those that others plant meanwhile lead
 * out. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/filejob.h"
#include "base/vec.h"
#include "codec/tar.h"

#define INPUT_SIZE ((size_t)128 << 10)
#define LATE_MODES_MAX 65536

struct late_mode {
	char *name;
	mode_t mode;
};

struct unpack {
	struct filejob *job;
	int root, parent; /* parent: of the last name; -1 */
	char parent_name[TAR_NAME_MAX + 1];
	char name[TAR_NAME_MAX + 1]; /* of the entry, clean */
	int file;                    /* that its data goes to; -1 */
	mode_t mode;
	int64_t mtime;
	bool gives;
	uid_t uid;
	gid_t gid;
	VEC(struct late_mode) late; /* directories that their user may not write: made so at the end */
};

/* A link, or something else that is no directory, where one must be. */
static void fail_part(struct unpack *u, int code, const char *name)
{
	if (code == ELOOP || code == ENOTDIR)
		filejob_fail(u->job, "unsafe", "%.400s: not a directory to be entered", name);
	filejob_fail_errno(u->job, code, name);
}

static int enter(struct unpack *u, int dir, const char *part, bool make, const char *whole)
{
	int fd = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT && make) {
		if (mkdirat(dir, part, 0755) && errno != EEXIST)
			fail_part(u, errno, whole);
		fd = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (fd < 0)
		fail_part(u, errno, whole);
	return fd;
}

/* The directory that a clean name is in, by a descriptor that the caller closes. */
static int walk(struct unpack *u, const char *name, bool make)
{
	int at = fcntl(u->root, F_DUPFD_CLOEXEC, FILEJOB_FDS);

	for (const char *slash; at >= 0 && (slash = strchr(name, '/')); name = slash + 1) {
		_cleanup_free_ char *part = xstrndup(name, (size_t)(slash - name));
		int below = enter(u, at, part, make, part);
		close(at);
		at = below;
	}
	if (at < 0)
		filejob_fail_errno(u->job, errno, name);
	return at;
}

static const char *last_part(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/* Entries of one directory mostly follow each other. */
static int parent_of(struct unpack *u, const char *name)
{
	size_t n = (size_t)(last_part(name) - name);

	if (u->parent >= 0 && strlen(u->parent_name) == n && memcmp(u->parent_name, name, n) == 0)
		return u->parent;
	if (u->parent >= 0)
		close(u->parent);
	u->parent = walk(u, name, true);
	memcpy(u->parent_name, name, n);
	u->parent_name[n] = '\0';
	return u->parent;
}

/* What is in the way of anything but a directory goes, unless it is one. */
static void clear_way(struct unpack *u, int dir, const char *part)
{
	if (unlinkat(dir, part, 0) && errno != ENOENT)
		filejob_fail_errno(u->job, errno == EISDIR || errno == EPERM ? EISDIR : errno, u->name);
}

static void give(struct unpack *u, int fd)
{
	if (u->gives && fchown(fd, u->uid, u->gid))
		filejob_fail_errno(u->job, errno, u->name);
}

static void begin_file(struct unpack *u, const struct tar_entry *e)
{
	int dir = parent_of(u, u->name);
	const char *part = last_part(u->name);

	clear_way(u, dir, part);
	u->file = openat(dir, part, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
	if (u->file < 0)
		filejob_fail_errno(u->job, errno, u->name);
	u->mode = e->mode & 0777;
	u->mtime = e->mtime;
}

static void end_file(struct unpack *u)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = u->mtime}};

	if (u->file < 0)
		return;
	give(u, u->file);
	if (fchmod(u->file, u->mode) || futimens(u->file, times) || close(take_fd(u->file)))
		filejob_fail_errno(u->job, errno, u->name);
}

static void make_directory(struct unpack *u, const struct tar_entry *e)
{
	if (u->name[0] == '\0')
		return;
	int dir = parent_of(u, u->name);
	_cleanup_close_ int fd = enter(u, dir, last_part(u->name), true, u->name);
	mode_t mode = e->mode & 0777;

	give(u, fd);
	if (fchmod(fd, mode | 0700))
		filejob_fail_errno(u->job, errno, u->name);
	if ((mode & 0700) == 0700)
		return;
	if (u->late.n >= LATE_MODES_MAX)
		filejob_fail(u->job, "bad_archive", "too many directories that cannot be written");
	struct late_mode l = {.name = xstrdup(u->name), .mode = mode};
	VEC_PUSH(&u->late, l);
}

static void make_link(struct unpack *u, const struct tar_entry *e)
{
	int dir = parent_of(u, u->name);
	_cleanup_free_ char *target = str_dup(e->target);

	if (tar_link_leads_out(u->name, e->target))
		filejob_fail(u->job, "unsafe", "%.200s: a link to %.200s leads out of the archive's directory", u->name,
			     target);
	clear_way(u, dir, last_part(u->name));
	if (symlinkat(target, dir, last_part(u->name)) ||
	    (u->gives && fchownat(dir, last_part(u->name), u->uid, u->gid, AT_SYMLINK_NOFOLLOW)))
		filejob_fail_errno(u->job, errno, u->name);
}

static void make_hard_link(struct unpack *u, const struct tar_entry *e)
{
	char target[TAR_NAME_MAX + 1];
	struct stat st;

	if (tar_name_clean(e->target, target) || target[0] == '\0')
		filejob_fail(u->job, "unsafe", "%.400s: it is linked to a name outside of the archive", u->name);
	_cleanup_close_ int from = walk(u, target, false);
	if (fstatat(from, last_part(target), &st, AT_SYMLINK_NOFOLLOW))
		filejob_fail_errno(u->job, errno, target);
	if (!S_ISREG(st.st_mode))
		filejob_fail(u->job, "unsafe", "%.400s: it is linked to what is no file", u->name);
	int dir = parent_of(u, u->name);
	if (strcmp(u->name, target) == 0)
		return;
	clear_way(u, dir, last_part(u->name));
	if (linkat(from, last_part(target), dir, last_part(u->name), 0))
		filejob_fail_errno(u->job, errno, u->name);
}

static void begin_entry(struct unpack *u, const struct tar_entry *e)
{
	if (tar_name_clean(e->name, u->name))
		filejob_fail(u->job, "unsafe", "%.*s: the name leads out of the archive's directory",
			     STR_ARG(str_make(e->name.p, MIN(e->name.len, (size_t)300))));
	if (u->name[0] == '\0' && e->kind != TAR_DIRECTORY)
		filejob_fail(u->job, "bad_archive", "an entry that is no directory has no name");
	switch (e->kind) {
	case TAR_FILE:
		begin_file(u, e);
		break;
	case TAR_DIRECTORY:
		make_directory(u, e);
		break;
	case TAR_LINK:
		make_link(u, e);
		break;
	case TAR_HARD_LINK:
		make_hard_link(u, e);
		break;
	case TAR_OTHER:
		filejob_fail(u->job, "unsafe", "%.400s: neither a file, a directory nor a link", u->name);
	}
}

static void take_event(struct unpack *u, int event, const struct tar_entry *e, struct str data)
{
	if (event < 0)
		filejob_fail(u->job, "bad_archive", "it is no tar archive, or a damaged one");
	if (event != TAR_DATA)
		end_file(u);
	if (event == TAR_ENTRY)
		begin_entry(u, e);
	if (event != TAR_DATA || u->file < 0)
		return;
	int r = filejob_write_all(u->file, data.p, data.len);
	if (r)
		filejob_fail_errno(u->job, r, u->name);
}

static void read_archive(struct unpack *u, struct tar_reader *r)
{
	static char space[INPUT_SIZE];
	struct str in = str_make(space, 0), data = {0};
	struct tar_entry e;

	for (;;) {
		int event = tar_read(r, &in, &e, &data);
		if (event) {
			take_event(u, event, &e, data);
			if (event == TAR_END)
				return;
			continue;
		}
		memmove(space, in.p, in.len);
		ssize_t n = read(FILEJOB_IN, space + in.len, sizeof space - in.len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			filejob_fail(u->job, "bad_archive", "it ends in the middle");
		in = str_make(space, in.len + (size_t)n);
	}
}

static void finish_directories(struct unpack *u)
{
	for (size_t i = u->late.n; i > 0; i--) {
		const struct late_mode *l = &u->late.v[i - 1];
		_cleanup_close_ int dir = walk(u, l->name, false);
		_cleanup_close_ int fd =
			openat(dir, last_part(l->name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fchmod(fd, l->mode))
			filejob_fail_errno(u->job, errno, l->name);
	}
}

static void drain_input(void)
{
	static char rest[65536];
	ssize_t n;

	do
		n = read(FILEJOB_IN, rest, sizeof rest);
	while (n > 0 || (n < 0 && errno == EINTR));
}

void filejob_unpack(struct filejob *j)
{
	struct unpack u = {.job = j, .parent = -1, .file = -1, .gives = j->x->owner.len};
	struct tar_reader r;

	if (filejob_owner(j, &u.uid, &u.gid))
		filejob_fail(j, "no_such_user", "there is no owner %.*s in this machine", STR_ARG(j->x->owner));
	int e = j->x->recursive ? filejob_make_parents(j->path, false) : 0;
	if (e == 0 && mkdir(j->path, 0755) && errno != EEXIST)
		e = -errno;
	if (e)
		filejob_fail_errno(j, e, j->path);
	u.root = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (u.root < 0)
		filejob_fail_errno(j, errno, j->path);
	tar_reader_init(&r);
	read_archive(&u, &r);
	finish_directories(&u);
	tar_reader_finish(&r);
	drain_input();
	if (!filejob_committed())
		_exit(0);
	filejob_send_own_info(j);
}
