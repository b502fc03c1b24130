#include <errno.h>

#include "api/field_value.h"
#include "base/text.h"

struct str percent_decode(struct str s, bool plus, struct arena *a)
{
	char *out = arena_alloc(a, s.len + 1);
	size_t n = 0;

	for (size_t i = 0; out && i < s.len; i++) {
		char c = s.p[i];
		if (c == '+' && !plus)
			c = ' ';
		if (c == '%') {
			int hi = i + 2 < s.len ? hex_digit(s.p[i + 1]) : -1, lo = hi >= 0 ? hex_digit(s.p[i + 2]) : -1;
			if (hi < 0 || lo < 0 || (hi == 0 && lo == 0))
				return STR_NONE;
			c = (char)(hi << 4 | lo);
			i += 2;
		}
		out[n++] = c;
	}
	return out ? str_make(out, n) : STR_NONE;
}

static const struct field *find(const struct field_set *set, struct str name)
{
	for (size_t i = 0; i < set->n; i++)
		if (str_eq(str_of(set->v[i].name), name))
			return &set->v[i];
	return NULL;
}

static int unknown(const struct field_set *set, struct str name, struct error *reterr)
{
	struct str shown = {name.p, MIN(name.len, (size_t)64)};

	if (!str_is_printable_utf8(shown))
		return error_set(reterr, -EINVAL, "unknown query parameter; see the API's documentation");
	if (set->n == 0)
		return error_set(reterr, -EINVAL, "%.*s: this call takes no query parameters", STR_ARG(shown));
	return error_set(reterr, -EINVAL, "%.*s: unknown query parameter", STR_ARG(shown));
}

static int parse_one(const struct field_set *set, struct str pair, struct arena *a, void *record, uint64_t *seen,
		     struct error *reterr)
{
	ptrdiff_t eq = str_chr(pair, '=');
	struct str raw_name = {pair.p, eq < 0 ? pair.len : (size_t)eq};
	struct str raw_value = eq < 0 ? (struct str){pair.p, 0} : (struct str){pair.p + eq + 1, pair.len - (size_t)eq - 1};

	struct str name = percent_decode(raw_name, false, a);
	if (!name.p)
		return error_set(reterr, -EBADMSG, "malformed percent-encoding in the query");
	const struct field *f = find(set, name);
	if (!f)
		return unknown(set, name, reterr);
	uint64_t bit = 1ULL << (f - set->v);
	if (*seen & bit)
		return error_set(reterr, -EINVAL, "%s: given twice", f->name);
	*seen |= bit;
	struct str value = percent_decode(raw_value, f->plus || f->kind == FIELD_TIME, a);
	if (!value.p)
		return error_set(reterr, -EBADMSG, "%s: malformed percent-encoding", f->name);
	if (value.len == 0)
		return error_set(reterr, -EINVAL, "%s must not be empty: leave it out instead", f->name);
	value_mark_given(f, record);
	return value_set_text(f, f->name, value, a, record, reterr);
}

int fields_parse_query(const struct field_set *set, struct str query, struct arena *a, void *record, struct error *reterr)
{
	uint64_t seen = 0;
	struct str pair;

	while (str_split(&query, '&', &pair)) {
		if (pair.len == 0)
			continue;
		int r = parse_one(set, pair, a, record, &seen, reterr);
		if (r)
			return r;
	}
	for (size_t i = 0; i < set->n; i++) {
		if (seen & 1ULL << i)
			continue;
		if (set->v[i].required)
			return error_set(reterr, -EINVAL, "%s: required in the query", set->v[i].name);
		value_set_absent(&set->v[i], record);
	}
	return set->check ? set->check(record, reterr) : 0;
}
