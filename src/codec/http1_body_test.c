/* Bodies, and the writer. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/http1.h"

static const struct http1_framing chunked = {.kind = HTTP1_BODY_CHUNKED};

/* All of `in` at once, with payload collected. *ret_taken: bytes of the message. */
static enum http1_result run(const struct http1_framing *f, struct str in, size_t step, struct buf *payload,
			     size_t *ret_taken)
{
	struct http1_body b;
	size_t have = 0, taken = 0, n;
	struct str data;
	enum http1_result r;

	http1_body_init(&b, f);
	for (;;) {
		r = http1_body_push(&b, str_make(in.p + taken, have - taken), &n, payload ? &data : NULL);
		taken += n;
		if (payload && data.len)
			buf_append_str(payload, data);
		if (r == HTTP1_MORE && n)
			continue;
		if (r != HTTP1_MORE || have == in.len)
			break;
		have = MIN(in.len, have + step);
	}
	*ret_taken = taken;
	if (r == HTTP1_OK)
		assert_true(http1_body_done(&b) && http1_body_eof(&b) == HTTP1_OK);
	if (payload)
		assert_int_equal(b.data_bytes, payload->len);
	return r;
}

static void test_length(void **state)
{
	struct http1_framing f = {.kind = HTTP1_BODY_LENGTH, .length = 5};
	struct http1_body b;
	size_t n;
	struct str data;

	http1_body_init(&b, &f);
	assert_int_equal(http1_body_push(&b, STR("abc"), &n, &data), HTTP1_MORE);
	assert_true(n == 3 && str_eq(data, STR("abc")));
	assert_int_equal(http1_body_eof(&b), HTTP1_ERR_BODY_SHORT);
	assert_int_equal(http1_body_push(&b, STR("deNEXT"), &n, &data), HTTP1_OK);
	assert_true(n == 2 && str_eq(data, STR("de")));
	assert_int_equal(http1_body_push(&b, STR("NEXT"), &n, &data), HTTP1_OK);
	assert_int_equal(n, 0);
	f.length = 0;
	http1_body_init(&b, &f);
	assert_int_equal(http1_body_push(&b, STR("NEXT"), &n, NULL), HTTP1_OK);
	assert_int_equal(n, 0);
}

static void test_none_and_close(void **state)
{
	struct http1_framing f = {.kind = HTTP1_BODY_NONE};
	struct http1_body b;
	size_t n;

	http1_body_init(&b, &f);
	assert_int_equal(http1_body_push(&b, STR("x"), &n, NULL), HTTP1_OK);
	assert_int_equal(n, 0);
	f.kind = HTTP1_BODY_CLOSE;
	http1_body_init(&b, &f);
	assert_int_equal(http1_body_push(&b, STR("x\r\n\0"), &n, NULL), HTTP1_MORE);
	assert_int_equal(n, 4);
	assert_int_equal(b.data_bytes, 4);
	assert_int_equal(http1_body_eof(&b), HTTP1_OK);
}

static void test_chunked_passes(void **state)
{
	static const struct {
		struct str in, payload;
	} cases[] = {
		{STR("0\r\n\r\n"), STR("")},
		{STR("3\r\nabc\r\n0\r\n\r\n"), STR("abc")},
		{STR("03\r\nabc\r\n000\r\n\r\n"), STR("abc")},
		{STR("1\r\na\r\nA\r\n0123456789\r\n0\r\n\r\n"), STR("a0123456789")},
		{STR("a\r\n0123456789\r\n0\r\n\r\n"), STR("0123456789")},
		{STR("2\r\n\r\n\r\n0\r\n\r\n"), STR("\r\n")},
		{STR("1;x\r\na\r\n0;y=z\r\n\r\n"), STR("a")},
		{STR("1 ; x = y;z=\"q\\\"; \"\r\na\r\n0\r\n\r\n"), STR("a")},
		{STR("1\t;\tx\r\na\r\n0\r\n\r\n"), STR("a")},
		{STR("1\r\na\r\n0\r\nX-Sum: 1\r\ngrpc-status:0\r\n\r\n"), STR("a")},
		{STR("0\r\nContent-Digest: x\r\n\r\n"), STR("")},
		{STR("000000000000001\r\na\r\n0\r\n\r\n"), STR("a")},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t step = 1; step < cases[i].in.len + 6; step++) {
			_cleanup_(buf_finish) struct buf all = {0}, payload = {0};
			size_t taken;
			buf_append_str(&all, cases[i].in);
			buf_append_z(&all, "NEXT");
			assert_int_equal(run(&chunked, buf_str(&all), step, &payload, &taken), HTTP1_OK);
			assert_int_equal(taken, cases[i].in.len);
			assert_true(str_eq(buf_str(&payload), cases[i].payload));
			assert_int_equal(run(&chunked, buf_str(&all), step, NULL, &taken), HTTP1_OK);
			assert_int_equal(taken, cases[i].in.len);
		}
	}
}

