#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/http1.h"

static const struct http1_request_opts port80 = {.port = 80};
static struct http1_request req;
static struct http1_response res;

static enum http1_result parse(struct str in, const struct http1_request_opts *opts)
{
	struct http1_scan scan = {0};
	return http1_request_parse(&scan, in, opts, &req);
}

static enum http1_result parse_response(struct str in, const struct http1_response_opts *opts)
{
	struct http1_scan scan = {0};
	return http1_response_parse(&scan, in, opts, &res);
}

/* A request that is right but for `line` among its headers. */
static enum http1_result with_header(const char *line)
{
	_cleanup_(buf_finish) struct buf b = {0};
	buf_printf(&b, "POST /x HTTP/1.1\r\nHost: a.b\r\n%s\r\n\r\n", line);
	return parse(buf_str(&b), &port80);
}

static enum http1_result with_first_line(const char *line)
{
	_cleanup_(buf_finish) struct buf b = {0};
	buf_printf(&b, "%s\r\nHost: a.b\r\n\r\n", line);
	return parse(buf_str(&b), &port80);
}

struct header_case {
	const char *text;
	enum http1_result r;
};

static void check_all(const struct header_case *cases, size_t n, enum http1_result (*check)(const char *text))
{
	for (size_t i = 0; i < n; i++) {
		enum http1_result r = check(cases[i].text);
		if (r != cases[i].r)
			fail_msg("%s: %s, not %s", cases[i].text, http1_error_name(r), http1_error_name(cases[i].r));
	}
}

static void test_plain(void **state)
{
	struct str in =
	        STR("GET /a%2Fb/c?d=e&f HTTP/1.1\r\nHOST:  Example.COM:80 \r\nX-Odd-case:\tv a l\t \r\n\r\nGET /next");

	assert_int_equal(parse(in, &port80), HTTP1_OK);
	assert_int_equal(req.head.raw.len, in.len - 9);
	assert_int_equal(req.method_id, HTTP1_GET);
	assert_true(str_eq(req.target, STR("/a%2Fb/c?d=e&f")));
	assert_true(str_eq(req.path, STR("/a%2Fb/c")));
	assert_true(str_eq(req.query, STR("d=e&f")));
	assert_int_equal(req.form, HTTP1_ORIGIN);
	assert_int_equal(req.head.minor, 1);
	assert_int_equal(req.head.n, 2);
	assert_true(str_eq(req.head.headers[0].name, STR("HOST")));
	assert_true(str_eq(req.head.headers[1].line, STR("X-Odd-case:\tv a l\t ")));
	assert_true(str_eq(req.head.headers[1].value, STR("v a l")));
	assert_string_equal(req.host.name, "example.com");
	assert_int_equal(req.host_port, 80);
	assert_int_equal(req.framing.kind, HTTP1_BODY_NONE);
	assert_true(req.keep_alive);
	assert_false(req.expect_continue || req.websocket);
}

static void test_empty_parts(void **state)
{
	assert_int_equal(parse(STR("GET /? HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n"), &port80), HTTP1_OK);
	assert_true(req.query.p && req.query.len == 0);
	assert_int_equal(req.head.headers[1].value.len, 0);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), &port80), HTTP1_OK);
	assert_null(req.query.p);
}

/* Byte by byte gives what all at once gives, and not before the last byte. */
static void test_incremental(void **state)
{
	struct str in = STR("POST /x HTTP/1.1\r\nHost: a.b\r\nContent-Length: 3\r\n\r\nabc");
	struct http1_scan scan = {0};

	for (size_t n = 0; n < in.len - 3; n++)
		assert_int_equal(http1_request_parse(&scan, str_make(in.p, n), &port80, &req), HTTP1_MORE);
	assert_int_equal(http1_request_parse(&scan, str_make(in.p, in.len - 3), &port80, &req), HTTP1_OK);
	assert_int_equal(req.head.raw.len, in.len - 3);
	assert_int_equal(req.framing.length, 3);
}

