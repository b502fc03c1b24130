#include "cli/cp_local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/vec.h"
#include "cli/cp_internal.h"
#include "cli/interrupt.h"

#define DEPTH_MAX 128
#define LATE_MODES_MAX 65536
#define DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct late_mode {
	char *path;
	mode_t mode;
};

struct local_tree {
	int root;
	mode_t mask;
	int file, parent; /* of the file that is being written, -1: none */
	char part[32];    /* its name until it is whole */
	char name[256];
	VEC(struct late_mode) late;
};

int local_tree_open(const char *path, struct local_tree **ret, struct error *reterr)
{
	struct local_tree *t;

	if (mkdir(path, 0777) && errno != EEXIST)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	/* the destination itself is what the person named: a link there is theirs */
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	t = xcalloc(1, sizeof *t);
	t->root = fd;
	t->file = t->parent = -1;
	t->mask = umask(0);
	umask(t->mask);
	*ret = t;
	return 0;
}

static void drop_file(struct local_tree *t)
{
	if (t->file >= 0) {
		close(t->file);
		unlinkat(t->parent, t->part, 0);
	}
	if (t->parent >= 0)
		close(t->parent);
	t->file = t->parent = -1;
}

void local_tree_close(struct local_tree *t)
{
	if (!t)
		return;
	drop_file(t);
	for (size_t i = 0; i < t->late.n; i++)
		free(t->late.v[i].path);
	VEC_FINISH(&t->late);
	close(t->root);
	free(t);
}

/* --- paths --- */

static int refuse(struct error *reterr, const char *why, struct str what)
{
	return error_set(reterr, -EPERM, "refused: the VM sent %s: '%.*s'", why, STR_ARG(what));
}

/* Without "./" before it and "/" after it. */
static int clean(struct str path, struct str *ret, struct error *reterr)
{
	struct str whole = path;

	if (path.len && path.p[0] == '/')
		return refuse(reterr, "an absolute name", whole);
	while (path.len >= 2 && path.p[0] == '.' && path.p[1] == '/')
		path = str_make(path.p + 2, path.len - 2);
	while (path.len && path.p[path.len - 1] == '/')
		path.len--;
	*ret = str_eq(path, STR(".")) ? str_make(path.p, 0) : path;
	return 0;
}

/* The directory that `name` is in, or is to be made in; made on the way. */
static int enter(int at, const char *name, bool make, struct error *reterr)
{
	int fd = openat(at, name, DIRECTORY_FLAGS);

	if (fd < 0 && errno == ENOENT && make && (mkdirat(at, name, 0777) == 0 || errno == EEXIST))
		fd = openat(at, name, DIRECTORY_FLAGS);
	if (fd >= 0)
		return fd;
	int e = errno;
	struct stat st;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
		return error_set(reterr, -EPERM, "refused: '%s' is a link here, and links are not followed", name);
	return error_set(reterr, -e, "%s: %s", name, strerror(e));
}

/* path's parent as a descriptor (the caller's), its last part in name. */
static int walk(struct local_tree *t, struct str path, bool make, char name[256], struct error *reterr)
{
	struct str rest = path, part;
	int at = fcntl(t->root, F_DUPFD_CLOEXEC, 3);
	unsigned depth = 0;

	if (at < 0)
		return error_set(reterr, -errno, "%s", strerror(errno));
	while (str_split(&rest, '/', &part)) {
		if (!copy_name_is_safe(part) || ++depth > DEPTH_MAX) {
			close(at);
			return refuse(reterr, depth > DEPTH_MAX ? "a name that is too deep" : "an unsafe name", path);
		}
		str_copy(part, name, 256);
		if (!rest.p)
			return at;
		int next = enter(at, name, make, reterr);
		close(at);
		if (next < 0)
			return next;
		at = next;
	}
	close(at);
	return refuse(reterr, "an empty name", path);
}

/* --- directories --- */

static int late(struct local_tree *t, struct str path, mode_t mode, struct error *reterr)
{
	if (t->late.n >= LATE_MODES_MAX)
		return error_set(reterr, -E2BIG,
		                 "refused: the VM sent more than %d directories that their owner may not write",
		                 LATE_MODES_MAX);
	struct late_mode l = {.path = str_dup(path), .mode = mode};
	VEC_PUSH(&t->late, l);
	return 0;
}

int local_tree_directory(struct local_tree *t, struct str path, unsigned mode, struct error *reterr)
{
	char name[256];

	int r = clean(path, &path, reterr);
	if (r || path.len == 0)
		return r;
	_cleanup_close_ int at = walk(t, path, true, name, reterr);
	if (at < 0)
		return at;
	_cleanup_close_ int fd = enter(at, name, true, reterr);
	if (fd < 0)
		return fd;
	mode_t wanted = mode & 0777 & ~t->mask;
	/* it must take what it is to hold first */
	if ((wanted & 0700) != 0700)
		return late(t, path, wanted, reterr);
	return fchmod(fd, wanted) ? error_set(reterr, -errno, "%s: %s", name, strerror(errno)) : 0;
}

