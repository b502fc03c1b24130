/* STAT, LIST, MKDIR, MOVE, REMOVE. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "agent/filejob.h"
#include "base/vec.h"

#define LIST_MAX 1000

void filejob_stat(struct filejob *j)
{
	filejob_send_own_info(j);
}

/* --- LIST: one pass over the directory, the least names after `to` in a heap whose root is the greatest of them --- */

typedef VEC(char *) names;

static void sift_down(names *h)
{
	for (size_t i = 0;;) {
		size_t child = 2 * i + 1;
		if (child >= h->n)
			return;
		if (child + 1 < h->n && strcmp(h->v[child + 1], h->v[child]) > 0)
			child++;
		if (strcmp(h->v[child], h->v[i]) <= 0)
			return;
		char *held = h->v[i];
		h->v[i] = h->v[child];
		h->v[child] = held;
		i = child;
	}
}

static void heap_add(names *h, const char *name)
{
	VEC_PUSH(h, xstrdup(name));
	for (size_t i = h->n - 1; i && strcmp(h->v[i], h->v[(i - 1) / 2]) > 0; i = (i - 1) / 2) {
		char *held = h->v[i];
		h->v[i] = h->v[(i - 1) / 2];
		h->v[(i - 1) / 2] = held;
	}
}

static void consider(names *h, const char *name, size_t most)
{
	if (h->n < most) {
		heap_add(h, name);
	} else if (strcmp(name, h->v[0]) < 0) {
		free(h->v[0]);
		h->v[0] = xstrdup(name);
		sift_down(h);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void gather(struct filejob *j, DIR *d, names *h, size_t most)
{
	for (;;) {
		errno = 0;
		const struct dirent *e = readdir(d);
		if (!e && errno)
			filejob_fail_errno(j, errno, j->path);
		if (!e)
			return;
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, j->to) > 0)
			consider(h, e->d_name, most);
	}
}

