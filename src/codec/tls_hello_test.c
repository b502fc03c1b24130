#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "codec/tls_hello.h"

/* --- a ClientHello, put together --- */


static void put16(struct buf *b, size_t v)
{
	buf_append_byte(b, (uint8_t)(v >> 8));
	buf_append_byte(b, (uint8_t)v);
}

static void extension(struct buf *b, unsigned type, const void *body, size_t n)
{
	put16(b, type);
	put16(b, n);
	buf_append(b, body, n);
}

static void server_name(struct buf *b, const char *name, size_t n)
{
	put16(b, 0);
	put16(b, n + 5);
	put16(b, n + 3);
	buf_append_byte(b, 0);
	put16(b, n);
	buf_append(b, name, n);
}

/* The handshake message around these extensions; NULL: without any. */
static void message(const struct buf *extensions, uint16_t version, struct buf *out)
{
	_cleanup_(buf_finish) struct buf body = {0};

	put16(&body, version);
	for (size_t i = 0; i < 32; i++)
		buf_append_byte(&body, (uint8_t)i);
	buf_append_byte(&body, 0); /* session id */
	put16(&body, 2);
	put16(&body, 0x1301);
	buf_append(&body, "\x01\x00", 2); /* compression */
	if (extensions) {
		put16(&body, extensions->len);
		buf_append(&body, extensions->data, extensions->len);
	}
	buf_append_byte(out, 1);
	buf_append_byte(out, (uint8_t)(body.len >> 16));
	put16(out, body.len & 0xffff);
	buf_append(out, body.data, body.len);
}

static void records(const struct buf *message, size_t size, struct buf *out)
{
	for (size_t at = 0; at < message->len; at += size) {
		size_t n = MIN(size, message->len - at);
		buf_append(out, "\x16\x03\x01", 3);
		put16(out, n);
		buf_append(out, message->data + at, n);
	}
}

static enum tls_hello_result parse_extensions(const struct buf *extensions, struct tls_hello *h)
{
	_cleanup_(buf_finish) struct buf m = {0}, r = {0};
	message(extensions, 0x0303, &m);
	records(&m, 16384, &r);
	return tls_hello_parse(buf_str(&r), h);
}

/* What a browser sends, more or less. */
static void typical(struct buf *x)
{
	extension(x, 0x0a0a, "", 0); /* GREASE */
	server_name(x, "WWW.Example.com", 15);
	extension(x, 16, "\x00\x0c\x02h2\x08http/1.1", 14);
	extension(x, 43, "\x06\x0a\x0a\x03\x04\x03\x03", 7);
	extension(x, 0xfe0d, "\x00\x00\x01\x00\x01", 5);
	extension(x, 51, "\x00\x00", 2);
}

static void check_typical(const struct tls_hello *h)
{
	assert_string_equal(h->sni, "www.example.com");
	assert_int_equal(h->legacy_version, 0x0303);
	assert_int_equal(h->max_version, 0x0304);
	assert_true(h->tls13 && h->ech && h->alpn_h2 && h->alpn_http11);
	assert_false(h->early_data || h->psk || h->alpn_other);
	struct str names = str_make(h->alpn, h->alpn_len), name;
	assert_true(tls_alpn_next(&names, &name) && str_eq(name, STR("h2")));
	assert_true(tls_alpn_next(&names, &name) && str_eq(name, STR("http/1.1")));
	assert_false(tls_alpn_next(&names, &name));
}

/* --- */

/* However it is cut into records and into packets, it is the same hello, and not before its last byte. */
static void test_fragments(void **state)
{
	static const size_t sizes[] = {16384, 100, 37, 5, 4, 3};
	_cleanup_(buf_finish) struct buf x = {0}, m = {0};

	typical(&x);
	message(&x, 0x0303, &m);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_(buf_finish) struct buf r = {0};
		struct tls_hello h;
		records(&m, sizes[i], &r);
		size_t whole = r.len;
		buf_append(&r, "\x14\x03\x03\x00\x01\x01", 6); /* what follows is not looked at */
		for (size_t n = 0; n < whole; n++)
			assert_int_equal(tls_hello_parse(str_make(r.data, n), &h), TLS_HELLO_MORE);
		for (size_t n = whole; n <= r.len; n++) {
			assert_int_equal(tls_hello_parse(str_make(r.data, n), &h), TLS_HELLO_OK);
			assert_int_equal(h.end, whole);
			check_typical(&h);
		}
	}
}

