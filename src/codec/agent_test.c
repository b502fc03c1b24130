#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/agent.h"

#define NONCE "0123456789abcdef"
#define HELLO_BYTES "\x24\0\0\0\x01\0\0\0\0\0\0\0" AGENT_MAGIC "\x01\0\0\0" NONCE

static void test_literal_frames(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct agent_frame f;

	assert_int_equal(agent_frame_encode(AGENT_STDOUT, 7, STR("hi"), &b), 0);
	assert_true(str_eq(buf_str(&b), STR("\x02\0\0\0\x24\0\0\0\x07\0\0\0hi")));
	assert_int_equal(agent_credit_encode(7, 0x10203, &b), 0);
	struct str in = buf_str(&b);
	assert_int_equal(agent_frame_next(&in, AGENT_GUEST, &f), 1);
	assert_int_equal(f.type, AGENT_STDOUT);
	assert_int_equal(f.stream, 7);
	assert_true(str_eq(f.payload, STR("hi")));
	assert_int_equal(agent_frame_next(&in, AGENT_GUEST, &f), 1);
	uint32_t credit = 0;
	assert_int_equal(agent_credit_decode(f.payload, &credit), 0);
	assert_int_equal(credit, 0x10203);
	assert_int_equal(agent_frame_next(&in, AGENT_GUEST, &f), 0);
	assert_int_equal(in.len, 0);
}

/* Every cut of a frame asks for more; no byte is lost by asking. */
static void test_cut_anywhere(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct agent_frame f;

	struct stream_exit e = {.code = 143, .signal = 15, .timed_out = true};
	assert_int_equal(agent_record_encode(AGENT_EXIT, 9, &stream_exit_wire, &e, &b), 0);
	for (size_t n = 0; n < b.len; n++) {
		struct str in = str_make(b.data, n);
		assert_int_equal(agent_frame_next(&in, AGENT_GUEST, &f), 0);
		assert_int_equal(in.len, n);
	}
	struct str in = buf_str(&b);
	assert_int_equal(agent_frame_next(&in, AGENT_GUEST, &f), 1);
	struct stream_exit back;
	assert_int_equal(wire_decode(&stream_exit_wire, f.payload, &back), 0);
	assert_int_equal(back.code, 143);
	assert_true(back.timed_out);
}

static int decode(struct str in, enum agent_side sender)
{
	struct agent_frame f;
	return agent_frame_next(&in, sender, &f);
}