static void test_first_lines(void **state)
{
	static const struct header_case cases[] = {
		{"GET / HTTP/1.1", HTTP1_OK},
		{"GET / HTTP/1.0", HTTP1_OK},
		{"M-SEARCH /x HTTP/1.1", HTTP1_OK},
		{"OPTIONS * HTTP/1.1", HTTP1_OK},
		{"OPTIONS /x HTTP/1.1", HTTP1_OK},
		{"GET //x HTTP/1.1", HTTP1_OK},
		{"GET /a\"<>[\\]^`{|}b HTTP/1.1", HTTP1_OK},
		{"GET http://a.b HTTP/1.1", HTTP1_OK},
		{"GET HTTP://A.B:80/x?y HTTP/1.1", HTTP1_OK},
		{"GET http://a.b.?q HTTP/1.1", HTTP1_OK},
		{"GET * HTTP/1.1", HTTP1_ERR_TARGET},
		{"OPTIONS ** HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET x HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET a.b:80 HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET ?x HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET /#x HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET /\xc3\xbc HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET /\tx HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET https://a.b/ HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET ftp://a.b/ HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http:/a.b/ HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http:// HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http:///x HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http://u@a.b/ HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http://a.b:/ HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http://a.b\\@c.d/ HTTP/1.1", HTTP1_ERR_TARGET},
		{"GET http://evil.com/ HTTP/1.1", HTTP1_ERR_TARGET_HOST},
		{"GET http://a.b:81/ HTTP/1.1", HTTP1_ERR_TARGET_HOST},
		{"CONNECT a.b:443 HTTP/1.1", HTTP1_ERR_METHOD_REFUSED},
		{"connect /x HTTP/1.1", HTTP1_ERR_METHOD_REFUSED},
		{"TRACE / HTTP/1.1", HTTP1_ERR_METHOD_REFUSED},
		{"get / HTTP/1.1", HTTP1_ERR_METHOD_REFUSED},
		{"Head / HTTP/1.1", HTTP1_ERR_METHOD_REFUSED},
		{"PRI * HTTP/2.0", HTTP1_ERR_HTTP2_PREFACE},
		{"GET /", HTTP1_ERR_HTTP09},
		{"GET / ", HTTP1_ERR_REQUEST_LINE},
		{"GET  / HTTP/1.1", HTTP1_ERR_REQUEST_LINE},
		{"GET /  HTTP/1.1", HTTP1_ERR_REQUEST_LINE},
		{"GET / HTTP/1.1 ", HTTP1_ERR_REQUEST_LINE},
		{"GET / x HTTP/1.1", HTTP1_ERR_REQUEST_LINE},
		{"GET / http/1.1", HTTP1_ERR_REQUEST_LINE},
		{"GET / HTTP/1.10", HTTP1_ERR_REQUEST_LINE},
		{"GET / HTTP/01.1", HTTP1_ERR_REQUEST_LINE},
		{"GET ", HTTP1_ERR_REQUEST_LINE},
		{"GET / HTTP/1.2", HTTP1_ERR_VERSION},
		{"GET / HTTP/2.0", HTTP1_ERR_VERSION},
		{"GET / HTTP/0.9", HTTP1_ERR_VERSION},
		{"GET", HTTP1_ERR_NOT_HTTP},
		{"", HTTP1_ERR_NOT_HTTP},
		{" GET / HTTP/1.1", HTTP1_ERR_NOT_HTTP},
		{"G\xc3T / HTTP/1.1", HTTP1_ERR_NOT_HTTP},
		{"GE:T / HTTP/1.1", HTTP1_ERR_NOT_HTTP},
		{"GET\t/ HTTP/1.1", HTTP1_ERR_NOT_HTTP},
		{"\x16\x03\x01", HTTP1_ERR_NOT_HTTP},
		{"SSH-2.0-OpenSSH_9.2", HTTP1_ERR_NOT_HTTP},
		{"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM / HTTP/1.1", HTTP1_ERR_METHOD_LONG},
		{"MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM / HTTP/1.1", HTTP1_OK},
	};
	check_all(cases, ARRAY_SIZE(cases), with_first_line);
}

static void test_absolute(void **state)
{
	assert_int_equal(parse(STR("GET http://A.b HTTP/1.1\r\nHost: a.B:80\r\n\r\n"), &port80), HTTP1_OK);
	assert_true(str_eq(req.path, STR("/")));
	assert_int_equal(req.form, HTTP1_ABSOLUTE);
	assert_int_equal(parse(STR("GET http://a.b?q=/ HTTP/1.1\r\nHost: a.b\r\n\r\n"), &port80), HTTP1_OK);
	assert_true(str_eq(req.path, STR("/")) && str_eq(req.query, STR("q=/")));
	struct http1_request_opts tls = {.port = 443, .tls = true};
	assert_int_equal(parse(STR("GET https://a.b/x HTTP/1.1\r\nHost: a.b\r\n\r\n"), &tls), HTTP1_OK);
	assert_int_equal(parse(STR("GET http://a.b/x HTTP/1.1\r\nHost: a.b\r\n\r\n"), &tls), HTTP1_ERR_TARGET);
	assert_int_equal(parse(STR("GET http://a.b/ HTTP/1.0\r\n\r\n"), &port80), HTTP1_ERR_HOST_MISSING);
}

