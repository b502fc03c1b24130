#include "broker/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define LOOK_S 5

static char watched[512];

static bool is_file_at(const char *path, int fd, struct stat *ret)
{
	struct stat named;

	return fstat(fd, ret) == 0 && S_ISREG(ret->st_mode) && lstat(path, &named) == 0 && named.st_dev == ret->st_dev &&
	       named.st_ino == ret->st_ino;
}

/* To the end, also what is appended meanwhile. */
static int copy_from(int in, off_t at, int out)
{
	char piece[65536];
	ssize_t n;

	while ((n = pread(in, piece, sizeof piece, at)) > 0) {
		for (ssize_t done = 0; done < n;) {
			ssize_t k = write(out, piece + done, (size_t)(n - done));
			if (k < 0)
				return -errno;
			done += k;
		}
		at += n;
	}
	return n < 0 ? -errno : 0;
}

static int copy_aside(const char *path, off_t from, const char *to)
{
	_cleanup_close_ int in = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (in < 0)
		return -errno;
	unlink(to);
	_cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
	int r = out < 0 ? -errno : copy_from(in, from, out);
	if (r < 0 && out >= 0)
		unlink(to);
	return r;
}

int log_file_rotate(const char *path, int fd, off_t max_bytes, unsigned kept)
{
	_cleanup_free_ char *aside = xasprintf("%s.tmp", path);
	struct stat st;

	if (!is_file_at(path, fd, &st) || st.st_size < max_bytes)
		return 0;
	/* the oldest is given up first: it may be what the disk lacks */
	for (unsigned i = kept; i >= 1; i--) {
		_cleanup_free_ char *from = xasprintf("%s.%u", path, i - 1), *to = xasprintf("%s.%u", path, i);
		if (i == kept)
			unlink(to);
		if (i > 1 && rename(from, to) < 0 && errno != ENOENT)
			return -errno;
	}
	int r = copy_aside(path, st.st_size > 2 * max_bytes ? st.st_size - max_bytes : 0, aside);
	if (r == 0 && ftruncate(fd, 0) < 0)
		r = -errno;
	if (r < 0)
		return r;
	_cleanup_free_ char *first = xasprintf("%s.1", path);
	return rename(aside, first) < 0 ? -errno : 1;
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	int r = log_file_rotate(watched, STDERR_FILENO, LOG_FILE_MAX_BYTES, LOG_FILE_KEPT);

	if (r < 0)
		log_limited(LOG_LEVEL_WARN, 1, "the log is not rotated", "code=%d", r);
}

struct event *log_file_watch(struct event_base *base, const char *state_dir)
{
	static const struct timeval interval = {.tv_sec = LOOK_S};
	struct stat st;

	snprintf(watched, sizeof watched, "%s/log/irond.log", state_dir);
	if (!is_file_at(watched, STDERR_FILENO, &st))
		return NULL;
	struct event *e = event_new(base, -1, EV_PERSIST, on_look, NULL);
	if (e)
		event_add(e, &interval);
	return e;
}
