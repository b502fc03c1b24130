#include "codec/ip.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/text.h"

struct ip ip_from_v4(uint32_t v)
{
	return (struct ip){
		.family = 4,
		.bytes = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v},
	};
}

struct ip ip_from_v6(const uint8_t bytes[16])
{
	struct ip a = {.family = 6};
	memcpy(a.bytes, bytes, 16);
	return a;
}

uint32_t ip_v4(const struct ip *a)
{
	return (uint32_t)a->bytes[0] << 24 | (uint32_t)a->bytes[1] << 16 | (uint32_t)a->bytes[2] << 8 | a->bytes[3];
}

bool ip_eq(const struct ip *a, const struct ip *b)
{
	return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* --- text --- */

/* Four decimal numbers without leading zeros. */
static int parse_v4(struct str s, uint8_t ret[4])
{
	uint8_t bytes[4];
	struct str part;
	size_t n = 0;

	if (s.len < 7 || s.len > 15)
		return -EINVAL;
	while (str_split(&s, '.', &part)) {
		uint64_t v;
		if (n == 4 || str_parse_u64(part, 255, &v))
			return -EINVAL;
		bytes[n++] = (uint8_t)v;
	}
	if (n != 4)
		return -EINVAL;
	memcpy(ret, bytes, 4);
	return 0;
}

static int parse_hextet(struct str s, uint8_t ret[2])
{
	unsigned v = 0;

	if (s.len < 1 || s.len > 4)
		return -EINVAL;
	for (size_t i = 0; i < s.len; i++) {
		int d = hex_digit(s.p[i]);
		if (d < 0)
			return -EINVAL;
		v = v << 4 | (unsigned)d;
	}
	ret[0] = (uint8_t)(v >> 8);
	ret[1] = (uint8_t)v;
	return 0;
}

/* One side of "::", or the whole: colon-separated groups of 16 bits into at most `room` bytes. A dotted quad may be the
 * last group where last is set. An empty side is no groups. */
static int parse_groups(struct str s, bool last, uint8_t *ret, size_t room, size_t *ret_n)
{
	struct str group;
	size_t n = 0;

	if (s.len == 0) {
		*ret_n = 0;
		return 0;
	}
	while (str_split(&s, ':', &group)) {
		bool dotted = last && s.p == NULL && str_chr(group, '.') >= 0;
		size_t size = dotted ? 4 : 2;
		if (n + size > room)
			return -EINVAL;
		int r = dotted ? parse_v4(group, ret + n) : parse_hextet(group, ret + n);
		if (r)
			return r;
		n += size;
	}
	*ret_n = n;
	return 0;
}

static ptrdiff_t find_gap(struct str s)
{
	for (size_t i = 0; i + 1 < s.len; i++)
		if (s.p[i] == ':' && s.p[i + 1] == ':')
			return (ptrdiff_t)i;
	return -1;
}

static int parse_v6(struct str s, uint8_t ret[16])
{
	uint8_t head[16] = {0}, tail[16];
	size_t head_n, tail_n;
	ptrdiff_t gap;

	if (s.len < 2 || s.len > 45)
		return -EINVAL;
	gap = find_gap(s);
	if (gap < 0) {
		if (parse_groups(s, true, head, 16, &head_n) || head_n != 16)
			return -EINVAL;
		memcpy(ret, head, 16);
		return 0;
	}

	struct str after = str_make(s.p + gap + 2, s.len - (size_t)gap - 2);
	/* "::" stands for at least one group. */
	if (parse_groups(str_make(s.p, (size_t)gap), false, head, 14, &head_n) ||
	    parse_groups(after, true, tail, 14 - head_n, &tail_n))
		return -EINVAL;
	memcpy(head + 16 - tail_n, tail, tail_n);
	memcpy(ret, head, 16);
	return 0;
}

int ip_parse(struct str s, struct ip *ret)
{
	struct ip a = {0};

	if (str_chr(s, ':') >= 0) {
		a.family = 6;
		if (parse_v6(s, a.bytes))
			return -EINVAL;
	} else {
		a.family = 4;
		if (parse_v4(s, a.bytes))
			return -EINVAL;
	}
	*ret = a;
	return 0;
}

/* The longest run of two or more zero groups (the first of equals): RFC 5952 section 4.2. */
static void longest_zeros(const uint8_t b[16], size_t *ret_start, size_t *ret_n)
{
	size_t best = 0, best_n = 0;

	for (size_t i = 0; i < 8;) {
		size_t n = 0;
		while (i + n < 8 && b[2 * (i + n)] == 0 && b[2 * (i + n) + 1] == 0)
			n++;
		if (n > best_n) {
			best = i;
			best_n = n;
		}
		i += n ? n : 1;
	}
	*ret_start = best;
	*ret_n = best_n >= 2 ? best_n : 0;
}

static void format_v6(const uint8_t b[16], char *ret)
{
	size_t gap, gap_n, at = 0;

	longest_zeros(b, &gap, &gap_n);
	for (size_t i = 0; i < 8; i++) {
		if (gap_n && i == gap) {
			ret[at++] = ':';
			ret[at++] = ':';
			i += gap_n - 1;
			continue;
		}
		if (i && !(gap_n && i == gap + gap_n))
			ret[at++] = ':';
		at += (size_t)snprintf(ret + at, IP_TEXT_SIZE - at, "%x", (unsigned)b[2 * i] << 8 | b[2 * i + 1]);
	}
	ret[at] = '\0';
}

void ip_format(const struct ip *a, char ret[IP_TEXT_SIZE])
{
	const uint8_t *b = a->bytes;

	if (a->family == 6)
		format_v6(b, ret);
	else if (a->family == 4)
		snprintf(ret, IP_TEXT_SIZE, "%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
	else
		ret[0] = '\0';
}

/* --- prefixes --- */

static unsigned width(const struct ip *a)
{
	return a->family == 6 ? 128 : 32;
}

struct cidr cidr_of(const struct ip *a, unsigned prefix)
{
	struct cidr c = {.base = *a, .prefix = (uint8_t)prefix};

	for (unsigned i = 0; i < 16; i++) {
		unsigned kept = prefix > 8 * i ? prefix - 8 * i : 0;
		if (kept < 8)
			c.base.bytes[i] &= (uint8_t)(0xff00U >> kept);
	}
	return c;
}

int cidr_parse(struct str s, struct cidr *ret)
{
	struct str address;
	struct cidr c;
	struct ip a;
	uint64_t prefix;

	if (!str_split(&s, '/', &address) || ip_parse(address, &a))
		return -EINVAL;
	prefix = width(&a);
	if (s.p && str_parse_u64(s, prefix, &prefix))
		return -EINVAL;
	c = cidr_of(&a, (unsigned)prefix);
	if (!ip_eq(&c.base, &a))
		return -ERANGE;
	*ret = c;
	return 0;
}

void cidr_format(const struct cidr *c, char ret[CIDR_TEXT_SIZE])
{
	char base[IP_TEXT_SIZE];

	ip_format(&c->base, base);
	snprintf(ret, CIDR_TEXT_SIZE, "%s/%u", base, c->prefix);
}

bool cidr_contains(const struct cidr *c, const struct ip *a)
{
	if (c->base.family != a->family || a->family == 0)
		return false;
	unsigned whole = c->prefix / 8, rest = c->prefix % 8;
	if (memcmp(c->base.bytes, a->bytes, whole) != 0)
		return false;
	return rest == 0 || ((c->base.bytes[whole] ^ a->bytes[whole]) & (0xff00U >> rest) & 0xff) == 0;
}

bool cidr_covers(const struct cidr *outer, const struct cidr *inner)
{
	return outer->prefix <= inner->prefix && cidr_contains(outer, &inner->base);
}
