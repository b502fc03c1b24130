#include "codec/wire.h"

#include <endian.h>
#include <errno.h>

static bool above(const struct wire_field *f, uint64_t v)
{
	return f->max && v > f->max;
}

static int encode_field(const struct wire_field *f, const void *at, struct buf *out)
{
	switch (f->kind) {
	case WIRE_u8:
		return above(f, *(const uint8_t *)at) ? -EINVAL : buf_append_byte(out, *(const uint8_t *)at);
	case WIRE_u16:
		return above(f, *(const uint16_t *)at) ? -EINVAL : buf_append_u16(out, *(const uint16_t *)at);
	case WIRE_u32:
		return above(f, *(const uint32_t *)at) ? -EINVAL : buf_append_u32(out, *(const uint32_t *)at);
	case WIRE_u64:
		return above(f, *(const uint64_t *)at) ? -EINVAL : buf_append_u64(out, *(const uint64_t *)at);
	case WIRE_i64:
		return buf_append_u64(out, (uint64_t) * (const int64_t *)at);
	case WIRE_flag:
		return buf_append_byte(out, *(const bool *)at ? 1 : 0);
	case WIRE_str:
	case WIRE_list: {
		const struct str *s = at;
		if (s->len > f->max)
			return -EINVAL;
		int r = buf_append_u32(out, (uint32_t)s->len);
		return r ? r : buf_append_str(out, *s);
	}
	}
	return -EINVAL;
}

int wire_encode(const struct wire_type *t, const void *record, struct buf *out)
{
	size_t start = out->len;

	for (size_t i = 0; i < t->n; i++) {
		int r = encode_field(&t->fields[i], (const char *)record + t->fields[i].offset, out);
		if (r) {
			out->len = start;
			return r;
		}
	}
	return 0;
}

static bool take(struct str *in, void *to, size_t n)
{
	if (in->len < n)
		return false;
	memcpy(to, in->p, n);
	in->p += n;
	in->len -= n;
	return true;
}

static bool take_str(struct str *in, uint64_t max, struct str *ret)
{
	uint32_t n;

	if (!take(in, &n, sizeof n))
		return false;
	n = le32toh(n);
	if (n > max || n > in->len)
		return false;
	*ret = str_make(in->p, n);
	in->p += n;
	in->len -= n;
	return true;
}

static bool list_is_framed(struct str list)
{
	struct str item;
	while (list.len)
		if (!take_str(&list, UINT32_MAX, &item))
			return false;
	return true;
}

static bool decode_field(const struct wire_field *f, struct str *in, void *at)
{
	switch (f->kind) {
	case WIRE_u8:
		return take(in, at, 1) && !above(f, *(uint8_t *)at);
	case WIRE_u16: {
		uint16_t *v = at;
		if (!take(in, v, sizeof *v))
			return false;
		*v = le16toh(*v);
		return !above(f, *v);
	}
	case WIRE_u32: {
		uint32_t *v = at;
		if (!take(in, v, sizeof *v))
			return false;
		*v = le32toh(*v);
		return !above(f, *v);
	}
	case WIRE_u64:
	case WIRE_i64: {
		uint64_t *v = at;
		if (!take(in, v, sizeof *v))
			return false;
		*v = le64toh(*v);
		return f->kind == WIRE_i64 || !above(f, *v);
	}
	case WIRE_flag: {
		uint8_t v;
		if (!take(in, &v, 1) || v > 1)
			return false;
		*(bool *)at = v;
		return true;
	}
	case WIRE_str:
		return take_str(in, f->max, at);
	case WIRE_list:
		return take_str(in, f->max, at) && list_is_framed(*(struct str *)at);
	}
	return false;
}

int wire_decode_prefix(const struct wire_type *t, struct str *in, void *ret)
{
	struct str rest = *in;

	for (size_t i = 0; i < t->n; i++) {
		if (!decode_field(&t->fields[i], &rest, (char *)ret + t->fields[i].offset)) {
			memset(ret, 0, t->size);
			return -EBADMSG;
		}
	}
	*in = rest;
	return 0;
}

int wire_decode(const struct wire_type *t, struct str in, void *ret)
{
	int r = wire_decode_prefix(t, &in, ret);
	if (r == 0 && in.len) {
		memset(ret, 0, t->size);
		return -EBADMSG;
	}
	return r;
}

int wire_list_add(struct buf *list, struct str item)
{
	size_t start = list->len;
	int r = buf_append_u32(list, (uint32_t)item.len);
	if (r == 0)
		r = buf_append_str(list, item);
	if (r)
		list->len = start;
	return r;
}

int wire_list_add_z(struct buf *list, const char *item)
{
	return wire_list_add(list, str_of(item));
}

int wire_list_add_u64(struct buf *list, uint64_t v)
{
	v = htole64(v);
	return wire_list_add(list, str_make(&v, sizeof v));
}

int wire_list_add_record(struct buf *list, const struct wire_type *t, const void *record)
{
	size_t start = list->len;
	int r = buf_append_u32(list, 0);
	if (r == 0)
		r = wire_encode(t, record, list);
	if (r) {
		list->len = start;
		return r;
	}
	uint32_t n = htole32((uint32_t)(list->len - start - 4));
	memcpy(list->data + start, &n, sizeof n);
	return 0;
}

bool wire_list_next(struct str *list, struct str *ret_item)
{
	return take_str(list, UINT32_MAX, ret_item);
}

bool wire_list_next_u64(struct str *list, uint64_t *ret)
{
	struct str item;

	if (!take_str(list, sizeof *ret, &item) || item.len != sizeof *ret)
		return false;
	memcpy(ret, item.p, sizeof *ret);
	*ret = le64toh(*ret);
	return true;
}

size_t wire_list_count(struct str list)
{
	size_t n = 0;
	struct str item;
	while (wire_list_next(&list, &item))
		n++;
	return n;
}
