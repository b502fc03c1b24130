#include "base/id.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

uint64_t id_random(void)
{
	uint64_t v = 0;
	while (v == 0) {
		if (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v)
			abort();
		v &= INT64_MAX;
	}
	return v;
}

void id_format(const char *prefix, uint64_t id, char ret[ID_TEXT_SIZE])
{
	size_t n = strlen(prefix);
	if (n + 14 > ID_TEXT_SIZE)
		abort();
	memcpy(ret, prefix, n);
	for (int i = 0; i < 13; i++)
		ret[n + (size_t)i] = digits[id >> (60 - 5 * i) & 31];
	ret[n + 13] = '\0';
}

int id_parse(const char *prefix, struct str s, uint64_t *ret)
{
	struct str p = str_of(prefix);
	uint64_t v = 0;

	if (!str_has_prefix(s, p) || s.len != p.len + 13)
		return -EINVAL;
	for (size_t i = p.len; i < s.len; i++) {
		const char *d = s.p[i] ? strchr(digits, s.p[i]) : NULL;
		if (!d || (i == p.len && d - digits > 7))
			return -EINVAL;
		v = v << 5 | (uint64_t)(d - digits);
	}
	if (v == 0 || v > INT64_MAX)
		return -EINVAL;
	*ret = v;
	return 0;
}
