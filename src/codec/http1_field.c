/* Fields, tokens and lists (RFC 9110 section 5), shared by heads, trailers and the writer. */
#include "base/cleanup.h"
#include "codec/http1_internal.h"

#define T (HTTP1_TCHAR | HTTP1_FIELD | HTTP1_TARGET)
#define V (HTTP1_FIELD | HTTP1_TARGET)
const uint8_t http1_class[256] = {
	['\t'] = HTTP1_FIELD,
	[' '] = HTTP1_FIELD,
	['!'] = T,
	['"'] = V,
	['#'] = T & ~HTTP1_TARGET,
	['$'] = T,
	['%'] = T,
	['&'] = T,
	['\''] = T,
	['('] = V,
	[')'] = V,
	['*'] = T,
	['+'] = T,
	[','] = V,
	['-'] = T,
	['.'] = T,
	['/'] = V,
	['0' ... '9'] = T,
	[':'] = V,
	[';'] = V,
	['<'] = V,
	['='] = V,
	['>'] = V,
	['?'] = V,
	['@'] = V,
	['A' ... 'Z'] = T,
	['['] = V,
	['\\'] = V,
	[']'] = V,
	['^'] = T,
	['_'] = T,
	['`'] = T,
	['a' ... 'z'] = T,
	['{'] = V,
	['|'] = T,
	['}'] = V,
	['~'] = T,
	[0x80 ... 0xff] = HTTP1_FIELD,
};
#undef T
#undef V

bool http1_all(struct str s, unsigned class)
{
	for (size_t i = 0; i < s.len; i++)
		if (!http1_byte_is(s.p[i], class))
			return false;
	return true;
}

bool http1_is_token(struct str s)
{
	return s.len && http1_all(s, HTTP1_TCHAR);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

bool http1_is_value(struct str s)
{
	return http1_all(s, HTTP1_FIELD) && (s.len == 0 || (!is_blank(s.p[0]) && !is_blank(s.p[s.len - 1])));
}

enum http1_result http1_parse_field(struct str line, struct http1_header *ret)
{
	ptrdiff_t colon = str_chr(line, ':');

	if (line.len && is_blank(line.p[0]))
		return HTTP1_ERR_OBS_FOLD;
	if (colon <= 0)
		return HTTP1_ERR_HEADER_NAME;
	struct str name = str_make(line.p, (size_t)colon);
	if (is_blank(name.p[name.len - 1]))
		return HTTP1_ERR_HEADER_SPACE;
	if (!http1_is_token(name))
		return HTTP1_ERR_HEADER_NAME;
	*ret = (struct http1_header){
		.line = line,
		.name = name,
		.value = str_trim(str_make(line.p + colon + 1, line.len - (size_t)colon - 1), " \t"),
	};
	return HTTP1_OK;
}

enum http1_result http1_parse_length(struct str value, uint64_t *ret)
{
	return str_parse_u64(value, INT64_MAX, ret) ? HTTP1_ERR_LENGTH_BAD : HTTP1_OK;
}

const struct http1_header *http1_header_find(const struct http1_head *head, struct str name,
					     const struct http1_header *after)
{
	for (size_t i = after ? (size_t)(after - head->headers) + 1 : 0; i < head->n; i++)
		if (str_ieq(head->headers[i].name, name))
			return &head->headers[i];
	return NULL;
}

struct str http1_header_value(const struct http1_head *head, struct str name)
{
	const struct http1_header *h = http1_header_find(head, name, NULL);
	return h ? h->value : STR_NONE;
}

bool http1_list_next(struct str *value, struct str *ret_element)
{
	struct str element;

	while (str_split(value, ',', &element)) {
		element = str_trim(element, " \t");
		if (element.len) {
			*ret_element = element;
			return true;
		}
	}
	return false;
}

bool http1_list_has(struct str value, struct str token)
{
	struct str element;
	while (http1_list_next(&value, &element))
		if (str_ieq(element, token))
			return true;
	return false;
}

const char *http1_error_text(enum http1_result r)
{
#define ERROR_TEXT(name, status, text)                                                                                 \
	case HTTP1_ERR_##name:                                                                                         \
		return text;
	switch (r) {
	case HTTP1_OK:
		return "whole";
	case HTTP1_MORE:
		return "more bytes are needed";
		HTTP1_ERRORS(ERROR_TEXT)
	}
	return "?";
}

const char *http1_error_name(enum http1_result r)
{
#define ERROR_NAME(name, status, text)                                                                                 \
	case HTTP1_ERR_##name:                                                                                         \
		return #name;
	switch (r) {
	case HTTP1_OK:
		return "OK";
	case HTTP1_MORE:
		return "MORE";
		HTTP1_ERRORS(ERROR_NAME)
	}
	return "?";
}

unsigned http1_error_status(enum http1_result r)
{
#define ERROR_STATUS(name, status, text)                                                                               \
	case HTTP1_ERR_##name:                                                                                         \
		return status;
	switch (r) {
	case HTTP1_OK:
	case HTTP1_MORE:
		return 200;
		HTTP1_ERRORS(ERROR_STATUS)
	}
	return 500;
}
