#pragma once
/* HTTP/1.0 and 1.1, strict and byte-faithful (RFC 9110, RFC 9112): heads, framing, bodies, and a small writer.
 *
 * Sans-I/O: the caller owns a buffer of received bytes; parsing borrows from it, allocates nothing, and says how many
 * bytes at its front a message took. What is refused is never repaired; the list is HTTP1_ERRORS. Header names, order,
 * casing and values stay bytes, so a proxy can send on what it got.
 *
 *   struct http1_scan scan = {0};
 *   r = http1_request_parse(&scan, in, &opts, &req);      MORE: read on, call again with the longer buffer
 *   http1_body_init(&body, &req.framing);                 OK: req.head.raw.len bytes were the head
 *   r = http1_body_push(&body, rest, &n, NULL);           send on rest[0..n); MORE: read on; OK: the message is over
 *
 * Whatever follows a message in the buffer is the next one (pipelining): start again with a new scan. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "codec/hostname.h"

#define HTTP1_HEAD_MAX 65536   /* default of opts.head_max */
#define HTTP1_TARGET_MAX 16384 /* of a request target */
#define HTTP1_HEADERS_MAX 128
#define HTTP1_METHOD_MAX 32
#define HTTP1_CHUNK_LINE_MAX 512 /* size and extensions */
#define HTTP1_TRAILER_MAX 8192   /* all trailer fields of a message */
#define HTTP1_TRAILERS_MAX 32

/* E(name, status to answer a request with, text). A response that is refused is a 502, whatever the column says. */
#define HTTP1_ERRORS(E)                                                                                                \
	E(NOT_HTTP, 400, "the bytes are not HTTP/1")                                                                   \
	E(HTTP2_PREFACE, 505, "HTTP/2 without TLS is not spoken here")                                                 \
	E(HTTP09, 400, "HTTP/0.9 is not spoken here")                                                                  \
	E(VERSION, 505, "the version is neither HTTP/1.0 nor HTTP/1.1")                                                \
	E(REQUEST_LINE, 400, "malformed request line")                                                                 \
	E(STATUS_LINE, 502, "malformed status line")                                                                   \
	E(METHOD_LONG, 501, "the method is too long")                                                                  \
	E(METHOD_REFUSED, 501, "CONNECT, TRACE and methods in odd case are refused")                                   \
	E(TARGET, 400, "malformed request target")                                                                     \
	E(TARGET_LONG, 414, "the request target is too long")                                                          \
	E(TARGET_HOST, 400, "the request target and Host disagree")                                                    \
	E(BARE_CR, 400, "a CR without LF")                                                                             \
	E(BARE_LF, 400, "an LF without CR")                                                                            \
	E(CONTROL, 400, "a NUL or control byte in the head")                                                           \
	E(HEAD_LONG, 431, "the head is too long")                                                                      \
	E(HEADERS_MANY, 431, "too many header fields")                                                                 \
	E(HEADER_NAME, 400, "malformed header name")                                                                   \
	E(HEADER_SPACE, 400, "white space before a header's colon")                                                    \
	E(OBS_FOLD, 400, "a folded header line")                                                                       \
	E(HOST_MISSING, 400, "no Host header")                                                                         \
	E(HOST_REPEATED, 400, "more than one Host header")                                                             \
	E(HOST_BAD, 400, "malformed Host header")                                                                      \
	E(HOST_PORT, 421, "Host names another port than the connection's")                                             \
	E(LENGTH_BAD, 400, "malformed Content-Length")                                                                 \
	E(LENGTH_REPEATED, 400, "more than one Content-Length")                                                        \
	E(LENGTH_AND_ENCODING, 400, "Content-Length and Transfer-Encoding together")                                   \
	E(ENCODING, 501, "a Transfer-Encoding other than chunked alone")                                               \
	E(ENCODING_OLD, 400, "Transfer-Encoding in HTTP/1.0")                                                          \
	E(BODY_FORBIDDEN, 400, "a body where none may be")                                                             \
	E(UPGRADE, 501, "an upgrade to anything but websocket")                                                        \
	E(UPGRADE_BAD, 400, "malformed websocket upgrade")                                                             \
	E(EXPECT, 417, "an expectation other than 100-continue")                                                       \
	E(CONNECTION_BAD, 400, "malformed Connection header, or one that names a field it must not")                   \
	E(SWITCH_UNASKED, 502, "101 without having been asked")                                                        \
	E(CHUNK_SIZE, 400, "malformed chunk size")                                                                     \
	E(CHUNK_EXT, 400, "malformed or too long chunk extension")                                                     \
	E(CHUNK_END, 400, "a chunk that does not end where it says")                                                   \
	E(TRAILER, 400, "malformed or forbidden trailer field")                                                        \
	E(TRAILER_LONG, 431, "too many or too long trailer fields")                                                    \
	E(BODY_SHORT, 400, "the connection ended inside a message")

