/* Directories with what is below them: as one archive, either way. What comes is put in place by cp_local.c, which
 * refuses whatever would reach outside; what is sent follows no link of this machine either. */
#include <errno.h>
#include <string.h>

#include "cli/cp_internal.h"
#include "cli/cp_local.h"
#include "cli/cp_walk.h"
#include "codec/tar.h"

#define ENTRIES_MAX 2000000

/* --- out --- */

struct unpack {
	struct copy *k;
	struct tar_reader reader;
	struct buf in; /* what the reader has not taken yet: less than a block */
	struct local_tree *tree;
	uint64_t left; /* of the file that is being written */
	unsigned mode;
	int64_t mtime_ms;
	bool in_file, whole;
};

static int take_entry(struct unpack *u, const struct tar_entry *e)
{
	struct error *why = &u->k->c->error;

	if (++u->k->files > ENTRIES_MAX)
		return error_set(why, -E2BIG, "refused: the VM sent more than %d entries", ENTRIES_MAX);
	switch (e->kind) {
	case TAR_DIRECTORY:
		return local_tree_directory(u->tree, e->name, e->mode, why);
	case TAR_LINK:
		return local_tree_link(u->tree, e->name, e->target, why);
	case TAR_HARD_LINK:
		return local_tree_hard_link(u->tree, e->name, e->target, why);
	case TAR_FILE:
		u->in_file = true;
		u->left = e->size;
		u->mode = e->mode;
		u->mtime_ms = e->mtime > 0 && e->mtime < INT64_MAX / 1000 ? e->mtime * 1000 : 0;
		return local_tree_file(u->tree, e->name, why);
	case TAR_OTHER:
		break;
	}
	return error_set(why, -EPERM, "refused: the VM sent a device or a pipe: '%.*s'", STR_ARG(e->name));
}

static int take_data(struct unpack *u, struct str data)
{
	int r = u->in_file ? local_tree_write(u->tree, data.p, data.len, &u->k->c->error) : 0;

	u->left -= MIN(u->left, (uint64_t)data.len);
	u->k->done += data.len;
	return r;
}

static int on_bytes(void *user, const void *p, size_t n)
{
	struct unpack *u = user;
	struct tar_entry e;
	struct str data;
	int event = 0, r = 0;

	if (u->whole)
		return 0;
	buf_append(&u->in, p, n);
	struct str in = buf_str(&u->in);
	while (r == 0 && (event = tar_read(&u->reader, &in, &e, &data)) > 0) {
		if (event == TAR_END) {
			u->whole = true;
			break;
		}
		r = event == TAR_ENTRY ? take_entry(u, &e) : take_data(u, data);
		if (r == 0 && u->in_file && u->left == 0) {
			u->in_file = false;
			r = local_tree_file_end(u->tree, u->mode, u->mtime_ms, &u->k->c->error);
		}
	}
	buf_consume(&u->in, u->in.len - in.len);
	if (event < 0 || u->in.failed)
		return error_set(&u->k->c->error, -EPROTO, "what the VM sent is no archive");
	return r;
}

int copy_tree_out(struct copy *k, const char *src, const char *dst)
{
	_cleanup_free_ char *url = copy_url(k, "/archive", src);
	_cleanup_(reply_finish) struct reply r = {0};
	struct unpack u = {.k = k};
	struct transfer t = {.method = "GET", .path = url, .write = on_bytes, .user = &u};

	if (local_tree_open(dst, &u.tree, &k->c->error))
		return EXIT_FAILED;
	tar_reader_init(&u.reader);
	int e = client_transfer(k->c->client, &t, &r, &k->c->error);
	if (e == 0 && !u.whole)
		e = error_set(&k->c->error, -EPROTO, "the archive broke off; what was whole by then is there");
	if (e == 0)
		e = local_tree_finish(u.tree, &k->c->error);
	local_tree_close(u.tree);
	tar_reader_finish(&u.reader);
	buf_finish(&u.in);
	return e ? copy_failed(k, e) : 0;
}

/* --- in --- */