static void test_no_extensions(void **state)
{
	struct tls_hello h;
	assert_int_equal(parse_extensions(NULL, &h), TLS_HELLO_OK);
	assert_string_equal(h.sni, "");
	assert_int_equal(h.max_version, 0x0303);
	assert_false(h.tls13 || h.ech);
}

static void test_flags(void **state)
{
	_cleanup_(buf_finish) struct buf x = {0};
	struct tls_hello h;

	extension(&x, 42, "", 0);
	extension(&x, 41, "", 0);
	extension(&x, 16, "\x00\x04\x03h3x", 6);
	assert_int_equal(parse_extensions(&x, &h), TLS_HELLO_OK);
	assert_true(h.early_data && h.psk && h.alpn_other);
	assert_false(h.alpn_h2 || h.alpn_http11 || h.ech);
}

static void test_versions(void **state)
{
	static const struct {
		const char *list;
		size_t n;
		enum tls_hello_result r;
		unsigned max;
	} cases[] = {
		{"\x02\x03\x04", 3, TLS_HELLO_OK, 0x0304},
		{"\x02\x03\x03", 3, TLS_HELLO_OK, 0x0303},
		{"\x04\x03\x01\x03\x02", 5, TLS_HELLO_OLD_VERSION, 0x0302},
		{"\x02\x0a\x0a", 3, TLS_HELLO_OLD_VERSION, 0},
		{"\x04\x7f\x1c\x03\x04", 5, TLS_HELLO_OK, 0x0304},
		{"\x02\x03\x05", 3, TLS_HELLO_OLD_VERSION, 0},
		{"\x00", 1, TLS_HELLO_MALFORMED, 0},
		{"\x03\x03\x04\x03", 4, TLS_HELLO_MALFORMED, 0},
		{"\x02\x03\x04\x00", 4, TLS_HELLO_MALFORMED, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf x = {0};
		struct tls_hello h = {0};
		extension(&x, 43, cases[i].list, cases[i].n);
		assert_int_equal(parse_extensions(&x, &h), cases[i].r);
		assert_int_equal(h.max_version, cases[i].max);
	}
	_cleanup_(buf_finish) struct buf m = {0}, r = {0};
	struct tls_hello h;
	message(NULL, 0x0302, &m);
	records(&m, 16384, &r);
	assert_int_equal(tls_hello_parse(buf_str(&r), &h), TLS_HELLO_OLD_VERSION);
}

static void test_server_names(void **state)
{
	static const struct {
		struct str name;
		enum tls_hello_result r;
	} cases[] = {
		{STR("a.b"), TLS_HELLO_OK},
		{STR("localhost"), TLS_HELLO_OK},
		{STR(""), TLS_HELLO_BAD_SNI},
		{STR("a.b."), TLS_HELLO_BAD_SNI},
		{STR("1.2.3.4"), TLS_HELLO_BAD_SNI},
		{STR("::1"), TLS_HELLO_BAD_SNI},
		{STR("a.b\0.evil.com"), TLS_HELLO_BAD_SNI},
		{STR("b\xc3\xbc.de"), TLS_HELLO_BAD_SNI},
		{STR("*.x.com"), TLS_HELLO_BAD_SNI},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf x = {0};
		struct tls_hello h = {0};
		server_name(&x, cases[i].name.p, cases[i].name.len);
		assert_int_equal(parse_extensions(&x, &h), cases[i].r);
		if (cases[i].r)
			assert_string_equal(h.sni, "");
	}
}

static void test_odd_extensions(void **state)
{
	static const struct {
		unsigned type;
		struct str body;
		enum tls_hello_result r;
	} cases[] = {
		/* server_name: empty, no list, no name, a name type of its own, two names, lengths that lie */
		{0, STR(""), TLS_HELLO_MALFORMED},
		{0, STR("\x00\x00"), TLS_HELLO_MALFORMED},
		{0, STR("\x00\x01\x00"), TLS_HELLO_MALFORMED},
		{0, STR("\x00\x04\x01\x00\x01x"), TLS_HELLO_BAD_SNI},
		{0, STR("\x00\x08\x00\x00\x01x\x00\x00\x01y"), TLS_HELLO_BAD_SNI},
		{0, STR("\x00\x04\x00\x00\x02x"), TLS_HELLO_MALFORMED},
		{0, STR("\x00\x05\x00\x00\x01x"), TLS_HELLO_MALFORMED},
		{0, STR("\x00\x04\x00\x00\x01xy"), TLS_HELLO_MALFORMED},
		/* ALPN */
		{16, STR(""), TLS_HELLO_MALFORMED},
		{16, STR("\x00\x00"), TLS_HELLO_MALFORMED},
		{16, STR("\x00\x01\x00"), TLS_HELLO_MALFORMED},
		{16, STR("\x00\x02\x02h"), TLS_HELLO_MALFORMED},
		{16, STR("\x00\x02\x01hx"), TLS_HELLO_MALFORMED},
		{16, STR("\x00\x02\x01h"), TLS_HELLO_OK},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf x = {0};
		struct tls_hello h;
		extension(&x, cases[i].type, cases[i].body.p, cases[i].body.len);
		if (parse_extensions(&x, &h) != cases[i].r)
			fail_msg("case %zu", i);
	}
}

static void test_repeats(void **state)
{
	static const unsigned once[] = {0, 16, 41, 42, 43, 0xfe0d};

	for (size_t i = 0; i < ARRAY_SIZE(once); i++) {
		_cleanup_(buf_finish) struct buf x = {0};
		struct tls_hello h;
		for (int n = 0; n < 2; n++) {
			if (once[i] == 0)
				server_name(&x, "a.b", 3);
			else if (once[i] == 16)
				extension(&x, 16, "\x00\x02\x01h", 4);
			else if (once[i] == 43)
				extension(&x, 43, "\x02\x03\x04", 3);
			else
				extension(&x, once[i], "", 0);
		}
		assert_int_equal(parse_extensions(&x, &h), TLS_HELLO_MALFORMED);
	}
}

/* Many ALPN names: all are seen, as many whole ones as fit are kept. */
static void test_long_alpn(void **state)
{
	_cleanup_(buf_finish) struct buf x = {0}, list = {0};
	struct tls_hello h;
	char name[201];

	memset(name, 'x', sizeof name);
	name[0] = (char)200;
	put16(&list, 2 * sizeof name + 3);
	buf_append(&list, name, sizeof name);
	buf_append(&list, name, sizeof name);
	buf_append(&list, "\x02h2", 3);
	extension(&x, 16, list.data, list.len);
	assert_int_equal(parse_extensions(&x, &h), TLS_HELLO_OK);
	assert_true(h.alpn_h2 && h.alpn_other);
	assert_int_equal(h.alpn_len, 204);
}

static void test_not_tls(void **state)
{
	static const struct {
		struct str bytes;
		enum tls_hello_result r;
	} cases[] = {
		{STR(""), TLS_HELLO_MORE},
		{STR("G"), TLS_HELLO_NOT_TLS},
		{STR("GET / HTTP/1.1\r\n"), TLS_HELLO_NOT_TLS},
		{STR("\x00"), TLS_HELLO_NOT_TLS},
		{STR("SSH-2.0-"), TLS_HELLO_NOT_TLS},
		{STR("\x15\x03\x01"), TLS_HELLO_NOT_TLS},
		{STR("\x16"), TLS_HELLO_MORE},
		{STR("\x16\x02"), TLS_HELLO_NOT_TLS},
		{STR("\x16\x03\x05"), TLS_HELLO_MALFORMED},
		{STR("\x16\x03\x01\x00\x00"), TLS_HELLO_MALFORMED},
		{STR("\x16\x03\x01\x40\x01"), TLS_HELLO_MALFORMED},
		{STR("\x16\x03\x01\x40\x00"), TLS_HELLO_MORE},
		{STR("\x16\x03\x01\x00\x04\x02\x00\x00\x00"), TLS_HELLO_MALFORMED}, /* a ServerHello */
		{STR("\x16\x03\x01\x00\x04\x01\x00\x40\x00"), TLS_HELLO_TOO_BIG},
		{STR("\x16\x03\x01\x00\x04\x01\x01\x00\x00"), TLS_HELLO_TOO_BIG},
		{STR("\x16\x03\x01\x00\x05\x01\x00\x00\x00\x00"), TLS_HELLO_MALFORMED}, /* a byte behind the message */
		{STR("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), TLS_HELLO_MALFORMED},     /* an empty one */
		{STR("\x16\x03\x01\x00\x01\x01\x17\x03\x03"), TLS_HELLO_MALFORMED},     /* another record in between */
		{STR("\x80\x2e\x01\x00\x02"), TLS_HELLO_SSLV2},
		{STR("\x80\x2e\x01\x03\x01"), TLS_HELLO_SSLV2},
		{STR("\x80\x2e\x01"), TLS_HELLO_MORE},
		{STR("\x80\x2e\x02"), TLS_HELLO_NOT_TLS},
		{STR("\x80\x2e\x01\x04"), TLS_HELLO_NOT_TLS},
	};
	struct tls_hello h;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum tls_hello_result r = tls_hello_parse(cases[i].bytes, &h);
		if (r != cases[i].r)
			fail_msg("case %zu: %s", i, tls_hello_text(r));
	}
}

/* Cut anywhere inside, with the lengths around it set right: malformed, or a shorter hello, but never a fault. */
static void test_truncated_bodies(void **state)
{
	_cleanup_(buf_finish) struct buf x = {0}, m = {0};

	typical(&x);
	message(&x, 0x0303, &m);
	for (size_t n = 4; n < m.len; n++) {
		_cleanup_(buf_finish) struct buf cut = {0}, r = {0};
		struct tls_hello h;
		buf_append(&cut, m.data, n);
		cut.data[1] = 0;
		cut.data[2] = (uint8_t)((n - 4) >> 8);
		cut.data[3] = (uint8_t)(n - 4);
		records(&cut, 16384, &r);
		enum tls_hello_result got = tls_hello_parse(buf_str(&r), &h);
		/* version, random, session, suites and compression alone are a hello of 1.2 */
		assert_int_equal(got, n == 4 + 2 + 32 + 1 + 4 + 2 ? TLS_HELLO_OK : TLS_HELLO_MALFORMED);
	}
}

static void test_limits(void **state)
{
	_cleanup_(buf_finish) struct buf x = {0}, m = {0}, r = {0}, many = {0};
	struct tls_hello h;
	static char padding[17000];

	/* 45 bytes before the extensions, 2 of their length, 4 of this one's header */
	extension(&x, 21, padding, TLS_HELLO_MESSAGE_MAX - 45 - 2 - 4);
	message(&x, 0x0303, &m);
	assert_int_equal(m.len, TLS_HELLO_MESSAGE_MAX);
	records(&m, 16384, &r);
	assert_int_equal(tls_hello_parse(buf_str(&r), &h), TLS_HELLO_OK);
	records(&m, 256, &many);
	assert_int_equal(tls_hello_parse(buf_str(&many), &h), TLS_HELLO_OK);
	assert_int_equal(h.end, TLS_HELLO_PEEK_MAX);
	buf_clear(&many);
	records(&m, 255, &many);
	assert_int_equal(tls_hello_parse(buf_str(&many), &h), TLS_HELLO_TOO_BIG);
}

static void test_alerts(void **state)
{
	uint8_t record[TLS_ALERT_SIZE];
	tls_alert_build(TLS_ALERT_ACCESS_DENIED, record);
	assert_memory_equal(record, "\x15\x03\x03\x00\x02\x02\x31", sizeof record);
	assert_int_equal(tls_hello_alert(TLS_HELLO_BAD_SNI), TLS_ALERT_UNRECOGNIZED_NAME);
	assert_int_equal(tls_hello_alert(TLS_HELLO_SSLV2), TLS_ALERT_PROTOCOL_VERSION);
	assert_int_equal(tls_hello_alert(TLS_HELLO_MALFORMED), TLS_ALERT_DECODE_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fragments),	 cmocka_unit_test(test_no_extensions),
		cmocka_unit_test(test_flags),		 cmocka_unit_test(test_versions),
		cmocka_unit_test(test_server_names),	 cmocka_unit_test(test_odd_extensions),
		cmocka_unit_test(test_repeats),		 cmocka_unit_test(test_long_alpn),
		cmocka_unit_test(test_not_tls),		 cmocka_unit_test(test_truncated_bodies),
		cmocka_unit_test(test_limits),		 cmocka_unit_test(test_alerts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
