#include "policy/path.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/text.h"

#define PATH_MAX_BYTES 8192
#define PATTERN_MAX_BYTES 1024
#define PATTERN_MAX_STARS 8

/* The readings: each bit is one way in which some servers understand a path and others do not. */
enum { READ_SPLIT = 1 /* %2F separates */, READ_MERGE = 2 /* "//" is "/" */, READ_PARAMS = 4 /* ";…" is no part */ };
#define READINGS 8

/* The byte that an escape at position i stands for, or -1 when it is malformed. */
static int unescape(struct str s, size_t i)
{
	if (s.len - i < 3)
		return -1;
	int high = hex_digit(s.p[i + 1]), low = hex_digit(s.p[i + 2]);
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* --- what is odd about a path --- */

/* Every escape undone once. False when one is malformed. */
static bool decode(struct str s, char *ret, size_t *ret_n, bool *ret_encoded_slash)
{
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++) {
		int c = (unsigned char)s.p[i];
		if (c == '%') {
			c = unescape(s, i);
			if (c < 0)
				return false;
			*ret_encoded_slash |= c == '/';
			i += 2;
		}
		ret[n++] = (char)c;
	}
	*ret_n = n;
	return true;
}

static bool is_escape(struct str s, size_t i)
{
	return s.p[i] == '%' && unescape(s, i) >= 0;
}

/* "." and ".." and what some file systems make of dots and spaces ("...", ".. "). */
static bool is_dots(struct str segment)
{
	for (size_t i = 0; i < segment.len; i++)
		if (segment.p[i] != '.' && segment.p[i] != ' ')
			return false;
	return segment.len > 0;
}

/* One decoded segment; last: no separator follows it. */
static void examine_segment(struct str segment, bool last, struct path *path)
{
	ptrdiff_t params = str_chr(segment, ';');

	if (params >= 0) {
		path->readings |= READ_PARAMS;
		segment.len = (size_t)params;
	}
	if (segment.len == 0 && !last)
		path->readings |= READ_MERGE;
	path->dubious |= is_dots(segment);
}

struct path path_examine(struct str text)
{
	struct path path = {.text = text, .dubious = true};
	char plain[PATH_MAX_BYTES];
	bool encoded_slash = false;
	size_t n;

	if (text.len == 0 || text.len > sizeof plain || text.p[0] != '/' || !decode(text, plain, &n, &encoded_slash))
		return path;
	struct str rest = str_make(plain, n), segment;
	if (!str_is_printable_utf8(rest) || str_chr(rest, '\\') >= 0)
		return path;
	for (size_t i = 0; i < n; i++)
		if (is_escape(rest, i))
			return path;

	path.dubious = false;
	path.readings = encoded_slash ? READ_SPLIT : 0;
	str_split(&rest, '/', &segment); /* nothing is before the first */
	while (str_split(&rest, '/', &segment))
		examine_segment(segment, rest.p == NULL, &path);
	return path;
}

/* --- matching --- */

/* Symbols of a text under one reading: a byte, or one of these. */
enum { END = -1, SEPARATOR = 256, ENCODED_SLASH, STAR };

struct cursor {
	struct str rest;
	unsigned reading;
	bool pattern;
	bool after_separator;
};

/* The next symbol as it is written. */
static int next_written(struct cursor *c)
{
	if (c->rest.len == 0)
		return END;
	int symbol = (unsigned char)c->rest.p[0];
	size_t n = 1;
	if (symbol == '%') {
		symbol = unescape(c->rest, 0);
		n = 3;
		if (symbol == '/')
			symbol = c->reading & READ_SPLIT ? SEPARATOR : ENCODED_SLASH;
	} else if (symbol == '/') {
		symbol = SEPARATOR;
	} else if (symbol == '*' && c->pattern) {
		symbol = STAR;
	}
	c->rest = str_make(c->rest.p + n, c->rest.len - n);
	return symbol;
}

static int next_kept(struct cursor *c)
{
	int symbol = next_written(c);

	if (symbol == ';' && c->reading & READ_PARAMS)
		while (symbol != SEPARATOR && symbol != END)
			symbol = next_written(c);
	return symbol;
}

/* The next symbol as the reading has it. */
static int next(struct cursor *c)
{
	int symbol = next_kept(c);

	while (symbol == SEPARATOR && c->after_separator && c->reading & READ_MERGE)
		symbol = next_kept(c);
	c->after_separator = symbol == SEPARATOR;
	return symbol;
}