static void test_hosts(void **state)
{
	static const struct {
		const char *host;
		uint16_t port;
		bool tls;
		enum http1_result r;
	} cases[] = {
		{"a.b", 80, false, HTTP1_OK},
		{"a.b:80", 80, false, HTTP1_OK},
		{"a.b", 443, true, HTTP1_OK},
		{"a.b:443", 443, true, HTTP1_OK},
		{"a.b:8080", 8080, false, HTTP1_OK},
		{"[::1]:8080", 8080, false, HTTP1_OK},
		{"1.2.3.4", 80, false, HTTP1_OK},
		{"a.b:1234", 0, false, HTTP1_OK},
		{"a.b", 8080, false, HTTP1_ERR_HOST_PORT},
		{"a.b:81", 80, false, HTTP1_ERR_HOST_PORT},
		{"a.b:80", 443, true, HTTP1_ERR_HOST_PORT},
		{"", 80, false, HTTP1_ERR_HOST_BAD},
		{"a.b:", 80, false, HTTP1_ERR_HOST_BAD},
		{"a.b:080", 80, false, HTTP1_ERR_HOST_BAD},
		{"u@a.b", 80, false, HTTP1_ERR_HOST_BAD},
		{"a.b, c.d", 80, false, HTTP1_ERR_HOST_BAD},
		{"a b", 80, false, HTTP1_ERR_HOST_BAD},
		{"a.b/x", 80, false, HTTP1_ERR_HOST_BAD},
		{"::1", 80, false, HTTP1_ERR_HOST_BAD},
		{"127.1", 80, false, HTTP1_ERR_HOST_BAD},
		{"b\xc3\xbc", 80, false, HTTP1_ERR_HOST_BAD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf b = {0};
		struct http1_request_opts opts = {.port = cases[i].port, .tls = cases[i].tls};
		buf_printf(&b, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", cases[i].host);
		enum http1_result r = parse(buf_str(&b), &opts);
		if (r != cases[i].r)
			fail_msg("%s: %s", cases[i].host, http1_error_name(r));
	}
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\n\r\n"), &port80), HTTP1_ERR_HOST_MISSING);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), &port80), HTTP1_ERR_HOST_REPEATED);
	assert_int_equal(parse(STR("GET / HTTP/1.0\r\n\r\n"), &port80), HTTP1_OK);
	assert_false(req.has_host);
	struct http1_request_opts strict = {.require_host = true};
	assert_int_equal(parse(STR("GET / HTTP/1.0\r\n\r\n"), &strict), HTTP1_ERR_HOST_MISSING);
}

static void test_fields(void **state)
{
	static const struct header_case cases[] = {
		{"X: y", HTTP1_OK},
		{"X:", HTTP1_OK},
		{"X: \xc3\xbc\xff", HTTP1_OK},
		{"!#$%&'*+-.^_`|~09azAZ: y", HTTP1_OK},
		{"X : y", HTTP1_ERR_HEADER_SPACE},
		{"X\t: y", HTTP1_ERR_HEADER_SPACE},
		{" X: y", HTTP1_ERR_OBS_FOLD},
		{"\tX: y", HTTP1_ERR_OBS_FOLD},
		{" ", HTTP1_ERR_OBS_FOLD},
		{"X: y\r\n z", HTTP1_ERR_OBS_FOLD},
		{"X", HTTP1_ERR_HEADER_NAME},
		{": y", HTTP1_ERR_HEADER_NAME},
		{"X y: z", HTTP1_ERR_HEADER_NAME},
		{"X(y): z", HTTP1_ERR_HEADER_NAME},
		{"X\xc3: z", HTTP1_ERR_HEADER_NAME},
		{"\"X\": z", HTTP1_ERR_HEADER_NAME},
		{"X: a\nY: b", HTTP1_ERR_BARE_LF},
		{"X: a\rY: b", HTTP1_ERR_BARE_CR},
		{"X: a\r\r", HTTP1_ERR_BARE_CR},
		{"X: a\x01", HTTP1_ERR_CONTROL},
		{"X: a\x0b", HTTP1_ERR_CONTROL},
		{"X: a\x7f", HTTP1_ERR_CONTROL},
		{"X\x1b: a", HTTP1_ERR_CONTROL},
	};
	check_all(cases, ARRAY_SIZE(cases), with_header);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"), &port80), HTTP1_ERR_CONTROL);
	assert_int_equal(parse(STR("GET / HTTP/1.1\nHost: a\n\n"), &port80), HTTP1_ERR_BARE_LF);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: a\r\n\n"), &port80), HTTP1_ERR_BARE_LF);
}

static void test_framing(void **state)
{
	static const struct header_case cases[] = {
		{"Content-Length: 0", HTTP1_OK},
		{"content-length: 9223372036854775807", HTTP1_OK},
		{"Content-Length: 9223372036854775808", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 99999999999999999999", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length:", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: -1", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: +1", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 1 ", HTTP1_OK},
		{"Content-Length: 1 2", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 01", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 0x1", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 1, 1", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 1e3", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: \"1\"", HTTP1_ERR_LENGTH_BAD},
		{"Content-Length: 1\r\nContent-Length: 1", HTTP1_ERR_LENGTH_REPEATED},
		{"Content-Length: 1\r\nContent-Length: 2", HTTP1_ERR_LENGTH_REPEATED},
		{"Content-Length: 1\r\nTransfer-Encoding: chunked", HTTP1_ERR_LENGTH_AND_ENCODING},
		{"Transfer-Encoding: chunked\r\nContent-Length: 0", HTTP1_ERR_LENGTH_AND_ENCODING},
		{"Transfer-Encoding: \r\nContent-Length: 0", HTTP1_ERR_LENGTH_AND_ENCODING},
		{"Transfer-Encoding: chunked", HTTP1_OK},
		{"Transfer-Encoding:\tchunked\t", HTTP1_OK},
		{"Transfer-Encoding: Chunked", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: xchunked", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: chunked, chunked", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: gzip, chunked", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: chunked, identity", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: identity", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: chunked;q=1", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: \"chunked\"", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: ,chunked", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding:", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", HTTP1_ERR_ENCODING},
		{"Transfer-Encoding\x0b: chunked", HTTP1_ERR_CONTROL},
		{"X: y\r\n\tTransfer-Encoding: chunked", HTTP1_ERR_OBS_FOLD},
	};
	check_all(cases, ARRAY_SIZE(cases), with_header);
	assert_int_equal(parse(STR("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), &port80),
			 HTTP1_ERR_ENCODING_OLD);
	assert_int_equal(with_header("Transfer-Encoding: chunked"), HTTP1_OK);
	assert_int_equal(req.framing.kind, HTTP1_BODY_CHUNKED);
}

static void test_connection(void **state)
{
	static const struct header_case cases[] = {
		{"Connection: close", HTTP1_OK},
		{"Connection: keep-alive, X-Y", HTTP1_OK},
		{"Connection: , ,", HTTP1_OK},
		{"Connection: a b", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: close;x", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: Host", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: close, content-length", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: Transfer-Encoding", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: authorization", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: X-A\r\nConnection: cookie", HTTP1_ERR_CONNECTION_BAD},
		{"Connection: upgrade", HTTP1_ERR_UPGRADE_BAD},
		{"Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA", HTTP1_ERR_UPGRADE},
		{"Upgrade: websocket, h2c\r\nConnection: upgrade", HTTP1_ERR_UPGRADE},
		{"Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: upgrade", HTTP1_ERR_UPGRADE},
		{"Upgrade: TLS/1.0\r\nConnection: upgrade", HTTP1_ERR_UPGRADE},
		{"Upgrade: websocket\r\nConnection: upgrade", HTTP1_ERR_UPGRADE_BAD}, /* POST */
		{"Expect: 100-continue", HTTP1_OK},
		{"Expect: 100-Continue\r\nContent-Length: 1", HTTP1_OK},
		{"Expect: 200-ok", HTTP1_ERR_EXPECT},
		{"Expect: 100-continue, x", HTTP1_ERR_EXPECT},
		{"Expect: 100-continue\r\nExpect: 100-continue", HTTP1_ERR_EXPECT},
	};
	check_all(cases, ARRAY_SIZE(cases), with_header);

	with_header("Connection: close");
	assert_false(req.keep_alive);
	with_header("Connection: X-A, Close");
	assert_false(req.keep_alive);
	with_header("Expect: 100-continue\r\nContent-Length: 1");
	assert_true(req.expect_continue);
	with_header("Expect: 100-continue");
	assert_false(req.expect_continue);
	parse(STR("GET / HTTP/1.0\r\nHost: a\r\n\r\n"), &port80);
	assert_false(req.keep_alive);
	parse(STR("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n"), &port80);
	assert_true(req.keep_alive);
	parse(STR("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive, close\r\n\r\n"), &port80);
	assert_false(req.keep_alive);
}

#define UPGRADE "Host: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"

static void test_websocket(void **state)
{
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\n" UPGRADE "\r\n"), &port80), HTTP1_OK);
	assert_true(req.websocket);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\n" UPGRADE "Content-Length: 0\r\n\r\n"), &port80), HTTP1_OK);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\n" UPGRADE "Content-Length: 1\r\n\r\n"), &port80),
	                 HTTP1_ERR_UPGRADE_BAD);
	assert_int_equal(parse(STR("GET / HTTP/1.0\r\n" UPGRADE "\r\n"), &port80), HTTP1_ERR_UPGRADE_BAD);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), &port80),
			 HTTP1_ERR_UPGRADE_BAD);
}