int local_tree_finish(struct local_tree *t, struct error *reterr)
{
	for (size_t i = t->late.n; i-- > 0;) {
		char name[256];
		_cleanup_close_ int at = walk(t, str_of(t->late.v[i].path), false, name, reterr);
		_cleanup_close_ int fd = at < 0 ? -1 : enter(at, name, false, reterr);
		if (fd < 0)
			return -EPERM;
		if (fchmod(fd, t->late.v[i].mode))
			return error_set(reterr, -errno, "%s: %s", name, strerror(errno));
	}
	return 0;
}

/* --- links --- */

/* Up to the root at most, then down and never up again. */
static bool stays_inside(struct str path, struct str target)
{
	struct str rest = path, part;
	size_t depth = 0;
	bool down = false;

	while (str_split(&rest, '/', &part))
		depth += rest.p != NULL; /* of the directory that the link is in */
	if (target.len == 0 || target.len > 4095 || target.p[0] == '/' || memchr(target.p, '\0', target.len))
		return false;
	rest = target;
	while (str_split(&rest, '/', &part)) {
		if (part.len == 0 || str_eq(part, STR(".")))
			continue;
		if (!str_eq(part, STR("..")))
			down = true;
		else if (down || depth-- == 0)
			return false;
	}
	return true;
}

/* A name that is not a directory gives way. */
static int clear_name(int at, const char *name, struct error *reterr)
{
	if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
		return 0;
	return error_set(reterr, -errno, "%s: %s", name,
	                 errno == EISDIR || errno == EPERM ? "it is a directory here" : strerror(errno));
}

int local_tree_link(struct local_tree *t, struct str path, struct str target, struct error *reterr)
{
	_cleanup_free_ char *to = NULL;
	char name[256];

	int r = clean(path, &path, reterr);
	if (r)
		return r;
	if (!stays_inside(path, target))
		return refuse(reterr, "a link that leads out", path);
	to = str_dup(target);
	_cleanup_close_ int at = walk(t, path, true, name, reterr);
	if (at < 0)
		return at;
	r = clear_name(at, name, reterr);
	if (r == 0 && symlinkat(to, at, name))
		r = error_set(reterr, -errno, "%s: %s", name, strerror(errno));
	return r;
}

int local_tree_hard_link(struct local_tree *t, struct str path, struct str target, struct error *reterr)
{
	char name[256], old_name[256];
	struct stat st;

	int r = clean(path, &path, reterr);
	if (r == 0)
		r = clean(target, &target, reterr);
	if (r)
		return r;
	_cleanup_close_ int at = walk(t, path, true, name, reterr);
	_cleanup_close_ int old = at < 0 ? -1 : walk(t, target, false, old_name, reterr);
	if (at < 0 || old < 0)
		return -EPERM;
	if (fstatat(old, old_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
		return refuse(reterr, "a second name for what is no file", path);
	r = clear_name(at, name, reterr);
	if (r == 0 && linkat(old, old_name, at, name, 0))
		r = error_set(reterr, -errno, "%s: %s", name, strerror(errno));
	return r;
}

/* --- files --- */

int local_tree_file(struct local_tree *t, struct str path, struct error *reterr)
{
	uint64_t random;

	int r = clean(path, &path, reterr);
	if (r)
		return r;
	drop_file(t);
	t->parent = walk(t, path, true, t->name, reterr);
	if (t->parent < 0)
		return t->parent;
	if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
		return error_set(reterr, -EIO, "no random numbers");
	snprintf(t->part, sizeof t->part, ".iron-%016llx", (unsigned long long)random);
	t->file = openat(t->parent, t->part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return t->file < 0 ? error_set(reterr, -errno, "%s: %s", t->name, strerror(errno)) : 0;
}

int local_tree_write(struct local_tree *t, const void *data, size_t n, struct error *reterr)
{
	const char *p = data;

	while (n) {
		ssize_t done = write(t->file, p, n);
		if (done < 0 && errno == EINTR && !interrupted())
			continue;
		if (done < 0)
			return error_set(reterr, -errno, "%s: %s", t->name, strerror(errno));
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

int local_tree_file_end(struct local_tree *t, unsigned mode, int64_t mtime_ms, struct error *reterr)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
	                            {.tv_sec = mtime_ms / 1000, .tv_nsec = mtime_ms % 1000 * 1000000}};
	int r = 0;

	if (fchmod(t->file, mode & 0777 & ~t->mask))
		r = error_set(reterr, -errno, "%s: %s", t->name, strerror(errno));
	/* a time that this file system cannot hold is no reason to lose the file */
	if (mtime_ms > 0)
		futimens(t->file, times);
	if (r == 0 && renameat(t->parent, t->part, t->parent, t->name))
		r = error_set(reterr, -errno, "%s: %s", t->name,
		              errno == EISDIR ? "it is a directory here" : strerror(errno));
	if (r == 0) {
		close(t->file);
		close(t->parent);
		t->file = t->parent = -1;
	} else {
		drop_file(t);
	}
	return r;
}