static void test_refused_headers(void **state)
{
	static const struct str bad[] = {
		STR("\0\0\0\0\0\0\0\0\0\0\0\0"),                     /* type 0 */
		STR("\0\0\0\0\x0b\0\0\0\0\0\0\0"),                   /* a type between two */
		STR("\0\0\0\0\xff\xff\xff\xff\0\0\0\0"),             /* a type past the table */
		STR("\0\0\0\0\x20\0\x01\0\x01\0\0\0"),               /* the zero is not */
		STR("\x01\0\0\0\x24\0\0\0\0\0\0\0x"),                /* data on the channel */
		STR("\x08\0\0\0\x04\0\0\0\x01\0\0\0" "12345678"),    /* PONG on a stream */
		STR("\x07\0\0\0\x04\0\0\0\0\0\0\0" "1234567"),       /* PONG too short */
		STR("\0\0\0\0\x24\0\0\0\x01\0\0\0"),                 /* empty data */
		STR("\x01\x80\0\0\x24\0\0\0\x01\0\0\0"),             /* data too long */
		STR("\xff\xff\xff\xff\x24\0\0\0\x01\0\0\0"),
		STR("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), /* a flush */
		STR("\x01\0\0\0\x22\0\0\0\x01\0\0\0x"),              /* STDIN from the guest */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(decode(bad[i], AGENT_GUEST), -EBADMSG);
	assert_int_equal(decode(STR("\x01\0\0\0\x22\0\0\0\x01\0\0\0x"), AGENT_HOST), 1);
	assert_int_equal(decode(STR("\x01\0\0\0\x24\0\0\0\x01\0\0\0x"), AGENT_HOST), -EBADMSG);
}

static void test_encoder_refuses_what_the_decoder_would(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct buf small = BUF_MAX(16);

	assert_int_equal(agent_frame_encode(AGENT_STDOUT, 0, STR("x"), &b), -EINVAL);
	assert_int_equal(agent_frame_encode(AGENT_STDOUT, 1, STR_NONE, &b), -EINVAL);
	assert_int_equal(agent_frame_encode((enum agent_type)200, 1, STR_NONE, &b), -EINVAL);
	assert_int_equal(agent_frame_encode(AGENT_STDOUT, 1, STR("longer"), &small), -EMSGSIZE);
	assert_int_equal(b.len + small.len, 0);
	buf_finish(&small);
	assert_string_equal(agent_type_name(AGENT_CLOSE), "CLOSE");
	assert_string_equal(agent_type_name(11), "?");
}

static void test_sync_in_rubbish(void **state)
{
	static const char stale[] = "stale\x24\0\0\0\x01\0\0\0\0\0\0\0iron-agent-syn" HELLO_BYTES "rest";
	struct str in = str_make(stale, sizeof stale - 1);
	uint32_t version = 0;
	uint8_t nonce[AGENT_NONCE_SIZE];

	assert_int_equal(agent_sync(&in, AGENT_HELLO, &version, nonce), 1);
	assert_int_equal(version, AGENT_VERSION);
	assert_memory_equal(nonce, NONCE, sizeof nonce);
	assert_true(str_eq(in, STR("rest")));
}

/* However the bytes are cut, the hello is found, and rubbish does not pile up. */
static void test_sync_byte_by_byte(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint32_t version;
	int found = 0;

	for (int i = 0; i < 1000; i++)
		buf_append_byte(&b, 0xff);
	buf_append(&b, HELLO_BYTES, sizeof HELLO_BYTES - 1);
	_cleanup_(buf_finish) struct buf seen = {0};
	for (size_t i = 0; i < b.len; i++) {
		buf_append_byte(&seen, b.data[i]);
		struct str in = buf_str(&seen);
		found += agent_sync(&in, AGENT_HELLO, &version, nonce);
		buf_consume(&seen, seen.len - in.len);
		assert_true(seen.len < 48);
	}
	assert_int_equal(found, 1);
	assert_int_equal(seen.len, 0);
}

/* A flush ends whatever frame was half-sent, so that the guest comes to look for the hello behind it. */
static void test_flush_ends_any_frame(void **state)
{
	uint8_t header[AGENT_HEADER_SIZE];
	_cleanup_(buf_finish) struct buf b = {0};
	struct agent_frame f;

	assert_int_equal(agent_header_encode(AGENT_EXEC, 1, AGENT_PAYLOAD_MAX, header), 0);
	buf_append(&b, header, sizeof header);
	memset(buf_reserve(&b, AGENT_FLUSH_SIZE), 0xff, AGENT_FLUSH_SIZE);
	buf_commit(&b, AGENT_FLUSH_SIZE);
	struct str in = buf_str(&b);
	assert_int_equal(agent_frame_next(&in, AGENT_HOST, &f), 1);
	assert_int_equal(agent_frame_next(&in, AGENT_HOST, &f), -EBADMSG);
}

static void test_credit_bounds(void **state)
{
	uint32_t v;

	assert_int_equal(agent_credit_decode(STR("\0\0\0\0"), &v), -EBADMSG);
	assert_int_equal(agent_credit_decode(STR("\x01\0\x08\0"), &v), -EBADMSG);
	assert_int_equal(agent_credit_decode(STR("\0\0\x08\0"), &v), 0);
	assert_int_equal(v, AGENT_WINDOW);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_literal_frames),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_refused_headers),
		cmocka_unit_test(test_encoder_refuses_what_the_decoder_would),
		cmocka_unit_test(test_sync_in_rubbish),
		cmocka_unit_test(test_sync_byte_by_byte),
		cmocka_unit_test(test_flush_ends_any_frame),
		cmocka_unit_test(test_credit_bounds),
	};
	return cmocka_run_group_tests_name("agent protocol", tests, NULL, NULL);
}