/* What is wrong shows as soon as its bytes are there, without the end of the head. */
static void test_early_errors(void **state)
{
	static const struct {
		struct str in;
		enum http1_result r;
	} cases[] = {
		{STR("\x16"), HTTP1_ERR_NOT_HTTP},
		{STR("\0"), HTTP1_ERR_NOT_HTTP},
		{STR("\r\n"), HTTP1_ERR_NOT_HTTP},
		{STR("GET /\r\n"), HTTP1_ERR_HTTP09},
		{STR("GET / HTTP/2.0\r\n"), HTTP1_ERR_VERSION},
		{STR("PRI * HTTP/2.0\r\n"), HTTP1_ERR_HTTP2_PREFACE},
		{STR("CONNECT a:1 HTTP/1.1\r\n"), HTTP1_ERR_METHOD_REFUSED},
		{STR("GET / HTTP/1.1\r\nX: \n"), HTTP1_ERR_BARE_LF},
		{STR("GET / HTTP/1.1\r\nX: \r "), HTTP1_ERR_BARE_CR},
		{STR("GET / HTTP/1.1\r\nX: \0"), HTTP1_ERR_CONTROL},
		{STR("MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM"), HTTP1_ERR_METHOD_LONG},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(parse(cases[i].in, &port80), cases[i].r);
}

static void test_limits(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	static char a[HTTP1_HEAD_MAX];
	memset(a, 'a', sizeof a);

	/* target */
	buf_printf(&b, "GET /%.*s", HTTP1_TARGET_MAX - 1, a);
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_MORE);
	buf_append_z(&b, "a");
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_ERR_TARGET_LONG);
	b.len--;
	buf_append_z(&b, " HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_OK);

	/* number of headers */
	buf_clear(&b);
	buf_append_z(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
	for (int i = 1; i < HTTP1_HEADERS_MAX; i++)
		buf_append_z(&b, "X: y\r\n");
	size_t most = b.len;
	buf_append_z(&b, "\r\n");
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_OK);
	assert_int_equal(req.head.n, HTTP1_HEADERS_MAX);
	b.len = most;
	buf_append_z(&b, "X: y\r\n");
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_ERR_HEADERS_MANY);

	/* bytes */
	struct http1_request_opts small = {.head_max = 30};
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: abcd\r\n\r\n"), &small), HTTP1_OK);
	assert_int_equal(parse(STR("GET / HTTP/1.1\r\nHost: abcde\r\n\r\n"), &small), HTTP1_ERR_HEAD_LONG);
	buf_clear(&b);
	buf_printf(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: %.*s", HTTP1_HEAD_MAX - 28, a);
	assert_int_equal(b.len, HTTP1_HEAD_MAX);
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_MORE);
	buf_append_z(&b, "a");
	assert_int_equal(parse(buf_str(&b), &port80), HTTP1_ERR_HEAD_LONG);
}

