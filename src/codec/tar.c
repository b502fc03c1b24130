/* The reader is a machine of five states. HEADER wants a block; EXTENDED gathers the text of an extended header; BODY
 * hands out data; PADDING skips to the next block; OVER has seen the end. Extended headers add up until an entry uses
 * them.
 *
 * Where extractors differ about which of two values holds, there is no right one: whoever judges an archive by one may
 * be followed by who unpacks it by the other. So each value is said once, and a strict reader writes the entry anew
 * and compares. */
#include "codec/tar.h"

#include <errno.h>
#include <stdio.h>

enum { HEADER, EXTENDED, BODY, PADDING, OVER };
enum { SEEN_PAX = 1, SEEN_NAME = 2, SEEN_TARGET = 4 };

struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, target[100], magic[8], user[32],
		group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "a header is a block");

#define OCTAL_MAX(digits) ((UINT64_C(1) << (3 * (digits))) - 1)

void tar_reader_init(struct tar_reader *r)
{
	*r = (struct tar_reader){.text.max = TAR_EXTENDED_MAX,
				 .name.max = TAR_NAME_MAX,
				 .target.max = TAR_NAME_MAX,
				 .user.max = 256,
				 .group.max = 256};
}

void tar_reader_finish(struct tar_reader *r)
{
	buf_finish(&r->text);
	buf_finish(&r->name);
	buf_finish(&r->target);
	buf_finish(&r->user);
	buf_finish(&r->group);
}

