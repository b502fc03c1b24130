#include "api/field_value.h"

#include <errno.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "model/name.h"
#include "model/scope.h"

int choice_find(const char *choices, struct str s)
{
	struct str rest = str_of(choices), item;

	for (int i = 0; str_split(&rest, '|', &item); i++)
		if (str_eq(item, s))
			return i;
	return -1;
}

struct str choice_get(const char *choices, unsigned i)
{
	struct str rest = str_of(choices), item;

	while (str_split(&rest, '|', &item))
		if (i-- == 0)
			return item;
	return STR_NONE;
}

static int bad_choice(const struct field *f, const char *name, struct error *reterr)
{
	char text[256];
	size_t n = 0;

	for (const char *p = f->choices; *p && n + 8 < sizeof text; p++) {
		bool sep = *p == '|', last = sep && !strchr(p + 1, '|');
		const char *piece = last ? " or " : ", ";
		if (!sep)
			text[n++] = *p;
		for (; sep && *piece; piece++)
			text[n++] = *piece;
	}
	text[n] = 0;
	return error_set(reterr, -EINVAL, "%s must be %s", name, text);
}

static int set_text(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	if (f->choices && choice_find(f->choices, s) < 0)
		return bad_choice(f, name, reterr);
	int r = f->check ? f->check(name, s, reterr) : 0;
	if (r)
		return r;
	if (s.len < f->lo || s.len > f->hi)
		return error_set(reterr, -EINVAL, "%s must be %llu to %llu bytes long, not %zu", name,
				 (unsigned long long)f->lo, (unsigned long long)f->hi, s.len);
	if (!str_is_printable_utf8(s))
		return error_set(reterr, -EINVAL, "%s must not hold control characters", name);
	MEMBER(record, f->offset, struct str) = s;
	return 0;
}

static int set_bytes(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	if (s.len > f->hi)
		return error_set(reterr, -EINVAL, "%s must be at most %llu bytes long, not %zu", name,
				 (unsigned long long)f->hi, s.len);
	if (s.len && memchr(s.p, 0, s.len))
		return error_set(reterr, -EINVAL, "%s must not hold a NUL", name);
	MEMBER(record, f->offset, struct str) = s;
	return 0;
}

static int set_base64(const struct field *f, const char *name, struct str s, struct arena *a, void *record,
		      struct error *reterr)
{
	_cleanup_(buf_finish) struct buf b = BUF_MAX(f->hi ? f->hi : 1);

	int r = base64_decode(s, &b);
	if (r == -EMSGSIZE)
		return error_set(reterr, -EINVAL, "%s must be at most %llu bytes once decoded", name,
				 (unsigned long long)f->hi);
	if (r)
		return error_set(reterr, -EINVAL, "%s must be base64 (RFC 4648, with padding)", name);
	struct str copy = arena_str(a, buf_str(&b));
	if (!copy.p && b.len)
		return error_set(reterr, -EMSGSIZE, "%s: the request is too large", name);
	MEMBER(record, f->offset, struct str) = copy;
	return 0;
}

static int set_choice(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	int i = choice_find(f->choices, s);

	if (i < 0)
		return bad_choice(f, name, reterr);
	MEMBER(record, f->offset, uint8_t) = (uint8_t)(f->base + i);
	return 0;
}

static int set_time(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	int64_t ms;

	if (rfc3339_parse(s, &ms))
		return error_set(reterr, -EINVAL, "%s must be a time as in 2026-01-31T12:00:00Z (RFC 3339)", name);
	if (ms == 0)
		ms = 1; /* 0 stands for "absent" */
	MEMBER(record, f->offset, int64_t) = ms;
	return 0;
}

static int set_id(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	uint64_t id;

	if (id_parse(f->choices, s, &id) || id == 0)
		return error_set(reterr, -EINVAL, "%s must be an id that begins with %s", name, f->choices);
	MEMBER(record, f->offset, uint64_t) = id;
	return 0;
}

