#include "cli/tar.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define META_MAX ((size_t)64 << 10)

struct head { /* ustar */
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, target[100], magic[6], version[2], user[32],
		group[32], major[8], minor[8], prefix[155], padding[12];
};
_Static_assert(sizeof(struct head) == TAR_BLOCK, "a header is a block");

/* --- reading --- */

/* Octal, or GNU's base 256 (the top bit of the first byte). -EBADMSG */
static int number(const char *field, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;

	if ((unsigned char)field[0] & 0x80) {
		for (i = 1; i < n; i++) {
			if (v >> 55)
				return -EBADMSG;
			v = v << 8 | (unsigned char)field[i];
		}
		*ret = v;
		return (unsigned char)field[0] == 0x80 ? 0 : -EBADMSG;
	}
	while (i < n && field[i] == ' ')
		i++;
	for (; i < n && field[i] >= '0' && field[i] <= '7'; i++)
		v = v * 8 + (uint64_t)(field[i] - '0');
	if (i < n && field[i] != ' ' && field[i] != '\0')
		return -EBADMSG;
	*ret = v;
	return 0;
}

static unsigned checksum(const struct head *h)
{
	const uint8_t *p = (const uint8_t *)h;
	unsigned sum = 0;

	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += i >= offsetof(struct head, checksum) && i < offsetof(struct head, checksum) + 8 ? ' ' : p[i];
	return sum;
}

static bool is_zero(const uint8_t *block)
{
	for (size_t i = 0; i < TAR_BLOCK; i++)
		if (block[i])
			return false;
	return true;
}

static struct str field(const char *p, size_t n)
{
	return str_make(p, strnlen(p, n));
}

/* "12 path=a/b\n" … of a pax header. */
static int take_pax(struct tar_reader *r)
{
	struct str rest = buf_str(&r->meta);

	while (rest.len) {
		struct str line = rest, length, key;
		uint64_t n;
		if (!str_split(&line, ' ', &length) || str_parse_u64(length, rest.len, &n) || n < length.len + 3 || rest.p[n - 1] != '\n')
			return -EBADMSG;
		line = str_make(rest.p + length.len + 1, (size_t)n - length.len - 2);
		rest = str_make(rest.p + n, rest.len - (size_t)n);
		if (!str_split(&line, '=', &key) || !line.p)
			return -EBADMSG;
		if (str_eq(key, STR("path")) || str_eq(key, STR("linkpath"))) {
			struct buf *to = key.len == 4 ? &r->path : &r->target;
			buf_clear(to);
			if (line.len > TAR_NAME_MAX || buf_append_str(to, line))
				return -EBADMSG;
		} else if (str_eq(key, STR("size"))) {
			if (str_parse_u64(line, INT64_MAX, &r->size))
				return -EBADMSG;
			r->has_size = true;
		} else if (str_eq(key, STR("mtime"))) {
			struct str seconds;
			uint64_t s;
			str_split(&line, '.', &seconds);
			if (str_parse_u64(seconds, INT64_MAX / 1000, &s) == 0)
				r->mtime_ms = (int64_t)s * 1000;
		} else if (str_has_prefix(key, STR("GNU.sparse"))) {
			return -EBADMSG;
		}
	}
	return 0;
}

static int take_meta(struct tar_reader *r)
{
	struct buf *to = r->meta_type == 'L' ? &r->path : &r->target;

	if (r->meta_type == 'x')
		return take_pax(r);
	if (r->meta_type == 'g')
		return 0;
	struct str name = field((const char *)r->meta.data, r->meta.len);
	buf_clear(to);
	return name.len > TAR_NAME_MAX ? -EBADMSG : buf_append_str(to, name);
}

static void forget(struct tar_reader *r)
{
	buf_clear(&r->path);
	buf_clear(&r->target);
	r->has_size = false;
	r->mtime_ms = -1;
}

static enum tar_kind kind_of(char type)
{
	switch (type) {
	case '0':
	case '\0':
	case '7':
		return TAR_FILE;
	case '5':
		return TAR_DIRECTORY;
	case '2':
		return TAR_LINK;
	case '1':
		return TAR_HARD_LINK;
	default:
		return TAR_OTHER;
	}
}

