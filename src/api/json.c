#include "api/json.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/id.h"

/* Length of the UTF-8 character at s (RFC 3629: no overlong form, no surrogate), or 0. */
static size_t utf8_length(struct str s)
{
	const uint8_t *p = (const uint8_t *)s.p;
	uint8_t lo = 0x80, hi = 0xbf;
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		n = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (p[0] == 0xe0)
		lo = 0xa0;
	if (p[0] == 0xed)
		hi = 0x9f;
	if (p[0] == 0xf0)
		lo = 0x90;
	if (p[0] == 0xf4)
		hi = 0x8f;
	if (s.len < n || p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

static void put_escaped(struct buf *out, char c)
{
	static const char short_form[][3] = {['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
	uint8_t u = (uint8_t)c;

	if (c == '"' || c == '\\')
		buf_append(out, (char[]){'\\', c}, 2);
	else if (u < ARRAY_SIZE(short_form) && short_form[u][0])
		buf_append(out, short_form[u], 2);
	else
		buf_printf(out, "\\u%04x", u);
}

static bool is_plain(char c)
{
	return (uint8_t)c >= 0x20 && (uint8_t)c < 0x7f && c != '"' && c != '\\';
}

static void put_string(struct buf *out, struct str s)
{
	buf_append_byte(out, '"');
	while (s.len) {
		size_t n = 0;
		while (n < s.len && is_plain(s.p[n]))
			n++;
		if (n) {
			buf_append(out, s.p, n);
		} else if ((n = utf8_length(s)) == 0) {
			buf_append_z(out, "\xef\xbf\xbd");
			n = 1;
		} else if (n == 1) {
			put_escaped(out, s.p[0]);
		} else {
			buf_append(out, s.p, n);
		}
		s.p += n;
		s.len -= n;
	}
	buf_append_byte(out, '"');
}

static void begin_value(struct json *j, struct str key)
{
	if (j->comma)
		buf_append_byte(j->out, ',');
	j->comma = true;
	if (!key.p)
		return;
	put_string(j->out, key);
	buf_append_byte(j->out, ':');
}

static void open_group(struct json *j, const char *key, uint8_t c)
{
	begin_value(j, str_of(key));
	buf_append_byte(j->out, c);
	j->comma = false;
}

static void close_group(struct json *j, uint8_t c)
{
	buf_append_byte(j->out, c);
	j->comma = true;
}

void json_object_begin(struct json *j, const char *key)
{
	open_group(j, key, '{');
}

void json_object_end(struct json *j)
{
	close_group(j, '}');
}

void json_array_begin(struct json *j, const char *key)
{
	open_group(j, key, '[');
}

void json_array_end(struct json *j)
{
	close_group(j, ']');
}

void json_str(struct json *j, const char *key, struct str value)
{
	begin_value(j, str_of(key));
	put_string(j->out, value);
}

void json_member(struct json *j, struct str key, struct str value)
{
	begin_value(j, key);
	put_string(j->out, value);
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
	begin_value(j, str_of(key));
	buf_printf(j->out, "%" PRIu64, value);
}

void json_i64(struct json *j, const char *key, int64_t value)
{
	begin_value(j, str_of(key));
	buf_printf(j->out, "%" PRId64, value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	begin_value(j, str_of(key));
	buf_append_z(j->out, value ? "true" : "false");
}

void json_raw(struct json *j, const char *key, struct str value)
{
	begin_value(j, str_of(key));
	buf_append_str(j->out, value);
}

void json_null(struct json *j, const char *key)
{
	begin_value(j, str_of(key));
	buf_append_z(j->out, "null");
}

void json_time(struct json *j, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];

	if (ms == 0) {
		json_null(j, key);
		return;
	}
	rfc3339_format(ms, text);
	json_str(j, key, str_of(text));
}

void json_id(struct json *j, const char *key, const char *prefix, uint64_t id)
{
	char text[ID_TEXT_SIZE] = "";

	if (id)
		id_format(prefix, id, text);
	json_str(j, key, str_of(text));
}