static void test_chunked_refused(void **state)
{
	static const struct {
		struct str in;
		enum http1_result r;
	} cases[] = {
		{STR("\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("x\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("-1\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("+1\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("0x1\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR(" 1\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("1 \r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1\t\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1g\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("1_0\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("1.0\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("1,1\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("0000000000000001\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("ffffffffffffffff\r\n"), HTTP1_ERR_CHUNK_SIZE},
		{STR("1;\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;;x\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;=x\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x=\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x=\"\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x=\"\\\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x y\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x=\"a\"b\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x;\r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1;x \r\n"), HTTP1_ERR_CHUNK_EXT},
		{STR("1\n"), HTTP1_ERR_BARE_LF},
		{STR("1;x\n"), HTTP1_ERR_BARE_LF},
		{STR("1\ra"), HTTP1_ERR_BARE_CR},
		{STR("1;\0\r\n"), HTTP1_ERR_CONTROL},
		{STR("1\r\nab"), HTTP1_ERR_CHUNK_END},
		{STR("1\r\na\n"), HTTP1_ERR_CHUNK_END},
		{STR("1\r\na\rb"), HTTP1_ERR_CHUNK_END},
		{STR("1\r\na0\r\n\r\n"), HTTP1_ERR_CHUNK_END},
		{STR("0\r\nX : y\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nX\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nX: y\r\n z\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nX: y\n"), HTTP1_ERR_BARE_LF},
		{STR("0\r\n\n"), HTTP1_ERR_BARE_LF},
		{STR("0\r\nX: \x01\r\n"), HTTP1_ERR_CONTROL},
		{STR("0\r\ncontent-length: 1\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nTransfer-Encoding: chunked\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nHost: x\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nContent-Type: x\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nAuthorization: x\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nSet-Cookie: x\r\n"), HTTP1_ERR_TRAILER},
		{STR("0\r\nGET / HTTP/1.1\r\n"), HTTP1_ERR_TRAILER},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t step = 1; step <= cases[i].in.len; step++) {
			size_t taken;
			enum http1_result r = run(&chunked, cases[i].in, step, NULL, &taken);
			if (r != cases[i].r)
				fail_msg("case %zu: %s, not %s", i, http1_error_name(r), http1_error_name(cases[i].r));
		}
	}
}

/* The error's own call takes nothing, also where something right was before it. */
static void test_error_takes_nothing(void **state)
{
	struct http1_body b;
	size_t n = 99;
	http1_body_init(&b, &chunked);
	assert_int_equal(http1_body_push(&b, STR("1\r\na\r\nx\r\n"), &n, NULL), HTTP1_ERR_CHUNK_SIZE);
	assert_int_equal(n, 0);
}

static void test_chunked_bounds(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	static char a[HTTP1_TRAILER_MAX + 100];
	size_t taken;

	memset(a, 'a', sizeof a);
	buf_printf(&b, "1;%.*s\r\n", HTTP1_CHUNK_LINE_MAX - 4, a);
	assert_int_equal(run(&chunked, buf_str(&b), b.len, NULL, &taken), HTTP1_MORE);
	assert_int_equal(taken, HTTP1_CHUNK_LINE_MAX);
	buf_clear(&b);
	buf_printf(&b, "1;%.*s", HTTP1_CHUNK_LINE_MAX - 2, a);
	assert_int_equal(run(&chunked, buf_str(&b), 7, NULL, &taken), HTTP1_ERR_CHUNK_EXT);

	/* trailers: bytes, and number */
	buf_clear(&b);
	buf_printf(&b, "0\r\nx:%.*s", HTTP1_TRAILER_MAX - 2, a);
	assert_int_equal(run(&chunked, buf_str(&b), 1000, NULL, &taken), HTTP1_ERR_TRAILER_LONG);
	buf_clear(&b);
	buf_append_z(&b, "0\r\n");
	for (int i = 0; i < HTTP1_TRAILERS_MAX; i++)
		buf_append_z(&b, "x:y\r\n");
	size_t most = b.len;
	buf_append_z(&b, "\r\n");
	assert_int_equal(run(&chunked, buf_str(&b), 1000, NULL, &taken), HTTP1_OK);
	b.len = most;
	buf_append_z(&b, "x:y\r\n");
	assert_int_equal(run(&chunked, buf_str(&b), 1000, NULL, &taken), HTTP1_ERR_TRAILER_LONG);
	buf_clear(&b);
	buf_append_z(&b, "0\r\n");
	for (int i = 0; i < 9; i++)
		buf_printf(&b, "x:%.*s\r\n", 1000, a);
	assert_int_equal(run(&chunked, buf_str(&b), 100, NULL, &taken), HTTP1_ERR_TRAILER_LONG);
}

/* --- writing --- */

static void test_writes(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};

	assert_int_equal(http1_write_status(&b, 403, NULL), 0);
	assert_int_equal(http1_write_header(&b, STR("X-Y"), STR("a b")), 0);
	assert_int_equal(http1_write_header_u64(&b, STR("N"), UINT64_MAX), 0);
	assert_int_equal(http1_write_end(&b), 0);
	assert_int_equal(http1_write_chunk(&b, STR("0123456789abcdef")), 0);
	assert_int_equal(http1_write_chunk(&b, STR("")), 0);
	assert_int_equal(http1_write_last_chunk(&b), 0);
	assert_true(str_eq(buf_str(&b), STR("HTTP/1.1 403 Forbidden\r\nX-Y: a b\r\nN: 18446744073709551615\r\n\r\n"
					     "10\r\n0123456789abcdef\r\n0\r\n\r\n")));
	buf_clear(&b);
	assert_int_equal(http1_write_request_line(&b, STR("GET"), STR("/x?y")), 0);
	assert_true(str_eq(buf_str(&b), STR("GET /x?y HTTP/1.1\r\n")));
}

static void test_injection(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};

	assert_int_equal(http1_write_status(&b, 200, "a\r\nb"), -EINVAL);
	assert_int_equal(http1_write_status(&b, 99, NULL), -EINVAL);
	assert_int_equal(http1_write_status(&b, 1000, NULL), -EINVAL);
	assert_int_equal(http1_write_header(&b, STR("a:"), STR("b")), -EINVAL);
	assert_int_equal(http1_write_header(&b, STR(""), STR("b")), -EINVAL);
	assert_int_equal(http1_write_header(&b, STR("a"), STR("b\r\nc: d")), -EINVAL);
	assert_int_equal(http1_write_header(&b, STR("a"), STR("b\n")), -EINVAL);
	assert_int_equal(http1_write_header(&b, STR("a"), STR("b\0")), -EINVAL);
	assert_int_equal(http1_write_header(&b, STR("a"), STR(" b")), -EINVAL);
	assert_int_equal(http1_write_request_line(&b, STR("G T"), STR("/")), -EINVAL);
	assert_int_equal(http1_write_request_line(&b, STR("GET"), STR("/ x")), -EINVAL);
	assert_int_equal(http1_write_request_line(&b, STR("GET"), STR("")), -EINVAL);
	assert_int_equal(http1_write_answer(&b, 200, STR("a\nb"), STR("x"), false), -EINVAL);
	assert_int_equal(http1_write_answer(&b, 204, STR(""), STR("x"), false), -EINVAL);
	assert_int_equal(b.len, 0);

	_cleanup_(buf_finish) struct buf small = BUF_MAX(20);
	assert_int_equal(http1_write_header(&small, STR("name"), STR("0123456789abcdef")), -EMSGSIZE);
	assert_int_equal(small.len, 0);
}

static void test_answers(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};

	assert_int_equal(http1_write_answer(&b, 403, STR("application/json"), STR("{}"), true), 0);
	assert_true(str_eq(buf_str(&b),
	                   STR("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
	                       "Connection: close\r\n\r\n{}")));
	buf_clear(&b);
	assert_int_equal(http1_write_answer(&b, 204, STR(""), STR(""), false), 0);
	assert_true(str_eq(buf_str(&b), STR("HTTP/1.1 204 No Content\r\n\r\n")));
}

static void check_forward(struct str in, bool close, struct str want)
{
	static const struct str drop[] = {STR("x-drop")};
	static struct http1_request req;
	_cleanup_(buf_finish) struct buf b = {0};
	struct http1_request_opts opts = {0};
	struct http1_scan scan = {0};

	assert_int_equal(http1_request_parse(&scan, in, &opts, &req), HTTP1_OK);
	assert_int_equal(http1_request_forward(&req, close, drop, 1, &b), 0);
	if (!str_eq(buf_str(&b), want))
		fail_msg("%.*s", STR_ARG(buf_str(&b)));
}

/* As it came, but for what belongs to the connection. */
static void test_forward_request(void **state)
{
	check_forward(STR("GET /a%2fB?x HTTP/1.1\r\nhOST:  a.b\r\nX-drop: 1\r\nAccept:*/*\r\nX:\ty \r\n\r\n"), false,
		      STR("GET /a%2fB?x HTTP/1.1\r\nhOST:  a.b\r\nAccept:*/*\r\nX:\ty \r\n\r\n"));
	check_forward(STR("GET http://A.b?q HTTP/1.1\r\nHost: a.b\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nTE: "
	                  "trailers\r\n"
	                  "Proxy-Connection: x\r\n\r\n"),
	              true, STR("GET /?q HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n"));
	check_forward(STR("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"), false,
		      STR("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"));
	check_forward(STR("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nExpect: "
	                  "100-continue\r\n\r\n"),
	              false,
	              STR("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nExpect: "
	                  "100-continue\r\n\r\n"));
	check_forward(STR("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"),
	              true, STR("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"));
}

static void test_forward_response(void **state)
{
	static struct http1_response res;
	_cleanup_(buf_finish) struct buf b = {0};
	struct http1_response_opts opts = {0};
	struct http1_scan scan = {0};

	assert_int_equal(
	        http1_response_parse(&scan,
	                             STR("HTTP/1.1 200  \xc3\xbc\r\nUpgrade: h2\r\nConnection: Upgrade\r\nServer: x\r\n"
	                                 "Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n"),
	                             &opts, &res),
	        HTTP1_OK);
	assert_int_equal(http1_response_forward(&res, true, NULL, 0, &b), 0);
	assert_true(str_eq(buf_str(&b), STR("HTTP/1.1 200  \xc3\xbc\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
					     "Connection: close\r\n\r\n")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_length),		   cmocka_unit_test(test_none_and_close),
		cmocka_unit_test(test_chunked_passes),	   cmocka_unit_test(test_chunked_refused),
		cmocka_unit_test(test_error_takes_nothing), cmocka_unit_test(test_chunked_bounds),
		cmocka_unit_test(test_writes),		   cmocka_unit_test(test_injection),
		cmocka_unit_test(test_answers),		   cmocka_unit_test(test_forward_request),
		cmocka_unit_test(test_forward_response),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