#define HTTP1_ENUM(name, status, text) HTTP1_ERR_##name,
enum http1_result { HTTP1_OK, HTTP1_MORE, HTTP1_ERRORS(HTTP1_ENUM) };

static inline bool http1_is_error(enum http1_result r)
{
	return r > HTTP1_MORE;
}
const char *http1_error_text(enum http1_result r);
const char *http1_error_name(enum http1_result r); /* "BARE_LF": for counters and the record */
/* The status to answer such a request with; the connection is closed after it. */
unsigned http1_error_status(enum http1_result r);

struct http1_header {
	struct str line;  /* the whole line without CRLF */
	struct str name;  /* as sent */
	struct str value; /* without the white space around it */
	/* Of this connection only: Connection, what it names, Keep-Alive, Proxy-Connection, TE, Upgrade,
	 * Proxy-Authenticate, Proxy-Authorization. Not Transfer-Encoding and Trailer: bodies pass as framed. */
	bool hop;
};

struct http1_head {
	struct str raw;        /* first line to empty line, CRLFs included */
	struct str first_line; /* without CRLF */
	uint8_t minor;         /* HTTP/1.minor: 0 or 1 */
	size_t n;              /* headers behind it are not initialised */
	struct http1_header headers[HTTP1_HEADERS_MAX];
};

enum http1_framing_kind {
	HTTP1_BODY_NONE,
	HTTP1_BODY_LENGTH,
	HTTP1_BODY_CHUNKED,
	HTTP1_BODY_CLOSE, /* responses only: until the connection ends */
};
struct http1_framing {
	enum http1_framing_kind kind;
	uint64_t length; /* HTTP1_BODY_LENGTH */
};

enum http1_method {
	HTTP1_OTHER,
	HTTP1_GET,
	HTTP1_HEAD,
	HTTP1_POST,
	HTTP1_PUT,
	HTTP1_DELETE,
	HTTP1_OPTIONS,
	HTTP1_PATCH
};
enum http1_form { HTTP1_ORIGIN, HTTP1_ABSOLUTE, HTTP1_ASTERISK };

struct http1_request {
	enum http1_method method_id;
	struct str method; /* as sent: methods are case-sensitive */
	enum http1_form form;
	struct str target; /* as sent */
	struct str path; /* as sent, percent-encoding kept; never empty: "/" for "http://host", "*" for the asterisk */
	struct str query;  /* without "?"; p is NULL when there is no "?" */
	bool has_host;
	struct host host;   /* of Host, canonical */
	uint16_t host_port; /* 0: not given */
	struct http1_framing framing;
	bool keep_alive;      /* the client lets the connection stay open */
	bool expect_continue; /* only in 1.1 and with a body */
	bool websocket;       /* GET, Upgrade: websocket, Connection: upgrade; no body */
	struct http1_head head;
};

struct http1_request_opts {
	size_t head_max;   /* 0: HTTP1_HEAD_MAX */
	uint16_t port;     /* Host's port must be this one; 0: any. No port in Host stands for the scheme's */
	bool tls;          /* the scheme: https (443) or http (80); absolute-form must have it */
	bool require_host; /* in HTTP/1.0 too */
};

/* Where an incomplete head has been looked at; {0} for each new message. */
struct http1_scan {
	size_t at;
	size_t lines;
	size_t line_start;
};

/* in: all bytes of the message so far. OK: *ret holds the head, borrowing from in. A wrong byte, first line or length
 * shows at once, without waiting for the head to end. No bytes: MORE. On an error *ret holds what had been read by then
 * and is empty otherwise: for the record, not to be sent on. */
enum http1_result http1_request_parse(struct http1_scan *scan, struct str in, const struct http1_request_opts *opts,
				      struct http1_request *ret);

struct http1_response {
	uint16_t status;   /* 100 to 999 */
	struct str reason; /* may be empty */
	bool interim;      /* 1xx but 101: another head follows */
	bool switching;    /* 101: after it the bytes belong to the new protocol */
	struct http1_framing framing;
	bool keep_alive; /* the server lets the connection stay open, and the framing can end without closing it */
	struct http1_head head;
};