static int set_number_text(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	uint64_t n;

	if (str_parse_u64(s, INT64_MAX, &n))
		return error_set(reterr, -EINVAL, "%s must be a whole number from %llu to %llu", name,
				 (unsigned long long)f->lo, (unsigned long long)f->hi);
	return value_set_number(f, name, (int64_t)n, record, reterr);
}

static int set_flag_text(const struct field *f, const char *name, struct str s, void *record, struct error *reterr)
{
	bool on = str_eq(s, STR("true"));

	if (!on && !str_eq(s, STR("false")))
		return error_set(reterr, -EINVAL, "%s must be true or false", name);
	value_set_flag(f, on, record);
	return 0;
}

static int set_label(const struct field *f, struct str s, void *record, struct error *reterr)
{
	struct str *pair = &MEMBER(record, f->offset, struct str);

	return label_parse(s, &pair[0], &pair[1], reterr);
}

int value_set_text(const struct field *f, const char *name, struct str s, struct arena *a, void *record,
		   struct error *reterr)
{
	if (f->trim)
		s = str_trim(s, " \t\r\n");
	switch (f->kind) {
	case FIELD_TEXT:
		return set_text(f, name, s, record, reterr);
	case FIELD_BYTES:
		return set_bytes(f, name, s, record, reterr);
	case FIELD_BASE64:
		return set_base64(f, name, s, a, record, reterr);
	case FIELD_CHOICE:
		return set_choice(f, name, s, record, reterr);
	case FIELD_TIME:
		return set_time(f, name, s, record, reterr);
	case FIELD_ID:
		return set_id(f, name, s, record, reterr);
	case FIELD_U16:
	case FIELD_U32:
	case FIELD_U64:
		return set_number_text(f, name, s, record, reterr);
	case FIELD_FLAG:
	case FIELD_FLAG3:
		return set_flag_text(f, name, s, record, reterr);
	case FIELD_LABEL:
		return set_label(f, s, record, reterr);
	case FIELD_SCOPES:
	case FIELD_TEXTS:
	case FIELD_ARGS:
	case FIELD_PORTS:
	case FIELD_LABELS:
	case FIELD_ENV:
	case FIELD_OBJECT:
	case FIELD_RULES:
		break;
	}
	return error_set(reterr, -EINVAL, "%s must not be a text", name);
}

int value_set_number(const struct field *f, const char *name, int64_t n, void *record, struct error *reterr)
{
	uint32_t scale = f->scale ? f->scale : 1;

	if (n < (int64_t)f->lo || n > (int64_t)f->hi)
		return error_set(reterr, -EINVAL, "%s must be %llu to %llu, not %lld", name, (unsigned long long)f->lo,
				 (unsigned long long)f->hi, (long long)n);
	if (f->kind == FIELD_U16)
		MEMBER(record, f->offset, uint16_t) = (uint16_t)n;
	else if (f->kind == FIELD_U64)
		MEMBER(record, f->offset, uint64_t) = (uint64_t)n;
	else
		MEMBER(record, f->offset, uint32_t) = (uint32_t)n * scale;
	return 0;
}

void value_set_flag(const struct field *f, bool on, void *record)
{
	if (f->kind == FIELD_FLAG3)
		MEMBER(record, f->offset, uint8_t) = on ? 2 : 1;
	else
		MEMBER(record, f->offset, bool) = on;
}

void value_set_absent(const struct field *f, void *record)
{
	if (f->absent == 0)
		return;
	if (f->kind == FIELD_FLAG)
		MEMBER(record, f->offset, bool) = true;
	else if (f->kind == FIELD_CHOICE)
		MEMBER(record, f->offset, uint8_t) = (uint8_t)f->absent;
	else if (f->kind == FIELD_U16)
		MEMBER(record, f->offset, uint16_t) = (uint16_t)f->absent;
	else if (f->kind == FIELD_U32)
		MEMBER(record, f->offset, uint32_t) = f->absent;
}

void value_mark_given(const struct field *f, void *record)
{
	if (f->given && f->kind != FIELD_RULES)
		MEMBER(record, f->given - 1, bool) = true;
}
