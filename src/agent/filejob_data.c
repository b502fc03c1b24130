/* READ and WRITE, and MOVE to another file system, which is both. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agent/filejob.h"

#define CHUNK ((size_t)64 << 10)
#define RUN ((size_t)256 << 10)

/* --- READ --- */

/* Looked at before it is opened: to open a FIFO blocks, and a device may act. */
static int open_regular(struct filejob *j, struct stat *ret)
{
	char link[64];
	_cleanup_close_ int at = open(j->path, O_PATH | O_CLOEXEC);

	if (at < 0 || fstat(at, ret))
		filejob_fail_errno(j, errno, j->path);
	if (S_ISDIR(ret->st_mode))
		filejob_fail_errno(j, EISDIR, j->path);
	if (!S_ISREG(ret->st_mode))
		filejob_fail(j, "unsafe", "%.400s: a device, pipe or socket is not read", j->path);
	snprintf(link, sizeof link, "/proc/self/fd/%d", at);
	int fd = open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		filejob_fail_errno(j, errno, j->path);
	return fd;
}

static ssize_t read_some(struct filejob *j, int fd, void *to, size_t n)
{
	for (;;) {
		ssize_t r = read(fd, to, n);
		if (r >= 0)
			return r;
		if (errno != EINTR)
			filejob_fail_errno(j, errno, j->path);
	}
}

/* The header of a run of data, which the agent cuts into frames: here it may be longer than one. */
static void send_header(struct filejob *j, size_t n)
{
	uint32_t words[3] = {htole32((uint32_t)n), htole32(AGENT_STDOUT), htole32(j->stream)};
	_Static_assert(sizeof words == AGENT_HEADER_SIZE, "the header of codec/agent.h");

	if (filejob_write_all(FILEJOB_OUT, words, sizeof words))
		_exit(1);
}

void filejob_send_data(struct filejob *j, const void *data, size_t n)
{
	send_header(j, n);
	if (filejob_write_all(FILEJOB_OUT, data, n))
		_exit(1);
}