enum { BELOW = 1 /* the pattern covers all below it too */, LAX = 2 /* no notice of case and of a slash at the end */ };

static int fold(int symbol, unsigned how)
{
	return how & LAX && symbol >= 'A' && symbol <= 'Z' ? symbol + 32 : symbol;
}

/* The pattern is at its end, and the path's next symbol is not. */
static bool ends_well(struct cursor path, int symbol, unsigned how)
{
	if (symbol != SEPARATOR)
		return false;
	return how & BELOW || (how & LAX && next(&path) == END);
}

/* A star stays in its segment, so a pattern's segments face the path's one to one, and only the last star seen in this
 * one can have to give way. */
static bool matches(struct cursor pattern, struct cursor path, unsigned how)
{
	struct cursor star_pattern = pattern, star_path = path;
	bool starred = false;

	for (;;) {
		int want = next(&pattern);
		if (want == STAR) {
			starred = true;
			star_pattern = pattern;
			star_path = path;
			continue;
		}
		int have = next(&path);
		if (want == END && (have == END || ends_well(path, have, how)))
			return true;
		if (want != END && fold(want, how) == fold(have, how)) {
			starred &= want != SEPARATOR;
			continue;
		}
		int skipped = starred ? next(&star_path) : END;
		if (skipped == END || skipped == SEPARATOR)
			return false;
		pattern = star_pattern;
		path = star_path;
	}
}

static struct str strip_tail(struct str pattern, unsigned *how)
{
	if (str_has_suffix(pattern, STR("/*"))) {
		*how |= BELOW;
		pattern.len -= 2;
	} else if (*how & LAX && pattern.len > 1 && str_has_suffix(pattern, STR("/"))) {
		pattern.len--;
	}
	return pattern;
}

static bool matches_under(struct str pattern, const struct path *path, unsigned reading, unsigned how)
{
	pattern = strip_tail(pattern, &how);
	return matches((struct cursor){.rest = pattern, .reading = reading, .pattern = true},
		       (struct cursor){.rest = path->text, .reading = reading}, how);
}

bool path_allow_matches(struct str pattern, const struct path *path)
{
	if (str_eq(pattern, STR("/*")))
		return true;
	if (path->dubious)
		return false;
	for (unsigned reading = 0; reading < READINGS; reading++)
		if ((reading & ~path->readings) == 0 && !matches_under(pattern, path, reading, 0))
			return false;
	return true;
}

bool path_deny_matches(struct str pattern, const struct path *path)
{
	unsigned readings = path->readings;

	if (path->dubious)
		return true;
	/* What the pattern itself can be read as counts too: "/a%2Fb" is "/a/b" to some. */
	readings |= str_chr(pattern, '%') >= 0 ? READ_SPLIT : 0;
	readings |= str_chr(pattern, ';') >= 0 ? READ_PARAMS : 0;
	for (unsigned reading = 0; reading < READINGS; reading++)
		if ((reading & ~readings) == 0 && matches_under(pattern, path, reading, LAX))
			return true;
	return false;
}

/* --- patterns --- */

int path_pattern_check(struct str pattern, struct error *reterr)
{
	unsigned stars = 0;

	if (pattern.len == 0 || pattern.p[0] != '/')
		return error_set(reterr, -EINVAL, "a path begins with `/`");
	if (pattern.len > PATTERN_MAX_BYTES)
		return error_set(reterr, -EINVAL, "a path has at most %d bytes", PATTERN_MAX_BYTES);
	if (str_chr(pattern, '?') >= 0 || str_chr(pattern, '#') >= 0)
		return error_set(reterr, -EINVAL, "a path is judged without its query: leave `?` and `#` out");
	for (size_t i = 0; i < pattern.len; i++) {
		stars += pattern.p[i] == '*';
		if (i && pattern.p[i] == '*' && pattern.p[i - 1] == '*')
			return error_set(reterr, -EINVAL, "one `*` at a time: `/x/*` is `/x` and all below it");
	}
	if (stars > PATTERN_MAX_STARS)
		return error_set(reterr, -EINVAL, "a path has at most %d stars", PATTERN_MAX_STARS);
	struct path p = path_examine(pattern);
	if (p.dubious || p.readings & READ_MERGE)
		return error_set(
		        reterr, -EINVAL,
		        "a path holds no dot segments, empty segments, backslashes, control characters or malformed "
		        "percent-escapes");
	return 0;
}
