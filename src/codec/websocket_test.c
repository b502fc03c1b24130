#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/websocket.h"

/* RFC 6455 section 5.7 */
static void test_the_rfc_s_examples(void **state)
{
	struct ws_decoder client, server;
	struct ws_event e;
	struct str in;

	ws_decoder_init(&client, false, 1000);
	ws_decoder_init(&server, true, 1000);
	in = STR("\x81\x05Hello");
	assert_int_equal(ws_decode(&client, &in, &e), 1);
	assert_int_equal(e.opcode, WS_TEXT);
	assert_true(str_eq(e.payload, STR("Hello")) && in.len == 0);
	in = STR("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
	assert_int_equal(ws_decode(&server, &in, &e), 1);
	assert_true(str_eq(e.payload, STR("Hello")));
	/* in two fragments, with a ping between them */
	in = STR("\x01\x03Hel\x89\x02hi\x80\x02lo");
	assert_int_equal(ws_decode(&client, &in, &e), 1);
	assert_int_equal(e.opcode, WS_PING);
	assert_true(str_eq(e.payload, STR("hi")));
	assert_int_equal(ws_decode(&client, &in, &e), 1);
	assert_int_equal(e.opcode, WS_TEXT);
	assert_true(str_eq(e.payload, STR("Hello")));
	assert_int_equal(ws_decode(&client, &in, &e), 0);
	in = STR("\x88\x05\x03\xe8" "bye");
	assert_int_equal(ws_decode(&client, &in, &e), 1);
	assert_int_equal(e.close_code, WS_CLOSE_NORMAL);
	assert_true(str_eq(e.payload, STR("bye")));
	ws_decoder_finish(&client);
	ws_decoder_finish(&server);
}

static void test_what_is_refused(void **state)
{
	static const struct {
		struct str bytes;
		int answer;
	} cases[] = {
		{STR("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), -EPROTO}, /* masked, to a client */
		{STR("\xc1\x05Hello"), -EPROTO},                                 /* reserved bit */
		{STR("\x83\x00"), -EPROTO},                                      /* reserved opcode */
		{STR("\x09\x00"), -EPROTO},                                      /* fragmented ping */
		{STR("\x89\x7e\x00\x80"), -EPROTO},                              /* long ping */
		{STR("\x80\x00"), -EPROTO},                                      /* continuation of nothing */
		{STR("\x01\x01" "a\x81\x01" "b"), -EPROTO},                      /* a message inside another */
		{STR("\x82\x7e\x00\x05" "Hello"), -EPROTO},                      /* length not in its shortest form */
		{STR("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), -EPROTO},      /* length with the top bit */
		{STR("\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x00"), -EMSGSIZE},    /* refused by its length alone */
		{STR("\x81\x02\xc3\x28"), -EILSEQ},
		{STR("\x81\x03\xed\xa0\x80"), -EILSEQ},                          /* a surrogate */
		{STR("\x88\x01\x03"), -EPROTO},                                  /* half a close code */
		{STR("\x88\x02\x03\xed"), -EPROTO},                              /* 1005 is never sent */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ws_decoder d;
		struct ws_event e;
		struct str in = cases[i].bytes;
		ws_decoder_init(&d, false, 4096);
		int r = ws_decode(&d, &in, &e);
		if (r != cases[i].answer)
			fail_msg("case %zu: %d", i, r);
		ws_decoder_finish(&d);
	}
}

/* Whatever the size and however the bytes come. */
static void test_round_trip_byte_by_byte(void **state)
{
	static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 70000};
	static char payload[70000];
	static const uint8_t mask[4] = {1, 2, 3, 255};

	memset(payload, 'x', sizeof payload);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_(buf_finish) struct buf b = {0};
		struct ws_decoder d;
		struct ws_event e;
		ws_decoder_init(&d, true, 70000);
		assert_int_equal(ws_encode(WS_BINARY, str_make(payload, sizes[i]), mask, &b), 0);
		struct str in = str_make(b.data, MIN(b.len, (size_t)13));
		for (; in.len < b.len; in.len++)
			assert_int_equal(ws_decode(&d, &in, &e), 0);
		assert_int_equal(ws_decode(&d, &in, &e), 1);
		assert_true(str_eq(e.payload, str_make(payload, sizes[i])));
		ws_decoder_finish(&d);
	}
}

static void test_fragments_are_bounded_together(void **state)
{
	struct ws_decoder d;
	struct ws_event e;
	ws_decoder_init(&d, false, 5);
	struct str in = STR("\x02\x03" "abc\x00\x03" "def");
	assert_int_equal(ws_decode(&d, &in, &e), -EMSGSIZE);
	ws_decoder_finish(&d);
}

static void test_accept(void **state)
{
	char z[29];
	assert_int_equal(ws_accept(STR("dGhlIHNhbXBsZSBub25jZQ=="), z), 0);
	assert_string_equal(z, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	assert_int_equal(ws_accept(STR("dGhlIHNhbXBsZSBub25jZ=="), z), -EINVAL);
	assert_int_equal(ws_accept(STR(""), z), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_rfc_s_examples),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_round_trip_byte_by_byte),
		cmocka_unit_test(test_fragments_are_bounded_together),
		cmocka_unit_test(test_accept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