/* The header of what a person would call an entry. */
static int take_entry(struct tar_reader *r, const struct head *h, uint64_t size, const struct tar_taker *to)
{
	char name[sizeof h->prefix + 1 + sizeof h->name + 1];
	struct tar_entry e = {.kind = kind_of(h->type)};
	struct str prefix = field(h->prefix, sizeof h->prefix), own = field(h->name, sizeof h->name);
	uint64_t mode, mtime;

	if (number(h->mode, sizeof h->mode, &mode) || number(h->mtime, sizeof h->mtime, &mtime))
		return -EBADMSG;
	/* GNU's form has other things where the prefix is */
	bool posix = memcmp(h->magic, "ustar", 6) == 0;
	int n = snprintf(name, sizeof name, "%.*s%s%.*s", posix ? (int)prefix.len : 0, prefix.p, posix && prefix.len ? "/" : "", STR_ARG(own));
	e.path = r->path.len ? buf_str(&r->path) : str_make(name, (size_t)n);
	e.target = r->target.len ? buf_str(&r->target) : field(h->target, sizeof h->target);
	e.mode = mode & 07777;
	e.mtime_ms = r->mtime_ms >= 0 ? r->mtime_ms : mtime < INT64_MAX / 1000 ? (int64_t)mtime * 1000 : 0;
	e.size = e.kind == TAR_FILE ? size : 0;
	if (e.kind == TAR_FILE && e.path.len && e.path.p[e.path.len - 1] == '/')
		e.kind = TAR_DIRECTORY;
	r->is_file = e.kind == TAR_FILE;
	int result = to->entry(to->user, &e);
	forget(r);
	return result;
}

static int take_head(struct tar_reader *r, const struct tar_taker *to)
{
	struct head h;
	uint64_t size, sum;

	if (is_zero(r->block)) {
		r->at = ++r->zeros == 2 ? TAR_AT_END : TAR_AT_HEAD;
		return 0;
	}
	memcpy(&h, r->block, sizeof h);
	r->zeros = 0;
	if (memcmp(h.magic, "ustar", 5) != 0 || number(h.checksum, sizeof h.checksum, &sum) || sum != checksum(&h) ||
	    number(h.size, sizeof h.size, &size) || size > INT64_MAX)
		return -EBADMSG;
	bool meta = h.type == 'x' || h.type == 'g' || h.type == 'L' || h.type == 'K';
	if (meta && size > META_MAX)
		return -EBADMSG;
	if (!meta && r->has_size)
		size = r->size;
	/* links and directories may name a size, and nothing follows */
	if (!meta && kind_of(h.type) != TAR_FILE && kind_of(h.type) != TAR_OTHER)
		size = 0;
	r->left = size;
	r->padding = tar_pad(size);
	r->meta_type = meta ? h.type : 0;
	r->is_file = false;
	buf_clear(&r->meta);
	int e = meta ? 0 : take_entry(r, &h, size, to);
	r->at = meta ? TAR_AT_META : TAR_AT_DATA;
	return e;
}

/* At the end of an entry's bytes. */
static int take_end(struct tar_reader *r, const struct tar_taker *to)
{
	int e = r->at == TAR_AT_META ? take_meta(r) : r->is_file ? to->end(to->user) : 0;

	r->at = TAR_AT_PADDING;
	return e;
}

int tar_read(struct tar_reader *r, struct str bytes, const struct tar_taker *to)
{
	int e = 0;

	if (r->meta.max == 0) {
		r->meta.max = META_MAX;
		forget(r);
	}
	while (e == 0 && bytes.len) {
		size_t n = bytes.len;
		if (r->at == TAR_AT_HEAD) {
			n = MIN(n, TAR_BLOCK - r->have);
			memcpy(r->block + r->have, bytes.p, n);
			r->have += n;
		} else if (r->at == TAR_AT_PADDING) {
			n = (size_t)MIN((uint64_t)n, r->padding);
			r->padding -= n;
		} else if (r->at != TAR_AT_END) {
			n = (size_t)MIN((uint64_t)n, r->left);
			if (n && r->at == TAR_AT_META)
				e = buf_append(&r->meta, bytes.p, n);
			else if (n && r->is_file)
				e = to->data(to->user, bytes.p, n);
			r->left -= n;
		}
		bytes = str_make(bytes.p + n, bytes.len - n);
		if (e == 0 && r->at == TAR_AT_HEAD && r->have == TAR_BLOCK) {
			r->have = 0;
			e = take_head(r, to);
		}
		if (e == 0 && (r->at == TAR_AT_DATA || r->at == TAR_AT_META) && r->left == 0)
			e = take_end(r, to);
		if (r->at == TAR_AT_PADDING && r->padding == 0)
			r->at = TAR_AT_HEAD;
	}
	return e;
}

