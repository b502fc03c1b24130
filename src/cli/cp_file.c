/* One file, either way. What comes is written under a name of its own and put in place once it is whole. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "cli/cp_internal.h"
#include "cli/interrupt.h"

/* --- in --- */

struct upload {
	struct copy *k;
	int fd;
};

static ssize_t on_read(void *user, void *p, size_t n)
{
	struct upload *u = user;
	ssize_t got;

	do
		got = read(u->fd, p, n);
	while (got < 0 && errno == EINTR && !interrupted());
	if (got < 0)
		return error_set(&u->k->c->error, -errno, "reading: %s", strerror(errno));
	u->k->done += (uint64_t)got;
	return got;
}

int copy_file_in(struct copy *k, const char *src, const char *dst)
{
	bool from_stdin = strcmp(src, "-") == 0;
	_cleanup_close_ int opened = from_stdin ? -1 : open(src, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct upload u = {.k = k, .fd = from_stdin ? STDIN_FILENO : opened};
	_cleanup_(reply_finish) struct reply r = {0};
	struct stat st;

	if (u.fd < 0 || fstat(u.fd, &st)) {
		error_set(&k->c->error, -errno, "%s: %s", src, strerror(errno));
		return EXIT_FAILED;
	}
	_cleanup_free_ char *base = copy_url(k, "", dst);
	_cleanup_free_ char *mode = from_stdin ? xstrdup("") : xasprintf("&mode=%04o", (unsigned)st.st_mode & 0777);
	_cleanup_free_ char *url = xasprintf("%s%s%s", base, mode, k->parents ? "&parents=true" : "");
	/* of standard input only what is left of it is sent, and how much that is shows at its end */
	bool known = S_ISREG(st.st_mode) && !from_stdin;
	struct transfer t = {
	        .method = "PUT", .path = url, .read = on_read, .size = known ? st.st_size : -1, .user = &u};
	k->total = known ? (uint64_t)st.st_size : 0;
	int e = client_transfer(k->c->client, &t, &r, &k->c->error);
	if (e && !k->parents && strcmp(client_error_code(k->c->client), "file_not_found") == 0) {
		k->c->error = (struct error){0};
		error_set(&k->c->error, -ENOENT, "there is no directory for %s; --parents makes it", dst);
	}
	if (e)
		return copy_failed(k, e);
	k->files = 1;
	return 0;
}

/* --- out --- */

struct download {
	struct copy *k;
	struct transfer *t;
	int fd;
};

static int on_write(void *user, const void *data, size_t n)
{
	struct download *d = user;
	const char *p = data;

	d->k->total = d->t->total;
	while (n) {
		ssize_t done = write(d->fd, p, n);
		if (done < 0 && errno == EINTR && !interrupted())
			continue;
		if (done < 0)
			return error_set(&d->k->c->error, -errno, "writing: %s", strerror(errno));
		p += done;
		n -= (size_t)done;
		d->k->done += (uint64_t)done;
	}
	return 0;
}

static int fetch(struct copy *k, const char *src, int fd, unsigned *ret_mode)
{
	_cleanup_free_ char *url = copy_url(k, "", src);
	_cleanup_(reply_finish) struct reply r = {0};
	struct download d = {.k = k, .fd = fd};
	struct transfer t = {.method = "GET", .path = url, .write = on_write, .user = &d};

	d.t = &t;
	int e = client_transfer(k->c->client, &t, &r, &k->c->error);
	*ret_mode = t.mode;
	return e;
}

/* A name that nothing has yet in that directory, and an empty file there. */
static int open_part(int dir, char name[32])
{
	for (unsigned i = 0; i < 16; i++) {
		uint64_t random;
		if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
			return -EIO;
		snprintf(name, 32, ".iron-%016llx", (unsigned long long)random);
		int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0 || errno != EEXIST)
			return fd >= 0 ? fd : -errno;
	}
	return -EEXIST;
}

static mode_t local_mode(unsigned sent)
{
	mode_t mask = umask(0);
	umask(mask);
	return (sent ? sent & 0777 : 0666) & ~mask;
}

/* Into the directory `dir`, as `name`: whole, or not at all. */
static int fetch_whole(struct copy *k, const char *src, int dir, const char *name)
{
	char part[32];
	unsigned mode = 0;
	_cleanup_close_ int fd = open_part(dir, part);

	if (fd < 0) {
		error_set(&k->c->error, fd, "%s: %s", k->destination, strerror(-fd));
		return EXIT_FAILED;
	}
	int e = fetch(k, src, fd, &mode);
	if (e == 0 && fchmod(fd, local_mode(mode)))
		e = -errno;
	if (e == 0 && interrupted())
		e = -EINTR;
	if (e == 0 && renameat(dir, part, dir, name))
		e = error_set(&k->c->error, -errno, "%s: %s", k->destination, strerror(errno));
	if (e == 0)
		return 0;
	unlinkat(dir, part, 0);
	return copy_failed(k, e);
}

int copy_file_out(struct copy *k, const char *src, const char *dst)
{
	_cleanup_free_ char *real = realpath(dst, NULL); /* a link of this machine's user is theirs to be followed */
	const char *path = real ? real : dst, *slash = strrchr(path, '/');
	unsigned mode;
	struct stat st;
	int e;

	k->files = 1;
	bool special = strcmp(dst, "-") != 0 && stat(dst, &st) == 0 && !S_ISREG(st.st_mode);
	if (strcmp(dst, "-") == 0 || special) {
		_cleanup_close_ int opened = special ? open(dst, O_WRONLY | O_CLOEXEC | O_NOCTTY) : -1;
		if (special && opened < 0)
			return copy_failed(k, error_set(&k->c->error, -errno, "%s: %s", dst, strerror(errno)));
		e = fetch(k, src, special ? opened : STDOUT_FILENO, &mode);
		return e ? copy_failed(k, e) : 0;
	}
	_cleanup_free_ char *directory = slash == path ? xstrdup("/")
	                                 : slash       ? xstrndup(path, (size_t)(slash - path))
	                                               : xstrdup(".");
	_cleanup_close_ int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return copy_failed(k, error_set(&k->c->error, -errno, "%s: %s", directory, strerror(errno)));
	return fetch_whole(k, src, dir, slash ? slash + 1 : path);
}