/* What was read of a refused request is there for the record. */
static void test_refused_is_told(void **state)
{
	assert_int_equal(parse(STR("PUT /x HTTP/1.1\r\nHost: a.b\r\nUpgrade: h2c\r\n\r\n"), &port80),
	                 HTTP1_ERR_UPGRADE);
	assert_true(str_eq(req.method, STR("PUT")) && str_eq(req.path, STR("/x")));
	assert_string_equal(req.host.name, "a.b");
	assert_int_equal(parse(STR("GET / HTTP/1.1\n"), &port80), HTTP1_ERR_BARE_LF);
	assert_int_equal(req.method.len, 0);
}

/* --- responses --- */

static void test_statuses(void **state)
{
	static const struct header_case cases[] = {
	        {"HTTP/1.1 200 OK\r\n\r\n", HTTP1_OK},
	        {"HTTP/1.0 404 Not \t\xc3\xbc Found\r\n\r\n", HTTP1_OK},
	        {"HTTP/1.1 200 \r\n\r\n", HTTP1_OK},
	        {"HTTP/1.1 200\r\n\r\n", HTTP1_OK},
	        {"HTTP/1.1 999 x\r\n\r\n", HTTP1_OK},
	        {"HTTP/1.1 099 x\r\n\r\n", HTTP1_ERR_STATUS_LINE},
	        {"HTTP/1.1 20 x\r\n\r\n", HTTP1_ERR_STATUS_LINE},
	        {"HTTP/1.1 2000 x\r\n\r\n", HTTP1_ERR_STATUS_LINE},
	        {"HTTP/1.1 +20 x\r\n\r\n", HTTP1_ERR_STATUS_LINE},
	        {"HTTP/1.1  200 x\r\n\r\n", HTTP1_ERR_STATUS_LINE},
	        {"HTTP/1.1\r\n\r\n", HTTP1_ERR_STATUS_LINE},
	        {"HTTP/2.0 200 x\r\n\r\n", HTTP1_ERR_VERSION},
	        {"HTTP/1.2 200 x\r\n\r\n", HTTP1_ERR_VERSION},
	        {"HTTP/x 200 x\r\n\r\n", HTTP1_ERR_VERSION},
	        {"HTTPS/1.1 200 x\r\n\r\n", HTTP1_ERR_NOT_HTTP},
	        {"ICY 200 OK\r\n\r\n", HTTP1_ERR_NOT_HTTP},
	        {"http/1.1 200 OK\r\n\r\n", HTTP1_ERR_NOT_HTTP},
	        {"<", HTTP1_ERR_NOT_HTTP},
	        {"HTT", HTTP1_MORE},
	        {"HTTP/1.1 200 OK\n\n", HTTP1_ERR_BARE_LF},
	        {"HTTP/1.1 200 O\rK\r\n\r\n", HTTP1_ERR_BARE_CR},
	        {"HTTP/1.1 200 O\x01K\r\n\r\n", HTTP1_ERR_CONTROL},
	        {"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", HTTP1_ERR_HEADER_SPACE},
	        {"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", HTTP1_ERR_OBS_FOLD},
	        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", HTTP1_ERR_LENGTH_REPEATED},
	        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	         HTTP1_ERR_LENGTH_AND_ENCODING},
	        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HTTP1_ERR_ENCODING},
	        {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_ERR_ENCODING_OLD},
	        {"HTTP/1.1 304 x\r\nContent-Length: 1x\r\n\r\n", HTTP1_ERR_LENGTH_BAD},
	        {"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", HTTP1_OK},
	        {"HTTP/1.1 204 x\r\nContent-Length: 1\r\n\r\n", HTTP1_ERR_BODY_FORBIDDEN},
	        {"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP1_ERR_BODY_FORBIDDEN},
	        {"HTTP/1.1 100 x\r\nContent-Length: 5\r\n\r\n", HTTP1_ERR_BODY_FORBIDDEN},
	        {"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", HTTP1_ERR_SWITCH_UNASKED},
	        {"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\n\r\n", HTTP1_OK},
	};
	struct http1_response_opts opts = {0};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum http1_result r = parse_response(str_of(cases[i].text), &opts);
		if (r != cases[i].r)
			fail_msg("%s: %s", cases[i].text, http1_error_name(r));
	}
}