/* Pages go by a pipe of our own, so that their number is known before the header is written. */
uint64_t filejob_send_pages(struct filejob *j, int fd, uint64_t left)
{
	uint64_t sent = 0;
	int own[2];

	if (pipe2(own, O_CLOEXEC))
		return 0;
	int size = fcntl(own[1], F_SETPIPE_SZ, RUN);
	while (sent < left) {
		ssize_t n = splice(fd, NULL, own[1], NULL, (size_t)MIN(left - sent, size > 0 ? RUN : CHUNK), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		send_header(j, (size_t)n);
		for (size_t moved = 0; moved < (size_t)n;) {
			ssize_t m = splice(own[0], NULL, FILEJOB_OUT, NULL, (size_t)n - moved, 0);
			if (m <= 0)
				_exit(1);
			moved += (size_t)m;
		}
		sent += (uint64_t)n;
	}
	close(own[0]);
	close(own[1]);
	return sent;
}

void filejob_read(struct filejob *j)
{
	static uint8_t data[CHUNK];
	struct stat st;
	_cleanup_close_ int fd = open_regular(j, &st);

	size_t n = (size_t)read_some(j, fd, data, CHUNK);
	/* A file of /proc says that it is empty, or another length than it has. */
	bool known = (n == 0) == (st.st_size == 0) && (n == CHUNK || n == (size_t)st.st_size);
	if (!known) {
		st.st_mode = (st.st_mode & 07777) | S_IFIFO;
		st.st_size = 0;
	}
	filejob_send_info(j, AT_FDCWD, j->path, &st, NULL, false);
	filejob_flush(j);
	uint64_t left = known ? (uint64_t)st.st_size : UINT64_MAX;
	while (n && left) {
		n = (size_t)MIN((uint64_t)n, left);
		filejob_send_data(j, data, n);
		left -= known ? n : 0;
		if (known)
			left -= filejob_send_pages(j, fd, left);
		n = left ? (size_t)read_some(j, fd, data, CHUNK) : 0;
	}
	if (known && left)
		filejob_fail(j, "io", "%.400s: it became shorter while it was read", j->path);
}

/* --- WRITE --- */

struct target {
	char *dir;
	const char *name;
	int dirfd, fd;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	char temporary[40]; /* in dir; empty: it has no name yet */
	unsigned flags;     /* of renameat2 */
};

static void fail_write(struct filejob *j, const struct target *t, int code)
{
	if (t->temporary[0])
		unlinkat(t->dirfd, t->temporary, 0);
	filejob_fail_errno(j, code, j->path);
}

/* What is there decides: a file that the user may write gives mode and owner; a link is replaced, not followed. */
static void look_at_old(struct filejob *j, struct target *t)
{
	struct stat st;

	t->mode = j->x->mode == FILE_MODE_NONE ? 0644 : (mode_t)j->x->mode;
	if (filejob_owner(j, &t->uid, &t->gid))
		filejob_fail(j, "no_such_user", "there is no owner %.*s in this machine", STR_ARG(j->x->owner));
	if (fstatat(t->dirfd, t->name, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			filejob_fail_errno(j, errno, j->path);
		return;
	}
	if (S_ISDIR(st.st_mode))
		filejob_fail_errno(j, EISDIR, j->path);
	if (S_ISLNK(st.st_mode))
		return;
	if (!S_ISREG(st.st_mode))
		filejob_fail(j, "unsafe", "%.400s: a device, pipe or socket is not written", j->path);
	if (faccessat(t->dirfd, t->name, W_OK, AT_EACCESS))
		filejob_fail_errno(j, errno, j->path);
	if (j->x->mode == FILE_MODE_NONE)
		t->mode = st.st_mode & 07777;
	if (j->x->owner.len == 0) {
		t->uid = st.st_uid;
		t->gid = st.st_gid;
	}
}

static void name_temporary(struct target *t)
{
	uint64_t noise = 0;

	if (getrandom(&noise, sizeof noise, 0) != (ssize_t)sizeof noise)
		_exit(1);
	snprintf(t->temporary, sizeof t->temporary, ".iron-%016llx", (unsigned long long)noise);
}

/* Without a name where the file system can: nothing of it is left whenever we die. */
static void open_temporary(struct filejob *j, struct target *t)
{
	t->fd = openat(t->dirfd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (t->fd >= 0)
		return;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		filejob_fail_errno(j, errno, j->path);
	name_temporary(t);
	t->fd = openat(t->dirfd, t->temporary, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
	if (t->fd < 0)
		filejob_fail_errno(j, errno, j->path);
}

/* By splice(2), which spares a copy; by read(2) where the file system cannot. */
static ssize_t take_input(const struct target *t, bool *splices)
{
	static uint8_t space[CHUNK];

	if (*splices) {
		ssize_t n = splice(FILEJOB_IN, NULL, t->fd, NULL, RUN, 0);
		if (n >= 0 || errno != EINVAL)
			return n < 0 ? -errno : n;
		*splices = false;
	}
	ssize_t n = read(FILEJOB_IN, space, sizeof space);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	int r = filejob_write_all(t->fd, space, (size_t)n);
	return r ? r : n;
}

static void copy_input(struct filejob *j, const struct target *t)
{
	bool splices = true;

	for (;;) {
		ssize_t n = take_input(t, &splices);
		if (n == 0)
			return;
		if (n < 0 && n != -EINTR)
			fail_write(j, t, (int)n);
	}
}

/* An owner that was only inherited, of a file that was another's, is not insisted on. */
static int give_away(const struct filejob *j, const struct target *t)
{
	int r = fchown(t->fd, t->uid, t->gid) ? -errno : 0;

	return r == -EPERM && j->x->owner.len == 0 ? 0 : r;
}

static int commit(const struct filejob *j, struct target *t)
{
	char link[64];

	int r = give_away(j, t);
	if (r == 0 && (fchmod(t->fd, t->mode) || fsync(t->fd)))
		r = -errno;
	if (r == 0 && !t->temporary[0]) {
		name_temporary(t);
		snprintf(link, sizeof link, "/proc/self/fd/%d", t->fd);
		if (linkat(AT_FDCWD, link, t->dirfd, t->temporary, AT_SYMLINK_FOLLOW)) {
			r = -errno;
			t->temporary[0] = '\0';
		}
	}
	if (r == 0 && renameat2(t->dirfd, t->temporary, t->dirfd, t->name, t->flags))
		r = -errno;
	return r;
}

/* The directory too, so that an answer outlives a power cut; one that cannot be read cannot be synced. */
static void sync_directory(struct filejob *j, const struct target *t)
{
	_cleanup_close_ int dir = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0 && fsync(dir) && errno != EINVAL)
		filejob_fail_errno(j, errno, t->dir);
}

static void open_target(struct filejob *j, struct target *t, const char *path)
{
	if (filejob_split(path, &t->dir, &t->name))
		filejob_fail(j, "is_a_directory", "%.400s: not the name of a file", path);
	t->dirfd = open(t->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->dirfd < 0)
		filejob_fail_errno(j, errno, t->dir);
}

void filejob_write(struct filejob *j)
{
	struct target t = {.fd = -1};

	int r = j->x->recursive ? filejob_make_parents(j->path, false) : 0;
	if (r)
		filejob_fail_errno(j, r, j->path);
	open_target(j, &t, j->path);
	look_at_old(j, &t);
	open_temporary(j, &t);
	copy_input(j, &t);
	if (!filejob_committed()) {
		if (t.temporary[0])
			unlinkat(t.dirfd, t.temporary, 0);
		_exit(0);
	}
	r = commit(j, &t);
	if (r)
		fail_write(j, &t, r);
	sync_directory(j, &t);
	filejob_send_own_info(j);
}

/* --- MOVE, where rename(2) cannot --- */

static int open_source(struct filejob *j, struct stat *ret)
{
	int fd = open(j->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 && errno != ELOOP)
		filejob_fail_errno(j, errno, j->path);
	if (fd < 0 || fstat(fd, ret) || !S_ISREG(ret->st_mode))
		filejob_fail(j, "bad_path", "%.200s is on another file system than %.200s, where only a file can be moved",
			     j->to, j->path);
	return fd;
}

static void copy_file(struct filejob *j, const struct target *t, int from)
{
	static uint8_t space[CHUNK];
	size_t n;

	while ((n = (size_t)read_some(j, from, space, sizeof space))) {
		int r = filejob_write_all(t->fd, space, n);
		if (r)
			fail_write(j, t, r);
	}
}

void filejob_move_across(struct filejob *j)
{
	struct target t = {.fd = -1, .flags = j->x->overwrite ? 0 : RENAME_NOREPLACE};
	struct stat st, old;
	_cleanup_close_ int from = open_source(j, &st);

	open_target(j, &t, j->to);
	if (fstatat(t.dirfd, t.name, &old, AT_SYMLINK_NOFOLLOW) == 0 && (!j->x->overwrite || S_ISDIR(old.st_mode)))
		filejob_fail_errno(j, j->x->overwrite ? EISDIR : EEXIST, j->to);
	open_temporary(j, &t);
	copy_file(j, &t, from);
	t.uid = st.st_uid;
	t.gid = st.st_gid;
	/* What keeps no owner keeps no set-user-id either. */
	t.mode = st.st_mode & (geteuid() == 0 || st.st_uid == geteuid() ? 07777 : 0777);
	struct timespec times[2] = {st.st_atim, st.st_mtim};
	int r = futimens(t.fd, times) ? -errno : commit(j, &t);
	if (r)
		fail_write(j, &t, r);
	sync_directory(j, &t);
	if (unlink(j->path)) {
		int code = errno;
		unlinkat(t.dirfd, t.name, 0);
		filejob_fail_errno(j, code, j->path);
	}
}
