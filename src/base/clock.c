#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

uint64_t mono_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000U + (uint64_t)t.tv_nsec / 1000U;
}

uint64_t mono_ms(void)
{
	return mono_us() / 1000U;
}

int64_t real_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void rfc3339_format(int64_t ms, char ret[RFC3339_SIZE])
{
	int64_t s = ms / 1000, frac = ms % 1000;
	if (frac < 0) {
		frac += 1000;
		s--;
	}

	time_t t = (time_t)s;
	struct tm tm;
	if (!gmtime_r(&t, &tm) || tm.tm_year + 1900 > 9999 || tm.tm_year + 1900 < 0) {
		t = 0;
		frac = 0;
		gmtime_r(&t, &tm);
	}
	size_t n = strftime(ret, RFC3339_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + n, RFC3339_SIZE - n, ".%03dZ", (int)frac);
}

/* n digits at *p, moved past them. */
static int digits(const char **p, const char *end, int n, int lo, int hi, int *ret)
{
	int v = 0;

	if (end - *p < n)
		return -EINVAL;
	for (int i = 0; i < n; i++, (*p)++) {
		if (**p < '0' || **p > '9')
			return -EINVAL;
		v = v * 10 + (**p - '0');
	}
	if (v < lo || v > hi)
		return -EINVAL;
	*ret = v;
	return 0;
}

static int literal(const char **p, const char *end, const char *any)
{
	if (*p == end || !**p || !strchr(any, **p))
		return -EINVAL;
	(*p)++;
	return 0;
}

static int parse_offset(const char **p, const char *end, int *ret_s)
{
	int h, m;

	if (literal(p, end, "Zz") == 0) {
		*ret_s = 0;
		return 0;
	}
	if (*p == end || (**p != '+' && **p != '-'))
		return -EINVAL;
	int sign = *(*p)++ == '-' ? -1 : 1;
	if (digits(p, end, 2, 0, 23, &h) || literal(p, end, ":") || digits(p, end, 2, 0, 59, &m))
		return -EINVAL;
	*ret_s = sign * (h * 3600 + m * 60);
	return 0;
}

int rfc3339_parse(struct str s, int64_t *ret_ms)
{
	const char *p = s.p, *end = s.p + s.len;
	int year, mon, day, h, m, sec, ms = 0, offset;

	if (s.len == 0 || digits(&p, end, 4, 1, 9999, &year) || literal(&p, end, "-") || digits(&p, end, 2, 1, 12, &mon) ||
	    literal(&p, end, "-") || digits(&p, end, 2, 1, 31, &day) || literal(&p, end, "Tt ") ||
	    digits(&p, end, 2, 0, 23, &h) || literal(&p, end, ":") || digits(&p, end, 2, 0, 59, &m) ||
	    literal(&p, end, ":") || digits(&p, end, 2, 0, 60, &sec))
		return -EINVAL;
	if (p < end && *p == '.') {
		int scale = 100, n = 0;
		for (p++; p < end && *p >= '0' && *p <= '9'; p++, n++, scale /= 10)
			ms += (*p - '0') * scale;
		if (n == 0)
			return -EINVAL;
	}
	if (parse_offset(&p, end, &offset) || p != end)
		return -EINVAL;

	struct tm tm = {.tm_year = year - 1900, .tm_mon = mon - 1, .tm_mday = day, .tm_hour = h, .tm_min = m, .tm_sec = sec};
	int64_t t = (int64_t)timegm(&tm);
	if (tm.tm_mday != day && sec != 60)
		return -EINVAL;
	*ret_ms = (t - offset) * 1000 + ms;
	return 0;
}