void filejob_list(struct filejob *j)
{
	size_t limit = j->x->limit && j->x->limit < LIST_MAX ? j->x->limit : LIST_MAX;
	names h = {0};
	struct stat st;

	int fd = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		filejob_fail_errno(j, errno, j->path);
	gather(j, d, &h, limit + 1);
	if (h.n)
		qsort(h.v, h.n, sizeof h.v[0], by_name);
	for (size_t i = 0; i < MIN(h.n, limit); i++) {
		if (fstatat(fd, h.v[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			filejob_send_info(j, fd, h.v[i], &st, h.v[i], i == limit - 1 && h.n > limit);
		else if (i == limit - 1 && h.n > limit) /* gone since; but `more` is to be said */
			filejob_send_info(j, fd, h.v[i], &(struct stat){.st_mode = S_IFIFO}, h.v[i], true);
	}
	closedir(d);
}

/* --- MKDIR --- */

void filejob_mkdir(struct filejob *j)
{
	mode_t mode = j->x->mode == FILE_MODE_NONE ? 0755 : (mode_t)j->x->mode;
	struct stat st;
	uid_t uid;
	gid_t gid;

	if (filejob_owner(j, &uid, &gid))
		filejob_fail(j, "no_such_user", "there is no owner %.*s in this machine", STR_ARG(j->x->owner));
	int r = j->x->recursive ? filejob_make_parents(j->path, false) : 0;
	if (r)
		filejob_fail_errno(j, r, j->path);
	if (mkdir(j->path, 0700)) {
		if (errno != EEXIST || !j->x->recursive || stat(j->path, &st) || !S_ISDIR(st.st_mode))
			filejob_fail_errno(j, errno, j->path);
		filejob_send_own_info(j);
		return;
	}
	_cleanup_close_ int fd = open(j->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || (j->x->owner.len && fchown(fd, uid, gid)) || fchmod(fd, mode)) {
		int code = errno;
		rmdir(j->path);
		filejob_fail_errno(j, code, j->path);
	}
	filejob_send_own_info(j);
}

/* --- MOVE --- */

void filejob_move(struct filejob *j)
{
	if (renameat2(AT_FDCWD, j->path, AT_FDCWD, j->to, j->x->overwrite ? 0 : RENAME_NOREPLACE)) {
		int code = errno;
		if (code != EXDEV)
			filejob_fail_errno(j, code,
					   code == EEXIST || code == ENOTEMPTY || code == EISDIR ? j->to : j->path);
		filejob_move_across(j);
	}
	j->path = j->to;
	filejob_send_own_info(j);
}

/* --- REMOVE: an open directory at a time, so that no depth of a tree runs out of descriptors; the way up is by "..",
 * which must be where we came from. No link is followed, no other file system entered. --- */

struct level {
	char *name;
	dev_t dev;
	ino_t ino;
};

struct walk {
	struct filejob *job;
	int fd;
	VEC(struct level) levels; /* fd is that of the last one */
};

static void enter(struct walk *w, const char *name)
{
	struct stat st;
	int fd = openat(w->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		filejob_fail_errno(w->job, errno, name);
	if (w->levels.n && st.st_dev != w->levels.v[0].dev)
		filejob_fail(w->job, "denied", "%.400s: another file system is mounted there", name);
	if (w->levels.n)
		close(w->fd);
	w->fd = fd;
	struct level l = {.name = xstrdup(name), .dev = st.st_dev, .ino = st.st_ino};
	VEC_PUSH(&w->levels, l);
}

/* Back to the directory above, and what we come from goes. */
static void leave(struct walk *w)
{
	struct level l = w->levels.v[--w->levels.n], up = w->levels.v[w->levels.n - 1];
	struct stat st;
	int fd = openat(w->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		filejob_fail_errno(w->job, errno, l.name);
	if (st.st_dev != up.dev || st.st_ino != up.ino)
		filejob_fail(w->job, "io", "%.400s: it was moved while it was removed", l.name);
	close(w->fd);
	w->fd = fd;
	if (unlinkat(fd, l.name, AT_REMOVEDIR) && errno != ENOENT)
		filejob_fail_errno(w->job, errno, l.name);
	free(l.name);
}

/* All but directories go; the name of the first directory, or NULL when it is empty. */
static char *empty_but_for(struct walk *w)
{
	int fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 3);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char *found = NULL;

	if (!d)
		filejob_fail_errno(w->job, errno, w->job->path);
	rewinddir(d);
	for (const struct dirent *e; !found && (e = readdir(d));) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(w->fd, e->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM)
			filejob_fail_errno(w->job, errno, e->d_name);
		struct stat st;
		if (fstatat(w->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
			filejob_fail_errno(w->job, EPERM, e->d_name);
		found = xstrdup(e->d_name);
	}
	closedir(d);
	return found;
}

static void remove_tree(struct filejob *j)
{
	struct walk w = {.job = j, .fd = AT_FDCWD};

	enter(&w, j->path);
	for (;;) {
		char *below = empty_but_for(&w);
		if (below)
			enter(&w, below);
		else if (w.levels.n > 1)
			leave(&w);
		else
			break;
		free(below);
	}
	if (rmdir(j->path))
		filejob_fail_errno(j, errno, j->path);
}

void filejob_remove(struct filejob *j)
{
	_cleanup_free_ char *dir = NULL;
	const char *name;
	struct stat st;

	/* (a name with a slash behind it is that directory) */
	for (size_t n = strlen(j->path); n > 1 && j->path[n - 1] == '/'; n--)
		j->path[n - 1] = '\0';
	if (filejob_split(j->path, &dir, &name))
		filejob_fail(j, "bad_path", "%.400s: not the name of something that can be removed", j->path);
	if (fstatat(AT_FDCWD, j->path, &st, AT_SYMLINK_NOFOLLOW))
		filejob_fail_errno(j, errno, j->path);
	if (S_ISDIR(st.st_mode) && j->x->recursive)
		remove_tree(j);
	else if (S_ISDIR(st.st_mode) ? rmdir(j->path) : unlink(j->path))
		filejob_fail_errno(j, errno, j->path);
}
