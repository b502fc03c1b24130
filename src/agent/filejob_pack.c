/* PACK: a tar archive of a tree, as it is walked. No link is followed, no other file system entered; sockets, pipes and
 * devices are passed over. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "agent/filejob.h"
#include "codec/tar.h"

#define GATHER ((size_t)64 << 10)
#define DEPTH_MAX 400 /* each level holds a descriptor open */

struct pack {
	struct filejob *job;
	dev_t dev;
	struct buf out;
	char name[TAR_NAME_MAX + 2]; /* of the entry, from the root */
	size_t name_len;
};

static void flush(struct pack *p)
{
	if (p->out.len)
		filejob_send_data(p->job, p->out.data, p->out.len);
	buf_clear(&p->out);
}

static void add_header(struct pack *p, const struct stat *st, enum tar_kind kind, struct str target)
{
	char user[64], group[64];

	user_name(st->st_uid, user);
	group_name(st->st_gid, group);
	struct tar_entry e = {
		.kind = kind,
		.name = str_make(p->name, p->name_len),
		.target = target,
		.size = kind == TAR_FILE ? (uint64_t)st->st_size : 0,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mtime = st->st_mtim.tv_sec,
		.user = str_of(user),
		.group = str_of(group),
	};
	if (tar_write(&e, &p->out))
		filejob_fail(p->job, "io", "%.400s: it has no place in an archive", p->name);
	if (p->out.len >= GATHER)
		flush(p);
}

/* As many bytes as the header says: a file that grows is cut, one that shrinks ends it all. */
static void add_file(struct pack *p, int dir, const char *part)
{
	static const char zeros[TAR_BLOCK];
	struct stat st;
	_cleanup_close_ int fd = openat(dir, part, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		filejob_fail_errno(p->job, errno, p->name);
	if (!S_ISREG(st.st_mode))
		filejob_fail(p->job, "io", "%.400s: it was replaced while it was read", p->name);
	add_header(p, &st, TAR_FILE, STR_NONE);
	uint64_t left = (uint64_t)st.st_size;
	if (left > GATHER) {
		flush(p);
		left -= filejob_send_pages(p->job, fd, left);
	}
	while (left) {
		size_t want = (size_t)MIN(left, (uint64_t)GATHER);
		void *to = buf_reserve(&p->out, want);
		ssize_t n = to ? read(fd, to, want) : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			filejob_fail(p->job, "io", "%.400s: %s", p->name,
				     n < 0 ? strerror(errno) : "it became shorter while it was read");
		buf_commit(&p->out, (size_t)n);
		left -= (uint64_t)n;
		if (p->out.len >= GATHER)
			flush(p);
	}
	buf_append(&p->out, zeros, tar_padding((uint64_t)st.st_size));
}

static void add_link(struct pack *p, int dir, const char *part, const struct stat *st)
{
	char target[TAR_NAME_MAX + 1];
	ssize_t n = readlinkat(dir, part, target, sizeof target);

	if (n < 0)
		filejob_fail_errno(p->job, errno, p->name);
	add_header(p, st, TAR_LINK, str_make(target, (size_t)n));
}

static void walk(struct pack *p, int fd, unsigned depth);

/* The entry's own name is put behind those above for the time being. */
static void add_entry(struct pack *p, int dir, const char *part, unsigned depth)
{
	size_t before = p->name_len, n = strlen(part);
	struct stat st;

	if (fstatat(dir, part, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno == ENOENT)
			return;
		filejob_fail_errno(p->job, errno, part);
	}
	if (before + n + 1 > TAR_NAME_MAX || depth > DEPTH_MAX)
		filejob_fail(p->job, "bad_path", "%.400s: the tree is too deep", p->name);
	memcpy(p->name + before, part, n + 1);
	p->name_len = before + n;
	if (S_ISREG(st.st_mode)) {
		add_file(p, dir, part);
	} else if (S_ISLNK(st.st_mode)) {
		add_link(p, dir, part, &st);
	} else if (S_ISDIR(st.st_mode)) {
		memcpy(p->name + p->name_len, "/", 2);
		p->name_len++;
		add_header(p, &st, TAR_DIRECTORY, STR_NONE);
		int fd = st.st_dev == p->dev ? openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
		if (fd < 0 && st.st_dev == p->dev)
			filejob_fail_errno(p->job, errno, p->name);
		if (fd >= 0)
			walk(p, fd, depth + 1);
	}
	p->name_len = before;
	p->name[before] = '\0';
}

static void walk(struct pack *p, int fd, unsigned depth)
{
	DIR *d = fdopendir(fd);

	if (!d)
		filejob_fail_errno(p->job, errno, p->name);
	for (;;) {
		errno = 0;
		const struct dirent *e = readdir(d);
		if (!e && errno)
			filejob_fail_errno(p->job, errno, p->name);
		if (!e)
			break;
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			add_entry(p, fd, e->d_name, depth);
	}
	closedir(d);
}

void filejob_pack(struct filejob *j)
{
	struct pack p = {.job = j, .out.max = 4 * GATHER};
	_cleanup_free_ char *dir = NULL;
	const char *part;
	struct stat st;

	if (stat(j->path, &st))
		filejob_fail_errno(j, errno, j->path);
	p.dev = st.st_dev;
	if (S_ISDIR(st.st_mode)) {
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024});
		int fd = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			filejob_fail_errno(j, errno, j->path);
		filejob_send_info(j, AT_FDCWD, j->path, &st, NULL, false);
		filejob_flush(j);
		walk(&p, fd, 0);
	} else if (S_ISREG(st.st_mode) && filejob_split(j->path, &dir, &part) == 0) {
		/* A link is followed here, as READ does; what it is called in the archive is the name that was asked
		 * for. */
		_cleanup_free_ char *real = realpath(j->path, NULL);
		if (!real)
			filejob_fail_errno(j, errno, j->path);
		filejob_send_info(j, AT_FDCWD, j->path, &st, NULL, false);
		filejob_flush(j);
		p.name_len = strlen(part);
		memcpy(p.name, part, p.name_len + 1);
		add_file(&p, AT_FDCWD, real);
	} else {
		filejob_fail(j, "unsafe", "%.400s: a device, pipe or socket is not read", j->path);
	}
	if (tar_write_end(&p.out))
		filejob_fail(j, "io", "no memory for the archive");
	flush(&p);
}
