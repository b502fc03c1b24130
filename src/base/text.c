#include "base/text.h"

#include <errno.h>
#include <stdio.h>

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct str in, struct buf *out)
{
	const unsigned char *p = (const unsigned char *)in.p;
	size_t n = in.len;
	char *o = buf_reserve(out, (n / 3 + 1) * 4);

	if (!o)
		return -EMSGSIZE;
	size_t w = 0;
	for (; n >= 3; p += 3, n -= 3) {
		o[w++] = b64[p[0] >> 2];
		o[w++] = b64[(p[0] & 3) << 4 | p[1] >> 4];
		o[w++] = b64[(p[1] & 15) << 2 | p[2] >> 6];
		o[w++] = b64[p[2] & 63];
	}
	if (n) {
		unsigned second = n == 2 ? p[1] : 0U;
		o[w++] = b64[p[0] >> 2];
		o[w++] = b64[(p[0] & 3U) << 4 | second >> 4];
		o[w++] = n == 2 ? b64[(second & 15) << 2] : '=';
		o[w++] = '=';
	}
	buf_commit(out, w);
	return 0;
}

static int b64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(struct str in, struct buf *out)
{
	if (in.len % 4)
		return -EINVAL;
	for (size_t i = 0; i < in.len; i += 4) {
		int last = i + 4 == in.len, pad = 0, v[4];
		for (int k = 0; k < 4; k++) {
			char c = in.p[i + (size_t)k];
			if (c == '=' && last && k >= 2 && (k == 3 || in.p[i + 3] == '=')) {
				v[k] = 0;
				pad++;
			} else if ((v[k] = b64_value(c)) < 0) {
				return -EINVAL;
			}
		}
		if ((pad == 1 && (v[2] & 3)) || (pad == 2 && (v[1] & 15)))
			return -EINVAL;
		uint8_t o[3] = {(uint8_t)(v[0] << 2 | v[1] >> 4), (uint8_t)(v[1] << 4 | v[2] >> 2), (uint8_t)(v[2] << 6 | v[3])};
		if (buf_append(out, o, (size_t)(3 - pad)))
			return -EMSGSIZE;
	}
	return 0;
}

void hex_encode(const void *p, size_t n, char *ret)
{
	const unsigned char *b = p;
	for (size_t i = 0; i < n; i++) {
		ret[2 * i] = "0123456789abcdef"[b[i] >> 4];
		ret[2 * i + 1] = "0123456789abcdef"[b[i] & 15];
	}
	ret[2 * n] = '\0';
}

int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int hex_decode(struct str s, uint8_t *ret, size_t n)
{
	if (s.len != 2 * n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int hi = hex_digit(s.p[2 * i]), lo = hex_digit(s.p[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return -EINVAL;
		ret[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

/* U+061C, U+200E, U+200F, U+202A..U+202E, U+2066..U+2069 reorder what a person reads. */
static bool is_bidi(struct str c)
{
	const unsigned char *p = (const unsigned char *)c.p;
	if (c.len == 2)
		return p[0] == 0xd8 && p[1] == 0x9c;
	if (c.len != 3 || p[0] != 0xe2)
		return false;
	return (p[1] == 0x80 && (p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xaa && p[2] <= 0xae))) ||
	       (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
}

int escape_terminal(struct str in, struct buf *out)
{
	for (size_t i = 0; i < in.len;) {
		size_t n = 1;
		bool ok = false;
		for (; !ok && n <= 4 && i + n <= in.len; n++)
			ok = str_is_printable_utf8(str_make(in.p + i, n));
		n = ok ? n - 1 : 1;
		struct str c = str_make(in.p + i, n);
		int r;
		if (ok && !is_bidi(c)) {
			r = buf_append_str(out, c);
		} else {
			r = 0;
			for (size_t k = 0; k < n && r == 0; k++)
				r = buf_printf(out, "\\x%02x", (unsigned char)c.p[k]);
		}
		if (r)
			return r;
		i += n;
	}
	return 0;
}
