/* Bodies (RFC 9112 sections 6 and 7). Payload passes in any pieces; a line of framing (a chunk's size, a trailer field)
 * is taken only as a whole and only when it is right, so nothing that is wrong was ever passed on in part. */
#include "base/cleanup.h"
#include "base/text.h"
#include "codec/http1_internal.h"

enum { DATA, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILERS, UNTIL_CLOSE, DONE };

void http1_body_init(struct http1_body *b, const struct http1_framing *framing)
{
	*b = (struct http1_body){.framing = *framing, .state = DONE};
	switch (framing->kind) {
	case HTTP1_BODY_NONE:
		break;
	case HTTP1_BODY_LENGTH:
		b->left = framing->length;
		b->state = b->left ? DATA : DONE;
		break;
	case HTTP1_BODY_CHUNKED:
		b->state = CHUNK_LINE;
		break;
	case HTTP1_BODY_CLOSE:
		b->state = UNTIL_CLOSE;
		break;
	}
}

bool http1_body_done(const struct http1_body *b)
{
	return b->state == DONE;
}

enum http1_result http1_body_eof(const struct http1_body *b)
{
	return b->state == DONE || b->state == UNTIL_CLOSE ? HTTP1_OK : HTTP1_ERR_BODY_SHORT;
}

/* A line's bytes from where the last look ended: what is wrong in them, MORE, or OK when position *at is its LF. */
static enum http1_result scan_line(struct str in, size_t *at)
{
	for (size_t i = *at; i < in.len; i++) {
		char c = in.p[i], before = i ? in.p[i - 1] : '\0';
		if (before == '\r' && c != '\n')
			return HTTP1_ERR_BARE_CR;
		if (c == '\n') {
			*at = i;
			return before == '\r' ? HTTP1_OK : HTTP1_ERR_BARE_LF;
		}
		if (c != '\r' && !http1_byte_is(c, HTTP1_FIELD))
			return HTTP1_ERR_CONTROL;
	}
	*at = in.len;
	return HTTP1_MORE;
}

/* The line at the front of in, of at most max bytes with its CRLF; too_long past that. */
static enum http1_result find_line(struct http1_body *b, struct str in, size_t max, enum http1_result too_long,
				   struct str *ret_line)
{
	size_t at = b->scanned;
	enum http1_result r = scan_line(str_make(in.p, MIN(in.len, max)), &at);

	if (r == HTTP1_MORE) {
		b->scanned = (uint32_t)at;
		return in.len >= max ? too_long : HTTP1_MORE;
	}
	if (r != HTTP1_OK)
		return r;
	b->scanned = 0;
	*ret_line = str_make(in.p, at - 1);
	return HTTP1_OK;
}

static size_t skip_blank(struct str s, size_t i)
{
	while (i < s.len && (s.p[i] == ' ' || s.p[i] == '\t'))
		i++;
	return i;
}

static size_t skip_token(struct str s, size_t i)
{
	while (i < s.len && http1_byte_is(s.p[i], HTTP1_TCHAR))
		i++;
	return i;
}

/* Past a quoted-string that begins at i; 0 when it does not end. */
static size_t skip_quoted(struct str s, size_t i)
{
	for (i++; i < s.len; i++) {
		if (s.p[i] == '"')
			return i + 1;
		if (s.p[i] == '\\' && ++i == s.len)
			return 0;
	}
	return 0;
}

/* *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) */
static bool is_chunk_ext(struct str s)
{
	size_t i = 0;

	while (i < s.len) {
		i = skip_blank(s, i);
		if (i == s.len || s.p[i] != ';')
			return false;
		i = skip_blank(s, i + 1);
		size_t end = skip_token(s, i);
		if (end == i)
			return false;
		size_t equals = skip_blank(s, end);
		if (equals == s.len || s.p[equals] != '=') {
			i = end;
			continue;
		}
		i = skip_blank(s, equals + 1);
		end = i < s.len && s.p[i] == '"' ? skip_quoted(s, i) : skip_token(s, i);
		if (end <= i)
			return false;
		i = end;
	}
	return true;
}

/* At most 15 digits, zeros in front included: below 2^60, and what everyone else's parser holds too. */
static enum http1_result parse_chunk_line(struct str line, uint64_t *ret_size)
{
	uint64_t size = 0;
	size_t i = 0;

	for (; i < line.len && hex_digit(line.p[i]) >= 0; i++) {
		if (i == 15)
			return HTTP1_ERR_CHUNK_SIZE;
		size = size << 4 | (uint64_t)hex_digit(line.p[i]);
	}
	if (i == 0)
		return HTTP1_ERR_CHUNK_SIZE;
	if (i < line.len && line.p[i] != ';' && line.p[i] != ' ' && line.p[i] != '\t')
		return HTTP1_ERR_CHUNK_SIZE;
	if (!is_chunk_ext(str_make(line.p + i, line.len - i)))
		return HTTP1_ERR_CHUNK_EXT;
	*ret_size = size;
	return HTTP1_OK;
}

