#include "base/buf.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_finish(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.max = b->max};
}

void buf_clear(struct buf *b)
{
	b->len = 0;
	b->failed = false;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
		return;
	}
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

void *buf_reserve(struct buf *b, size_t n)
{
	size_t max = b->max ? b->max : BUF_DEFAULT_MAX;

	if (n > max || b->len > max - n) {
		b->failed = true;
		return NULL;
	}
	if (!b->data || b->len + n > b->cap) {
		size_t cap = b->cap ? b->cap : 64;
		while (cap < b->len + n)
			cap *= 2;
		b->data = xrealloc(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
	b->len += n;
}

int buf_append(struct buf *b, const void *p, size_t n)
{
	void *to = buf_reserve(b, n);
	if (!to)
		return -EMSGSIZE;
	if (n)
		memcpy(to, p, n);
	b->len += n;
	return 0;
}

int buf_append_str(struct buf *b, struct str s)
{
	return buf_append(b, s.p, s.len);
}

int buf_append_z(struct buf *b, const char *z)
{
	return buf_append(b, z, strlen(z));
}

int buf_append_byte(struct buf *b, uint8_t c)
{
	return buf_append(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *to = n < 0 ? NULL : buf_reserve(b, (size_t)n + 1);
	if (to) {
		vsnprintf(to, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
	return to ? 0 : -EMSGSIZE;
}

int buf_append_u16(struct buf *b, uint16_t v)
{
	v = htole16(v);
	return buf_append(b, &v, sizeof v);
}

int buf_append_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	return buf_append(b, &v, sizeof v);
}

int buf_append_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	return buf_append(b, &v, sizeof v);
}

char *buf_take_z(struct buf *b)
{
	b->data = xrealloc(b->data, b->len + 1);
	b->data[b->len] = '\0';
	char *z = (char *)take_ptr(b->data);
	b->len = b->cap = 0;
	return z;
}
