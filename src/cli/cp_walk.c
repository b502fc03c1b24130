#include "cli/cp_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "cli/out.h"

#define DEPTH_MAX 128

struct walk {
	DIR *levels[DEPTH_MAX];
	size_t path_len[DEPTH_MAX]; /* of the directory's own path */
	size_t depth;
	char path[PATH_MAX];
	char target[PATH_MAX];
	bool open_files, missed;
	uint64_t skipped;
};

int walk_open(const char *path, bool open_files, struct walk **ret, struct error *reterr)
{
	DIR *d = opendir(path);

	if (!d)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	struct walk *w = xcalloc(1, sizeof *w);
	w->levels[0] = d;
	w->depth = 1;
	w->open_files = open_files;
	*ret = w;
	return 0;
}

void walk_close(struct walk *w)
{
	if (!w)
		return;
	while (w->depth)
		closedir(w->levels[--w->depth]);
	free(w);
}

bool walk_missed(const struct walk *w)
{
	return w->missed;
}

uint64_t walk_skipped(const struct walk *w)
{
	return w->skipped;
}

/* The pass that only measures says nothing: the one that reads will. */
static int miss(struct walk *w, int e)
{
	if (w->open_files)
		out_warn("%s: %s", w->path, strerror(e));
	w->missed = true;
	return 0;
}

static int enter(struct walk *w, int at, const char *name, struct error *reterr)
{
	if (w->depth == DEPTH_MAX)
		return error_set(reterr, -ELOOP, "%s: deeper than %d directories", w->path, DEPTH_MAX);
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		int e = errno;
		if (fd >= 0)
			close(fd);
		return miss(w, e);
	}
	w->path_len[w->depth] = strlen(w->path);
	w->levels[w->depth++] = d;
	return 1;
}

static int open_file(struct walk *w, int at, const char *name, struct walk_entry *e)
{
	struct stat st;

	e->fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (e->fd < 0)
		return miss(w, errno);
	/* it may be another by now */
	if (fstat(e->fd, &st) || !S_ISREG(st.st_mode)) {
		close(e->fd);
		return miss(w, EINVAL);
	}
	e->size = (uint64_t)st.st_size;
	return 1;
}

/* 1: *e is it. 0: left out. */
static int examine(struct walk *w, int at, const char *name, struct walk_entry *e, struct error *reterr)
{
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
		return miss(w, errno);
	*e = (struct walk_entry){.path = w->path,
	                         .target = "",
	                         .mode = st.st_mode & 07777,
	                         .fd = -1,
	                         .mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000};
	if (S_ISDIR(st.st_mode)) {
		e->kind = 'd';
		return enter(w, at, name, reterr);
	}
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(at, name, w->target, sizeof w->target - 1);
		if (n < 0)
			return miss(w, errno);
		w->target[n] = '\0';
		e->kind = 'l';
		e->target = w->target;
		return 1;
	}
	if (!S_ISREG(st.st_mode)) {
		w->skipped++;
		return 0;
	}
	e->kind = 'f';
	e->size = (uint64_t)st.st_size;
	return w->open_files ? open_file(w, at, name, e) : 1;
}

int walk_next(struct walk *w, struct walk_entry *ret, struct error *reterr)
{
	while (w->depth) {
		DIR *d = w->levels[w->depth - 1];
		errno = 0;
		const struct dirent *entry = readdir(d);
		if (!entry) {
			if (errno)
				miss(w, errno);
			closedir(d);
			w->depth--;
			continue;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		size_t base = w->path_len[w->depth - 1];
		if (base + strlen(entry->d_name) + 2 > sizeof w->path)
			return error_set(reterr, -ENAMETOOLONG, "%.200s…: too long a path", w->path);
		snprintf(w->path + base, sizeof w->path - base, "%s%s", base ? "/" : "", entry->d_name);
		int r = examine(w, dirfd(d), entry->d_name, ret, reterr);
		if (r)
			return r;
	}
	return 0;
}