size_t tar_padding(uint64_t size)
{
	return (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}

/* --- numbers --- */

/* Octal with blanks around it, or GNU's base 256. */
static int parse_number(const char *field, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;

	if ((uint8_t)field[0] == 0x80) {
		for (i = 1; i < n; i++) {
			if (v >> 56)
				return -EBADMSG;
			v = v << 8 | (uint8_t)field[i];
		}
		*ret = v;
		return 0;
	}
	while (i < n && field[i] == ' ')
		i++;
	for (; i < n && field[i] >= '0' && field[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(field[i] - '0');
	for (; i < n; i++)
		if (field[i] != ' ' && field[i] != '\0')
			return -EBADMSG;
	*ret = v;
	return 0;
}

static uint32_t parse_small(const char *field, size_t n)
{
	uint64_t v = 0;

	return parse_number(field, n, &v) == 0 && v <= UINT32_MAX ? (uint32_t)v : 0;
}

/* The sum of the block's bytes with blanks for the sum itself; some archivers took the bytes for signed. */
static bool sum_is_right(const struct header *h)
{
	const uint8_t *p = (const uint8_t *)h;
	uint64_t unsigned_sum = 0, want;
	int64_t signed_sum = 0;

	if (parse_number(h->checksum, sizeof h->checksum, &want))
		return false;
	for (size_t i = 0; i < TAR_BLOCK; i++) {
		bool blank = i >= offsetof(struct header, checksum) && i < offsetof(struct header, type);
		unsigned_sum += blank ? ' ' : p[i];
		signed_sum += blank ? ' ' : (int8_t)p[i];
	}
	return want == unsigned_sum || (signed_sum >= 0 && want == (uint64_t)signed_sum);
}

static bool is_zero(const char *p, size_t n)
{
	static const char zeros[TAR_BLOCK];

	return memcmp(p, zeros, n) == 0;
}

static struct str field_text(const char *field, size_t n)
{
	return str_make(field, strnlen(field, n));
}

/* --- extended headers --- */

static int set_once(struct buf *to, struct str value)
{
	if (to->len || value.len == 0 || memchr(value.p, '\0', value.len))
		return -EBADMSG;
	return buf_append_str(to, value) ? -EBADMSG : 0;
}

/* Whole seconds, before a fraction; the time of a file that is older than 1970 is not kept. */
static int take_mtime(struct tar_reader *r, struct str value)
{
	uint64_t v = 0;
	ptrdiff_t dot = str_chr(value, '.');

	if (dot >= 0)
		value.len = (size_t)dot;
	r->has_mtime = true;
	r->mtime = str_parse_u64(value, INT64_MAX / 2, &v) ? 0 : (int64_t)v;
	return 0;
}

static int take_record(struct tar_reader *r, struct str key, struct str value)
{
	if (str_has_prefix(key, STR("GNU.sparse")))
		return -EBADMSG;
	if (r->extended == 'g') { /* of the archive as a whole: not used here, but others would */
		bool matters = str_eq(key, STR("path")) || str_eq(key, STR("linkpath")) || str_eq(key, STR("size"));
		return matters ? -EBADMSG : 0;
	}
	if (str_eq(key, STR("path")))
		return set_once(&r->name, value);
	if (str_eq(key, STR("linkpath")))
		return set_once(&r->target, value);
	if (str_eq(key, STR("mtime")))
		return take_mtime(r, value);
	if (str_eq(key, STR("uname")))
		return value.len ? set_once(&r->user, value) : 0;
	if (str_eq(key, STR("gname")))
		return value.len ? set_once(&r->group, value) : 0;
	if (!str_eq(key, STR("size")))
		return 0;
	if (r->has_size)
		return -EBADMSG;
	r->has_size = true;
	return str_parse_u64(value, INT64_MAX, &r->size) ? -EBADMSG : 0;
}

/* Records "LENGTH KEY=VALUE\n", LENGTH being that of the whole record. */
static int take_pax(struct tar_reader *r, struct str text)
{
	while (text.len) {
		ptrdiff_t blank = str_chr(text, ' ');
		uint64_t n;
		if (blank <= 0 || str_parse_u64(str_make(text.p, (size_t)blank), text.len, &n) ||
		    n < (uint64_t)blank + 2 || text.p[n - 1] != '\n')
			return -EBADMSG;
		struct str record = str_make(text.p + blank + 1, n - (size_t)blank - 2), key;
		if (str_chr(record, '=') <= 0)
			return -EBADMSG;
		str_split(&record, '=', &key);
		int e = take_record(r, key, record);
		if (e)
			return e;
		text = str_make(text.p + n, text.len - n);
	}
	return 0;
}

static int take_extended(struct tar_reader *r)
{
	struct str text = buf_str(&r->text);

	if (r->extended == 'x' || r->extended == 'g')
		return take_pax(r, text);
	text.len = text.len ? strnlen(text.p, text.len) : 0;
	return set_once(r->extended == 'L' ? &r->name : &r->target, text);
}

static void forget_extended(struct tar_reader *r)
{
	buf_clear(&r->name);
	buf_clear(&r->target);
	buf_clear(&r->user);
	buf_clear(&r->group);
	r->has_size = r->has_mtime = false;
	r->seen = 0;
}

/* --- entries --- */

static enum tar_kind kind_of(char type, struct str name)
{
	switch (type) {
	case '0':
	case '7':
		return TAR_FILE;
	case '\0': /* of archives before ustar, where a directory's name ends in a slash */
		return str_has_suffix(name, STR("/")) ? TAR_DIRECTORY : TAR_FILE;
	case '1':
		return TAR_HARD_LINK;
	case '2':
		return TAR_LINK;
	case '5':
		return TAR_DIRECTORY;
	default:
		return TAR_OTHER;
	}
}

static bool is_posix(const struct header *h)
{
	return memcmp(h->magic, "ustar\0" "00", 8) == 0;
}

static struct str header_name(struct tar_reader *r, const struct header *h)
{
	struct str name = field_text(h->name, sizeof h->name), prefix = field_text(h->prefix, sizeof h->prefix);

	if (!is_posix(h) || prefix.len == 0)
		return name;
	snprintf(r->space[0], sizeof r->space[0], "%.*s/%.*s", STR_ARG(prefix), STR_ARG(name));
	return str_of(r->space[0]);
}

static struct str either(const struct buf *extended, struct str field)
{
	return extended->len ? buf_str(extended) : field;
}

/* Each at most once before an entry, and either POSIX's or GNU's. */
static bool may_follow(struct tar_reader *r, char type)
{
	unsigned none_of = type == 'L' ? SEEN_PAX | SEEN_NAME : type == 'K' ? SEEN_PAX | SEEN_TARGET : ~0u;
	bool ok = (r->seen & none_of) == 0 && (!r->strict || type == 'x');

	r->seen |= type == 'x' ? SEEN_PAX : type == 'L' ? SEEN_NAME : type == 'K' ? SEEN_TARGET : 0;
	return ok;
}

static int start_extended(struct tar_reader *r, const struct header *h, uint64_t size)
{
	if (size > TAR_EXTENDED_MAX || !may_follow(r, h->type))
		return -EBADMSG;
	memcpy(r->pax, h, TAR_BLOCK);
	r->extended = h->type;
	r->left = size;
	r->padding = tar_padding(size);
	buf_clear(&r->text);
	r->state = EXTENDED;
	return 0;
}

/* Whether tar_write makes the same headers of what was read. */
static bool is_own(const struct tar_reader *r, const struct tar_entry *e, const struct header *h)
{
	_cleanup_(buf_finish) struct buf b = {0};
	size_t text = r->seen ? r->text.len : 0, before = r->seen ? TAR_BLOCK + text + tar_padding(text) : 0;

	return tar_write(e, &b) == 0 && b.len == before + TAR_BLOCK && memcmp(b.data + before, h, TAR_BLOCK) == 0 &&
	       (before == 0 || (memcmp(b.data, r->pax, TAR_BLOCK) == 0 &&
				memcmp(b.data + TAR_BLOCK, r->text.data, text) == 0));
}

static int start_entry(struct tar_reader *r, const struct header *h, uint64_t size, struct tar_entry *ret)
{
	uint64_t mtime = 0;
	struct str name = either(&r->name, header_name(r, h));
	struct str target = either(&r->target, field_text(h->target, sizeof h->target));
	enum tar_kind kind = kind_of(h->type, name);

	/* some read a prefix whatever the magic says */
	if (!is_posix(h) && !is_zero(h->prefix, sizeof h->prefix))
		return -EBADMSG;
	if (name.len == 0 || h->type == 'S' || ((kind == TAR_LINK || kind == TAR_HARD_LINK) && target.len == 0))
		return -EBADMSG;
	if (r->has_size)
		size = r->size;
	if (kind == TAR_OTHER && h->type >= '1' && h->type <= '6')
		size = 0; /* whatever the field says, nothing follows */
	if (size && kind != TAR_FILE && kind != TAR_OTHER) /* to some these are bytes, to others the next headers */
		return -EBADMSG;
	parse_number(h->mtime, sizeof h->mtime, &mtime);
	*ret = (struct tar_entry){
		.kind = kind,
		.name = name,
		.target = kind == TAR_LINK || kind == TAR_HARD_LINK ? target : STR_NONE,
		.size = size,
		.mode = parse_small(h->mode, sizeof h->mode) & 07777,
		.uid = parse_small(h->uid, sizeof h->uid),
		.gid = parse_small(h->gid, sizeof h->gid),
		.mtime = r->has_mtime ? r->mtime : (int64_t)MIN(mtime, (uint64_t)INT64_MAX / 2),
		.user = either(&r->user, field_text(h->user, sizeof h->user)),
		.group = either(&r->group, field_text(h->group, sizeof h->group)),
	};
	if (r->strict && kind != TAR_OTHER && !is_own(r, ret, h))
		return -EBADMSG;
	r->left = size;
	r->padding = tar_padding(size);
	r->state = BODY;
	return TAR_ENTRY;
}

/* 0: an extended header begins, or a block of the end was passed. */
static int take_header(struct tar_reader *r, const char *block, struct tar_entry *ret)
{
	const struct header *h = (const struct header *)block;
	uint64_t size;

	if (is_zero(block, TAR_BLOCK)) {
		if (r->seen)
			return -EBADMSG;
		if (++r->zeros == 2)
			r->state = OVER;
		return 0;
	}
	if (r->zeros || !sum_is_right(h) || parse_number(h->size, sizeof h->size, &size) || size > INT64_MAX)
		return -EBADMSG;
	if (h->type == 'x' || h->type == 'g' || h->type == 'L' || h->type == 'K')
		return start_extended(r, h, size);
	return start_entry(r, h, size, ret);
}

static struct str take(struct tar_reader *r, struct str *in)
{
	size_t n = (size_t)MIN(r->left, (uint64_t)in->len);
	struct str got = str_make(in->p, n);

	*in = str_make(in->p + n, in->len - n);
	r->left -= n;
	return got;
}

static int gather(struct tar_reader *r, struct str *in)
{
	if (buf_append_str(&r->text, take(r, in)))
		return -EBADMSG;
	if (r->left)
		return 0;
	int e = take_extended(r);
	r->state = PADDING;
	return e;
}

int tar_read(struct tar_reader *r, struct str *in, struct tar_entry *ret_entry, struct str *ret_data)
{
	while (r->state != OVER) {
		int e = 0;
		if (r->state == HEADER) {
			if (in->len < TAR_BLOCK)
				return 0;
			const char *block = in->p;
			*in = str_make(in->p + TAR_BLOCK, in->len - TAR_BLOCK);
			e = take_header(r, block, ret_entry);
		} else if (r->state == PADDING) {
			size_t n = MIN(r->padding, in->len);
			if (r->strict && !is_zero(in->p, n))
				return -EBADMSG;
			*in = str_make(in->p + n, in->len - n);
			r->padding -= n;
			if (r->padding)
				return 0;
			r->state = HEADER;
		} else if (r->state == BODY && r->left == 0) {
			forget_extended(r);
			r->state = PADDING;
		} else if (in->len == 0 && r->left) {
			return 0;
		} else if (r->state == EXTENDED) {
			e = gather(r, in);
		} else {
			*ret_data = take(r, in);
			return TAR_DATA;
		}
		if (e)
			return e;
	}
	return TAR_END;
}

/* --- writing --- */

/* As many digits as the field has room for before its NUL. */
static void put_octal(char *field, size_t n, uint64_t v)
{
	field[n - 1] = '\0';
	for (size_t i = n - 1; i > 0; i--, v >>= 3)
		field[i - 1] = (char)('0' + (v & 7));
}

static void put_text(char *field, size_t n, struct str text)
{
	memcpy(field, text.p ? text.p : "", MIN(n, text.len));
}

static void finish_header(struct header *h)
{
	const uint8_t *p = (const uint8_t *)h;
	unsigned sum = 0;

	memcpy(h->magic, "ustar\0" "00", 8);
	memset(h->checksum, ' ', sizeof h->checksum);
	for (size_t i = 0; i < TAR_BLOCK; i++)
		sum += p[i];
	put_octal(h->checksum, sizeof h->checksum - 1, sum & 0777777);
}

/* The length counts its own digits. */
static int add_pax(struct buf *text, const char *key, struct str value)
{
	size_t body = strlen(key) + value.len + 3, n = body + 1;
	char digits[24];

	while (n != body + (size_t)snprintf(digits, sizeof digits, "%zu", n))
		n = body + strlen(digits);
	int e = buf_printf(text, "%zu %s=", n, key);
	if (e == 0)
		e = buf_append_str(text, value);
	return e ? e : buf_append_byte(text, '\n');
}

static int write_pax(const struct tar_entry *e, struct buf *out)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(TAR_EXTENDED_MAX);
	struct header h = {.type = 'x', .name = "pax"};
	char number[24];
	int r = 0;

	snprintf(number, sizeof number, "%llu", (unsigned long long)e->size);
	if (e->name.len > sizeof h.name)
		r = add_pax(&text, "path", e->name);
	if (r == 0 && e->target.len > sizeof h.target)
		r = add_pax(&text, "linkpath", e->target);
	if (r == 0 && e->size > OCTAL_MAX(11))
		r = add_pax(&text, "size", str_of(number));
	if (r || text.len == 0)
		return r;
	put_octal(h.mode, sizeof h.mode, 0644);
	put_octal(h.size, sizeof h.size, text.len);
	finish_header(&h);
	static const char zeros[TAR_BLOCK];
	r = buf_append(out, &h, sizeof h);
	if (r == 0)
		r = buf_append_str(out, buf_str(&text));
	return r ? r : buf_append(out, zeros, tar_padding(text.len));
}

int tar_write(const struct tar_entry *e, struct buf *out)
{
	static const char types[] = {[TAR_FILE] = '0', [TAR_DIRECTORY] = '5', [TAR_LINK] = '2', [TAR_HARD_LINK] = '1'};
	struct header h = {0};

	if (e->kind < TAR_FILE || e->kind > TAR_HARD_LINK || e->name.len == 0 || e->name.len > TAR_NAME_MAX ||
	    e->target.len > TAR_NAME_MAX || (e->size && e->kind != TAR_FILE))
		return -EINVAL;
	int r = write_pax(e, out);
	if (r)
		return r;
	h.type = types[e->kind];
	put_text(h.name, sizeof h.name, e->name);
	put_text(h.target, sizeof h.target, e->target);
	put_octal(h.mode, sizeof h.mode, e->mode & 07777);
	put_octal(h.uid, sizeof h.uid, e->uid <= OCTAL_MAX(7) ? e->uid : 0);
	put_octal(h.gid, sizeof h.gid, e->gid <= OCTAL_MAX(7) ? e->gid : 0);
	put_octal(h.size, sizeof h.size, e->size <= OCTAL_MAX(11) ? e->size : 0);
	put_octal(h.mtime, sizeof h.mtime, e->mtime > 0 ? MIN((uint64_t)e->mtime, OCTAL_MAX(11)) : 0);
	put_text(h.user, sizeof h.user - 1, e->user);
	put_text(h.group, sizeof h.group - 1, e->group);
	finish_header(&h);
	return buf_append(out, &h, sizeof h);
}

int tar_write_end(struct buf *out)
{
	static const char zeros[2 * TAR_BLOCK];

	return buf_append(out, zeros, sizeof zeros);
}