static enum http1_result take_chunk_line(struct http1_body *b, struct str in, size_t *ret_n)
{
	struct str line;
	enum http1_result r = find_line(b, in, HTTP1_CHUNK_LINE_MAX, HTTP1_ERR_CHUNK_EXT, &line);

	if (r != HTTP1_OK)
		return r;
	r = parse_chunk_line(line, &b->left);
	if (r != HTTP1_OK)
		return r;
	b->state = b->left ? CHUNK_DATA : TRAILERS;
	*ret_n = line.len + 2;
	return HTTP1_OK;
}

static enum http1_result take_chunk_end(struct http1_body *b, struct str in, size_t *ret_n)
{
	if (in.p[0] != '\r' || (in.len > 1 && in.p[1] != '\n'))
		return HTTP1_ERR_CHUNK_END;
	if (in.len < 2)
		return HTTP1_MORE;
	b->state = CHUNK_LINE;
	*ret_n = 2;
	return HTTP1_OK;
}

/* RFC 9110 section 6.5.1: fields that frame, route, authenticate or steer have no place after the body. */
static bool is_forbidden_trailer(struct str name)
{
	static const struct str names[] = {
		STR("transfer-encoding"), STR("host"),     STR("trailer"),    STR("te"),     STR("connection"),
		STR("keep-alive"),        STR("upgrade"),  STR("expect"),     STR("range"),  STR("max-forwards"),
		STR("authorization"),     STR("cookie"),   STR("set-cookie"), STR("pragma"), STR("cache-control"),
		STR("proxy-authorization"), STR("proxy-authenticate"), STR("www-authenticate"), STR("proxy-connection"),
		STR("location"),          STR("vary"),     STR("age"),        STR("expires"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_ieq(name, names[i]))
			return true;
	/* Content-Length, -Encoding, -Type, -Range; Content-Digest is what trailers are for. */
	return name.len >= 8 && str_ieq(str_make(name.p, 8), STR("content-")) &&
	       !str_ieq(name, STR("content-digest")) && !str_ieq(name, STR("content-md5"));
}

static enum http1_result take_trailer(struct http1_body *b, struct str in, size_t *ret_n)
{
	struct http1_header field;
	struct str line;
	enum http1_result r =
		find_line(b, in, HTTP1_TRAILER_MAX - b->trailer_bytes, HTTP1_ERR_TRAILER_LONG, &line);

	if (r != HTTP1_OK)
		return r;
	*ret_n = line.len + 2;
	if (line.len == 0) {
		b->state = DONE;
		return HTTP1_OK;
	}
	if (http1_parse_field(line, &field) != HTTP1_OK || is_forbidden_trailer(field.name))
		return HTTP1_ERR_TRAILER;
	b->trailer_bytes += (uint32_t)*ret_n;
	return ++b->trailers > HTTP1_TRAILERS_MAX ? HTTP1_ERR_TRAILER_LONG : HTTP1_OK;
}

static void take_data(struct http1_body *b, struct str in, size_t *ret_n)
{
	size_t n = b->state == UNTIL_CLOSE ? in.len : (size_t)MIN((uint64_t)in.len, b->left);

	b->data_bytes += n;
	*ret_n = n;
	if (b->state == UNTIL_CLOSE)
		return;
	b->left -= n;
	if (b->left == 0)
		b->state = b->state == DATA ? DONE : CHUNK_END;
}

/* One piece at the front of in, which is not empty. OK: *ret_n bytes were taken. */
static enum http1_result take_piece(struct http1_body *b, struct str in, size_t *ret_n, bool *ret_is_data)
{
	*ret_is_data = false;
	switch (b->state) {
	case CHUNK_LINE:
		return take_chunk_line(b, in, ret_n);
	case CHUNK_END:
		return take_chunk_end(b, in, ret_n);
	case TRAILERS:
		return take_trailer(b, in, ret_n);
	default:
		*ret_is_data = true;
		take_data(b, in, ret_n);
		return HTTP1_OK;
	}
}

enum http1_result http1_body_push(struct http1_body *b, struct str in, size_t *ret_consumed, struct str *ret_data)
{
	size_t at = 0, n;
	bool is_data;

	*ret_consumed = 0;
	if (ret_data)
		*ret_data = STR_NONE;
	while (at < in.len && b->state != DONE) {
		enum http1_result r = take_piece(b, str_make(in.p + at, in.len - at), &n, &is_data);
		if (r == HTTP1_MORE)
			break;
		if (r != HTTP1_OK)
			return r;
		at += n;
		if (is_data && ret_data) {
			*ret_data = str_make(in.p + at - n, n);
			break;
		}
	}
	*ret_consumed = at;
	return b->state == DONE ? HTTP1_OK : HTTP1_MORE;
}