bool tar_is_whole(const struct tar_reader *r)
{
	return r->at == TAR_AT_END;
}

void tar_reader_finish(struct tar_reader *r)
{
	buf_finish(&r->meta);
	buf_finish(&r->path);
	buf_finish(&r->target);
}

/* --- writing --- */

static void octal(char *field, size_t n, uint64_t v)
{
	field[n - 1] = '\0';
	for (size_t i = n - 1; i-- > 0; v >>= 3)
		field[i] = (char)('0' + (v & 7));
}

static void fill_head(struct head *h, char type, uint64_t size, unsigned mode, int64_t mtime_ms)
{
	uint64_t seconds = mtime_ms > 0 ? (uint64_t)mtime_ms / 1000 : 0;

	*h = (struct head){.type = type, .magic = "ustar", .version = {'0', '0'}};
	octal(h->mode, sizeof h->mode, mode);
	octal(h->uid, sizeof h->uid, 0);
	octal(h->gid, sizeof h->gid, 0);
	octal(h->size, sizeof h->size, size >> 33 ? 0 : size);
	octal(h->mtime, sizeof h->mtime, seconds >> 33 ? 0 : seconds);
}

static int put_head(struct buf *out, struct head *h)
{
	octal(h->checksum, 7, checksum(h));
	h->checksum[7] = ' ';
	return buf_append(out, h, sizeof *h);
}

static int put_zeros(struct buf *out, size_t n)
{
	static const uint8_t zeros[2 * TAR_BLOCK];
	return buf_append(out, zeros, n);
}

/* A record counts its own length too. */
static void put_record(struct buf *out, const char *key, struct str value)
{
	size_t rest = 1 + strlen(key) + 1 + value.len + 1, n = rest + 1;

	while (n != rest + (size_t)snprintf(NULL, 0, "%zu", n))
		n = rest + (size_t)snprintf(NULL, 0, "%zu", n);
	buf_printf(out, "%zu %s=", n, key);
	buf_append_str(out, value);
	buf_append_byte(out, '\n');
}

static int put_pax(struct buf *out, const struct buf *records)
{
	struct head h;

	fill_head(&h, 'x', records->len, 0644, 0);
	memcpy(h.name, "pax", 3);
	int r = put_head(out, &h);
	if (r == 0)
		r = buf_append(out, records->data, records->len);
	return r ? r : put_zeros(out, tar_pad(records->len));
}

int tar_write(struct buf *out, const struct tar_entry *e)
{
	static const char types[] = {[TAR_FILE] = '0', [TAR_DIRECTORY] = '5', [TAR_LINK] = '2', [TAR_HARD_LINK] = '1'};
	_cleanup_(buf_finish) struct buf records = {0};
	uint64_t size = e->kind == TAR_FILE ? e->size : 0;
	struct head h;
	int r = 0;

	fill_head(&h, types[e->kind], size, e->mode & 07777, e->mtime_ms);
	if (e->path.len > sizeof h.name)
		put_record(&records, "path", e->path);
	if (e->target.len > sizeof h.target)
		put_record(&records, "linkpath", e->target);
	if (size >> 33) {
		char text[24];
		snprintf(text, sizeof text, "%llu", (unsigned long long)size);
		put_record(&records, "size", str_of(text));
	}
	if (records.len)
		r = put_pax(out, &records);
	memcpy(h.name, e->path.p, MIN(e->path.len, sizeof h.name));
	if (e->target.len)
		memcpy(h.target, e->target.p, MIN(e->target.len, sizeof h.target));
	return r || records.failed ? -EMSGSIZE : put_head(out, &h);
}

int tar_write_end(struct buf *out)
{
	return put_zeros(out, 2 * TAR_BLOCK);
}