struct pack {
	struct copy *k;
	struct walk *walk;
	struct buf out; /* headers and padding, on their way */
	size_t sent;
	int file; /* whose bytes are next, -1: none */
	uint64_t left, size;
	bool over;
};

/* The next entry's header into out. 1: there was one. */
static int begin_entry(struct pack *p)
{
	struct walk_entry w;
	struct error *why = &p->k->c->error;

	int r = walk_next(p->walk, &w, why);
	if (r <= 0)
		return r;
	struct tar_entry e = {.kind = w.kind == 'd'   ? TAR_DIRECTORY
	                              : w.kind == 'l' ? TAR_LINK
	                                              : TAR_FILE,
	                      .name = str_of(w.path),
	                      .target = str_of(w.target),
	                      .size = w.size,
	                      .mode = w.mode,
	                      .mtime = w.mtime_ms / 1000};
	p->file = w.fd;
	p->left = p->size = e.kind == TAR_FILE ? w.size : 0;
	p->k->files++;
	return tar_write(&e, &p->out) ? error_set(why, -EMSGSIZE, "%s: too long a name", w.path) : 1;
}

/* A file that shrank under our hands is filled up with zeros: its size has been said. */
static ssize_t read_file(struct pack *p, void *to, size_t n)
{
	ssize_t got = 0;

	n = (size_t)MIN((uint64_t)n, p->left);
	if (p->file >= 0)
		got = read(p->file, to, n);
	if (got <= 0) {
		if (p->file >= 0)
			out_warn("a file became shorter while it was read; its end is zeros");
		close(take_fd(p->file));
		memset(to, 0, n);
		got = (ssize_t)n;
	}
	p->left -= (uint64_t)got;
	p->k->done += (uint64_t)got;
	return got;
}

static ssize_t on_read(void *user, void *to, size_t n)
{
	struct pack *p = user;

	for (;;) {
		size_t ready = p->out.len - p->sent;
		if (ready) {
			n = MIN(n, ready);
			memcpy(to, p->out.data + p->sent, n);
			p->sent += n;
			return (ssize_t)n;
		}
		buf_clear(&p->out);
		p->sent = 0;
		if (p->left)
			return read_file(p, to, n);
		if (p->file >= 0)
			close(take_fd(p->file));
		if (p->over)
			return 0;
		static const uint8_t zeros[TAR_BLOCK];
		buf_append(&p->out, zeros, tar_padding(p->size));
		p->size = 0;
		int r = begin_entry(p);
		if (r < 0)
			return r;
		if (r == 0) {
			tar_write_end(&p->out);
			p->over = true;
		}
	}
}

/* How many bytes there will be, for the bar: a look at everything first, which reads no file. */
static int measure(struct copy *k, const char *src)
{
	struct walk_entry e;
	struct walk *w = NULL;

	int r = walk_open(src, false, &w, &k->c->error);
	while (r == 0 && (r = walk_next(w, &e, &k->c->error)) == 1) {
		k->total += e.kind == 'f' ? e.size : 0;
		r = copy_tick(k);
	}
	walk_close(w);
	return r;
}

int copy_tree_in(struct copy *k, const char *src, const char *dst)
{
	_cleanup_free_ char *url = copy_url(k, "/archive", dst);
	_cleanup_(reply_finish) struct reply r = {0};
	struct pack p = {.k = k, .file = -1};
	struct transfer t = {.method = "PUT", .path = url, .read = on_read, .size = -1, .user = &p};

	int e = measure(k, src);
	if (e == 0)
		e = walk_open(src, true, &p.walk, &k->c->error);
	if (e == 0)
		e = client_transfer(k->c->client, &t, &r, &k->c->error);
	bool missed = p.walk && walk_missed(p.walk);
	k->skipped = p.walk ? walk_skipped(p.walk) : 0;
	walk_close(p.walk);
	buf_finish(&p.out);
	if (p.file >= 0)
		close(p.file);
	if (e)
		return copy_failed(k, e);
	if (missed) {
		error_set(&k->c->error, -EACCES, "some files could not be read; all others were copied");
		return EXIT_FAILED;
	}
	return 0;
}