/* What must be known of the request to read its response. */
struct http1_response_opts {
	size_t head_max; /* 0: HTTP1_HEAD_MAX */
	bool to_head;    /* the request was a HEAD */
	bool to_websocket;
};

/* As http1_request_parse. HEAD, 1xx, 204 and 304 have no body (a Content-Length other than 0 or a Transfer-Encoding in
 * a 1xx or 204 is refused). */
enum http1_result http1_response_parse(struct http1_scan *scan, struct str in, const struct http1_response_opts *opts,
				       struct http1_response *ret);

/* --- bodies --- */

struct http1_body {
	struct http1_framing framing;
	uint64_t left; /* of the length, or of the chunk */
	uint8_t state;
	uint16_t trailers;
	uint32_t trailer_bytes;
	uint32_t scanned;    /* of a line that has not ended yet */
	uint64_t data_bytes; /* payload so far */
};

void http1_body_init(struct http1_body *b, const struct http1_framing *framing);
/* Takes a valid run at the front of `in`: *ret_consumed bytes, which can be sent on as they are.
 * data NULL: as much as there is, framing and all. Otherwise at most one run of payload is taken, which *ret_data gets
 * (empty when the bytes were framing): call again until MORE with nothing consumed, or OK.
 * OK: the message is over (BODY_NONE: at once, consuming nothing). MORE: all that could be taken was; a line of framing
 * that has not ended is left in the buffer (never more than HTTP1_TRAILER_MAX bytes), give it again with what follows.
 * An error consumes nothing: *ret_consumed is 0, and the bytes from there on must not be sent on. */
enum http1_result http1_body_push(struct http1_body *b, struct str in, size_t *ret_consumed, struct str *ret_data);
/* The connection ended: OK when that is where the message could end, else HTTP1_ERR_BODY_SHORT. */
enum http1_result http1_body_eof(const struct http1_body *b);
bool http1_body_done(const struct http1_body *b);

/* --- looking at heads --- */

/* The first header of that name (any case), after `after` (NULL: from the start). NULL: none. */
const struct http1_header *http1_header_find(const struct http1_head *head, struct str name,
					     const struct http1_header *after);
/* Its value, or an empty string with p NULL. Where a field repeats, the first. */
struct str http1_header_value(const struct http1_head *head, struct str name);
/* A comma-separated value holds the token (any case). */
bool http1_list_has(struct str value, struct str token);
/* The next element of a comma-separated list, trimmed; empty elements are skipped. */
bool http1_list_next(struct str *value, struct str *ret_element);
bool http1_is_token(struct str s);
/* What may stand in a field value: no control byte but HTAB, no white space at either end. */
bool http1_is_value(struct str s);

/* --- writing --- all answer -EINVAL when a part could break out of its place (CR, LF, NUL, a bad token …), -EMSGSIZE
 * at the buffer's ceiling; both leave out as it was. */

int http1_write_status(struct buf *out, unsigned status, const char *reason); /* reason NULL: the usual one */
int http1_write_request_line(struct buf *out, struct str method, struct str target);
int http1_write_header(struct buf *out, struct str name, struct str value);
int http1_write_header_u64(struct buf *out, struct str name, uint64_t value);
int http1_write_end(struct buf *out);                       /* the empty line */
int http1_write_chunk(struct buf *out, struct str data);    /* nothing for empty data: that would end the body */
int http1_write_last_chunk(struct buf *out);                /* without trailers */
/* A whole answer: status, Content-Type, Content-Length, Connection: close if asked, and the body (content_type empty
 * and body empty: neither). */
int http1_write_answer(struct buf *out, unsigned status, struct str content_type, struct str body, bool close);
const char *http1_reason(unsigned status);

/* The head to send on to the next hop: the request line as it came (absolute-form becomes origin-form, as RFC 9112
 * section 3.2.1 asks of whoever talks to the origin), then every header line as it came but the hop-by-hop ones. A
 * websocket's Upgrade and a fresh "Connection: upgrade" stay; `close`: a "Connection: close" is added; a keep-alive is
 * added to HTTP/1.0 otherwise. drop: names (lower or any case) left out too, may be NULL. */
int http1_request_forward(const struct http1_request *req, bool close, const struct str *drop, size_t drop_n,
			  struct buf *out);
int http1_response_forward(const struct http1_response *res, bool close, const struct str *drop, size_t drop_n,
			   struct buf *out);
