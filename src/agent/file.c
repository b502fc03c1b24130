#include "agent/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK 16384

int file_read(const char *path, struct buf *out)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return -errno;
	for (;;) {
		void *to = buf_reserve(out, CHUNK);
		if (!to)
			return -EMSGSIZE;
		ssize_t n = read(fd, to, CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		buf_commit(out, (size_t)n);
	}
}

static int write_all(int fd, struct str s)
{
	while (s.len) {
		ssize_t n = write(fd, s.p, s.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		s.p += n;
		s.len -= (size_t)n;
	}
	return 0;
}

int file_make_dirs(const char *path)
{
	_cleanup_free_ char *copy = xstrdup(path);

	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(copy, 0755) && errno != EEXIST ? -errno : 0;
}

static int make_parent(const char *path)
{
	_cleanup_free_ char *copy = xstrdup(path);
	char *slash = strrchr(copy, '/');

	if (!slash || slash == copy)
		return 0;
	*slash = '\0';
	return file_make_dirs(copy);
}

static int write_to(const char *path, int flags, struct str content, mode_t mode)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | flags, mode);

	if (fd < 0)
		return -errno;
	int r = flags & O_CREAT && fchmod(fd, mode) ? -errno : 0;
	return r ? r : write_all(fd, content);
}

int file_write(const char *path, struct str content, mode_t mode)
{
	_cleanup_free_ char *beside = xasprintf("%s.iron-new", path);

	int r = make_parent(path);
	if (r)
		return r;
	unlink(beside);
	r = write_to(beside, O_CREAT | O_EXCL | O_NOFOLLOW, content, mode);
	if (r == 0 && rename(beside, path))
		r = -errno;
	if (r)
		unlink(beside);
	if (r == -EBUSY)
		r = write_to(path, O_TRUNC, content, mode);
	return r;
}

int file_poke(const char *path, const char *text)
{
	return write_to(path, 0, str_of(text), 0);
}
