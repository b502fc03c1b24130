#pragma once
/* Shared by the parts of the HTTP/1 codec only. */
#include "codec/http1.h"

enum http1_class {
	HTTP1_TCHAR = 1,  /* RFC 9110 section 5.6.2 */
	HTTP1_FIELD = 2,  /* may stand in a field line: HTAB, SP, VCHAR, obs-text */
	HTTP1_TARGET = 4, /* VCHAR but "#" */
};
extern const uint8_t http1_class[256];

static inline bool http1_byte_is(char c, unsigned class)
{
	return http1_class[(uint8_t)c] & class;
}

bool http1_all(struct str s, unsigned class);
/* One field line without its CRLF, all of HTTP1_FIELD bytes; *ret is filled but for hop. */
enum http1_result http1_parse_field(struct str line, struct http1_header *ret);
/* Decimal digits without leading zeros, below 2^63. */
enum http1_result http1_parse_length(struct str value, uint64_t *ret);