static void test_response_framing(void **state)
{
	static const struct {
		const char *text;
		bool to_head;
		enum http1_framing_kind kind;
		bool keep_alive, interim;
	} cases[] = {
	        {"HTTP/1.1 200 OK\r\n\r\n", false, HTTP1_BODY_CLOSE, false, false},
	        {"HTTP/1.1 200 OK\r\n\r\n", true, HTTP1_BODY_NONE, true, false},
	        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, HTTP1_BODY_LENGTH, true, false},
	        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, HTTP1_BODY_NONE, true, false},
	        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, HTTP1_BODY_NONE, true, false},
	        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, HTTP1_BODY_CHUNKED, true, false},
	        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", false,
	         HTTP1_BODY_CHUNKED, false, false},
	        {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, HTTP1_BODY_LENGTH, false, false},
	        {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", false, HTTP1_BODY_LENGTH,
	         true, false},
	        {"HTTP/1.1 204 x\r\n\r\n", false, HTTP1_BODY_NONE, true, false},
	        {"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", false, HTTP1_BODY_NONE, true, false},
	        {"HTTP/1.1 100 Continue\r\n\r\n", false, HTTP1_BODY_NONE, true, true},
	        {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", false, HTTP1_BODY_NONE, true, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct http1_response_opts opts = {.to_head = cases[i].to_head};
		assert_int_equal(parse_response(str_of(cases[i].text), &opts), HTTP1_OK);
		assert_int_equal(res.framing.kind, cases[i].kind);
		assert_int_equal(res.keep_alive, cases[i].keep_alive);
		assert_int_equal(res.interim, cases[i].interim);
	}
}

