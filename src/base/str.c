#include "base/str.h"

#include <errno.h>

#include "base/cleanup.h"

static unsigned char lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

bool str_ieq(struct str a, struct str b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++)
		if (lower((unsigned char)a.p[i]) != lower((unsigned char)b.p[i]))
			return false;
	return true;
}

bool str_has_prefix(struct str s, struct str prefix)
{
	return s.len >= prefix.len && str_eq(str_make(s.p, prefix.len), prefix);
}

bool str_has_suffix(struct str s, struct str suffix)
{
	return s.len >= suffix.len && str_eq(str_make(s.p + (s.len - suffix.len), suffix.len), suffix);
}

ptrdiff_t str_chr(struct str s, char c)
{
	const char *at = s.len ? memchr(s.p, c, s.len) : NULL;
	return at ? at - s.p : -1;
}

struct str str_trim(struct str s, const char *set)
{
	while (s.len && s.p[0] && strchr(set, s.p[0])) {
		s.p++;
		s.len--;
	}
	while (s.len && s.p[s.len - 1] && strchr(set, s.p[s.len - 1]))
		s.len--;
	return s;
}

bool str_split(struct str *s, char sep, struct str *ret_head)
{
	if (!s->p)
		return false;
	ptrdiff_t at = str_chr(*s, sep);
	if (at < 0) {
		*ret_head = *s;
		*s = STR_NONE;
		return true;
	}
	*ret_head = str_make(s->p, (size_t)at);
	*s = str_make(s->p + at + 1, s->len - (size_t)at - 1);
	return true;
}

char *str_dup(struct str s)
{
	char *z = xmalloc(s.len + 1);
	if (s.len)
		memcpy(z, s.p, s.len);
	z[s.len] = '\0';
	return z;
}

int str_copy(struct str s, char *ret, size_t size)
{
	if (s.len + 1 > size)
		return -EMSGSIZE;
	if (str_chr(s, '\0') >= 0)
		return -EINVAL;
	if (s.len)
		memcpy(ret, s.p, s.len);
	ret[s.len] = '\0';
	return 0;
}

int str_parse_u64(struct str s, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (s.len == 0 || (s.len > 1 && s.p[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10U, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
			return -ERANGE;
	}
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int str_cmp(struct str a, struct str b)
{
	size_t n = MIN(a.len, b.len);
	int r = n ? memcmp(a.p, b.p, n) : 0;
	return r ? r : (a.len > b.len) - (a.len < b.len);
}

/* Length of the UTF-8 sequence at p, 0 when it is malformed (RFC 3629: no overlong forms, no surrogates). */
static size_t utf8_len(const unsigned char *p, size_t n)
{
	uint32_t c;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		len = 2;
		c = p[0] & 0x1fU;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		len = 3;
		c = p[0] & 0x0fU;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		len = 4;
		c = p[0] & 0x07U;
	} else {
		return 0;
	}
	if (n < len)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fU);
	}
	if ((len == 3 && c < 0x800) || (len == 4 && (c < 0x10000 || c > 0x10ffff)) || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	if (c < 0xa0)
		return 0;
	return len;
}

bool str_is_printable_utf8(struct str s)
{
	const unsigned char *p = (const unsigned char *)s.p;

	for (size_t i = 0; i < s.len;) {
		size_t n = utf8_len(p + i, s.len - i);
		if (n == 0 || p[i] < 0x20 || p[i] == 0x7f)
			return false;
		i += n;
	}
	return true;
}

bool mem_eq_ct(const void *a, const void *b, size_t n)
{
	const volatile unsigned char *x = a, *y = b;
	unsigned char d = 0;

	for (size_t i = 0; i < n; i++)
		d |= (unsigned char)(x[i] ^ y[i]);
	return d == 0;
}