static void test_switching(void **state)
{
	struct http1_response_opts asked = {.to_websocket = true};

	assert_int_equal(
	        parse_response(STR("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframe"), &asked),
	        HTTP1_OK);
	assert_true(res.switching && !res.interim);
	assert_int_equal(parse_response(STR("HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"), &asked),
			 HTTP1_ERR_SWITCH_UNASKED);
	assert_int_equal(parse_response(STR("HTTP/1.1 101 x\r\n\r\n"), &asked), HTTP1_ERR_SWITCH_UNASKED);
}

/* --- looking --- */

static void test_find_and_lists(void **state)
{
	struct str list = STR(" a ,,b,\tc\t"), element;

	parse(STR("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\n\r\n"), &port80);
	const struct http1_header *h = http1_header_find(&req.head, STR("X"), NULL);
	assert_true(str_eq(h->value, STR("1")));
	h = http1_header_find(&req.head, STR("X"), h);
	assert_true(str_eq(h->value, STR("2")));
	assert_null(http1_header_find(&req.head, STR("X"), h));
	assert_true(str_eq(http1_header_value(&req.head, STR("HOST")), STR("a")));
	assert_null(http1_header_value(&req.head, STR("Y")).p);

	assert_true(http1_list_has(list, STR("B")));
	assert_false(http1_list_has(list, STR("d")));
	assert_true(http1_list_next(&list, &element) && str_eq(element, STR("a")));
	assert_true(http1_list_next(&list, &element) && str_eq(element, STR("b")));
	assert_true(http1_list_next(&list, &element) && str_eq(element, STR("c")));
	assert_false(http1_list_next(&list, &element));
}

static void test_error_table(void **state)
{
	for (unsigned r = HTTP1_MORE + 1; *http1_error_name((enum http1_result)r) != '?'; r++) {
		unsigned status = http1_error_status((enum http1_result)r);
		assert_true(status >= 400 && status < 600);
		assert_true(strlen(http1_error_text((enum http1_result)r)) > 5);
	}
	assert_string_equal(http1_error_name(HTTP1_ERR_BODY_SHORT), "BODY_SHORT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),	       cmocka_unit_test(test_empty_parts),
		cmocka_unit_test(test_incremental),    cmocka_unit_test(test_first_lines),
		cmocka_unit_test(test_absolute),       cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_fields),	       cmocka_unit_test(test_framing),
		cmocka_unit_test(test_connection),     cmocka_unit_test(test_websocket),
		cmocka_unit_test(test_early_errors),   cmocka_unit_test(test_limits),
		cmocka_unit_test(test_refused_is_told), cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_response_framing), cmocka_unit_test(test_switching),
		cmocka_unit_test(test_find_and_lists), cmocka_unit_test(test_error_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
