#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/dns.h"

/* Header of a plain query: id 0x1234, RD, one question. */
#define HEADER "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
#define HEADER_OPT "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
#define EXAMPLE "\x07" "eXample\x03" "COM\x00"
#define A_IN "\x00\x01\x00\x01"
#define OPT "\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00"
#define PACKET(lit) ((struct str){.p = (lit), .len = sizeof(lit) - 1})

static void test_plain(void **state)
{
	struct dns_query q;

	assert_int_equal(dns_query_parse(PACKET(HEADER EXAMPLE A_IN), &q), 0);
	assert_int_equal(q.id, 0x1234);
	assert_string_equal(q.name, "example.com");
	assert_int_equal(q.qtype, DNS_A);
	assert_int_equal(q.qclass, 1);
	assert_int_equal(q.question_len, 17);
	assert_memory_equal(q.question, EXAMPLE A_IN, 17);
	assert_false(q.edns);
	assert_int_equal(q.udp_size, 512);
	assert_int_equal(dns_query_parse(PACKET(HEADER "\x09" "localhost\x00" A_IN), &q), 0);
	assert_string_equal(q.name, "localhost");
}

static void test_edns(void **state)
{
	struct dns_query q;

	assert_int_equal(dns_query_parse(PACKET(HEADER_OPT EXAMPLE A_IN OPT), &q), 0);
	assert_true(q.edns && q.dnssec_ok);
	assert_int_equal(q.udp_size, 1232);
	/* a cookie option */
	assert_int_equal(dns_query_parse(PACKET(HEADER_OPT EXAMPLE A_IN
	                                        "\x00\x00\x29\x00\x10\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x08"
	                                        "12345678"),
	                                 &q),
	                 0);
	assert_int_equal(q.udp_size, 512);
	assert_false(q.dnssec_ok);
}

static const struct {
	struct str packet;
	int rcode;
} rcodes[] = {
	/* no, two, no whole question */
	{PACKET("\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"), DNS_FORMERR},
	{PACKET("\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00" EXAMPLE A_IN EXAMPLE A_IN), DNS_FORMERR},
	{PACKET(HEADER "\x07"
	       "example"),
	 DNS_FORMERR},
	{PACKET(HEADER EXAMPLE "\x00\x01\x00"), DNS_FORMERR},
	{PACKET(HEADER), DNS_FORMERR},
	/* compression, the reserved label types, a trailing byte */
	{PACKET(HEADER "\xc0\x0c" A_IN), DNS_FORMERR},
	{PACKET(HEADER "\x07"
	       "example\xc0\x0c" A_IN),
	 DNS_FORMERR},
	{PACKET(HEADER "\x41"
	       "a\x00" A_IN),
	 DNS_FORMERR},
	{PACKET(HEADER "\x80\x00" A_IN), DNS_FORMERR},
	{PACKET(HEADER EXAMPLE A_IN "x"), DNS_FORMERR},
	/* answer, authority, two additional records */
	{PACKET("\x12\x34\x01\x00\x00\x01\x00\x01\x00\x00\x00\x00" EXAMPLE A_IN), DNS_FORMERR},
	{PACKET("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x01\x00\x00" EXAMPLE A_IN), DNS_FORMERR},
	{PACKET("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x02" EXAMPLE A_IN OPT OPT), DNS_FORMERR},
	/* OPT: absent, cut, with a name, options that do not add up, of another type */
	{PACKET(HEADER_OPT EXAMPLE A_IN), DNS_FORMERR},
	{PACKET(HEADER_OPT EXAMPLE A_IN "\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00"), DNS_FORMERR},
	{PACKET(HEADER_OPT EXAMPLE A_IN "\x01"
	                        "a\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00"),
	 DNS_FORMERR},
	{PACKET(HEADER_OPT EXAMPLE A_IN "\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x04\x00\x0a\x00\x01"),
	 DNS_FORMERR},
	{PACKET(HEADER_OPT EXAMPLE A_IN "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"), DNS_FORMERR},
	{PACKET(HEADER_OPT EXAMPLE A_IN "\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00"), DNS_BADVERS},
	/* opcode, class, meta types */
	{PACKET("\x12\x34\x29\x00\x00\x01\x00\x00\x00\x00\x00\x00" EXAMPLE A_IN), DNS_NOTIMP},
	{PACKET(HEADER EXAMPLE "\x00\x01\x00\x03"), DNS_REFUSED},
	{PACKET(HEADER EXAMPLE "\x00\x01\x00\xff"), DNS_REFUSED},
	{PACKET(HEADER EXAMPLE "\x00\xfc\x00\x01"), DNS_REFUSED},
	{PACKET(HEADER EXAMPLE "\x00\x29\x00\x01"), DNS_REFUSED},
	{PACKET(HEADER EXAMPLE "\x00\x00\x00\x01"), DNS_REFUSED},
	{PACKET(HEADER EXAMPLE "\x00\xff\x00\x01"), 0},
	{PACKET(HEADER EXAMPLE "\x00\x1c\x00\x01"), 0},
	{PACKET(HEADER EXAMPLE "\x00\x41\x00\x01"), 0},
	/* names that are none of ours */
	{PACKET(HEADER "\x00" A_IN), DNS_NXDOMAIN},
	{PACKET(HEADER "\x03"
	       "a b\x03"
	       "com\x00" A_IN),
	 DNS_NXDOMAIN},
	{PACKET(HEADER "\x03"
	       "a.b\x03"
	       "com\x00" A_IN),
	 DNS_NXDOMAIN},
	{PACKET(HEADER "\x03"
	       "a\x00"
	       "b\x03"
	       "com\x00" A_IN),
	 DNS_NXDOMAIN},
	{PACKET(HEADER "\x01"
	       "1\x01"
	       "2\x01"
	       "3\x01"
	       "4\x00" A_IN),
	 DNS_NXDOMAIN},
	{PACKET(HEADER "\x02"
	       "\xc3\xbc\x03"
	       "com\x00" A_IN),
	 DNS_NXDOMAIN},
	/* not to be answered */
	{PACKET(""), -EBADMSG},
	{PACKET("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00"), -EBADMSG},
	{PACKET("\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00" EXAMPLE A_IN), -EBADMSG},
};

static void test_rcodes(void **state)
{
	struct dns_query q;

	for (size_t i = 0; i < ARRAY_SIZE(rcodes); i++) {
		int r = dns_query_parse(rcodes[i].packet, &q);
		if (r != rcodes[i].rcode)
			fail_msg("case %zu: %d, not %d", i, r, rcodes[i].rcode);
		if (r > 0)
			assert_string_equal(q.name, "");
	}
}

/* Four labels of 63 are one byte too long on the wire; the last one of 61 just fits. */
static void test_longest(void **state)
{
	char packet[512];
	struct dns_query q;

	memcpy(packet, HEADER, 12);
	for (size_t last = 60; last <= 63; last++) {
		size_t n = 12;
		for (size_t label = 0; label < 4; label++) {
			size_t len = label == 3 ? last : 63;
			packet[n++] = (char)len;
			memset(packet + n, 'a', len);
			n += len;
		}
		memcpy(packet + n, "\x00" A_IN, 5);
		assert_int_equal(dns_query_parse(str_make(packet, n + 5), &q), last <= 61 ? 0 : DNS_FORMERR);
		if (last == 61)
			assert_int_equal(strlen(q.name), 253);
	}
	static char big[DNS_QUERY_MAX + 1];
	assert_int_equal(dns_query_parse(str_make(big, sizeof big), &q), -EBADMSG);
}

static void test_answers(void **state)
{
	_cleanup_(buf_finish) struct buf out = {0};
	struct dns_a a = {.address = 0x1c000001, .ttl_s = 60};
	struct dns_query q;

	dns_query_parse(PACKET(HEADER EXAMPLE A_IN), &q);
	assert_int_equal(dns_answer(&q, DNS_NOERROR, &a, &out), 0);
	static const char address[] = "\x12\x34\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00" EXAMPLE A_IN
				      "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x1c\x00\x00\x01";
	assert_true(str_eq(buf_str(&out), PACKET(address)));

	buf_clear(&out);
	assert_int_equal(dns_answer_tcp(&q, DNS_NXDOMAIN, NULL, &out), 0);
	static const char nxdomain[] = "\x00\x1d\x12\x34\x85\x83\x00\x01\x00\x00\x00\x00\x00\x00" EXAMPLE A_IN;
	assert_true(str_eq(buf_str(&out), PACKET(nxdomain)));

	/* EDNS asked, EDNS answered, with the extended code in it */
	dns_query_parse(PACKET(HEADER_OPT EXAMPLE A_IN OPT), &q);
	buf_clear(&out);
	assert_int_equal(dns_answer(&q, DNS_BADVERS, &a, &out), 0);
	static const char badvers[] = "\x12\x34\x85\x80\x00\x01\x00\x00\x00\x00\x00\x01" EXAMPLE A_IN
				      "\x00\x00\x29\x04\xd0\x01\x00\x80\x00\x00\x00";
	assert_true(str_eq(buf_str(&out), PACKET(badvers)));

	/* no question to repeat, no address without one */
	dns_query_parse(PACKET(HEADER "\xc0\x0c" A_IN), &q);
	buf_clear(&out);
	assert_int_equal(dns_answer(&q, DNS_FORMERR, &a, &out), 0);
	assert_true(str_eq(buf_str(&out), PACKET("\x12\x34\x85\x81\x00\x00\x00\x00\x00\x00\x00\x00")));
}

static void test_answer_ceiling(void **state)
{
	_cleanup_(buf_finish) struct buf out = BUF_MAX(DNS_ANSWER_MAX - 1);
	struct dns_query q;

	dns_query_parse(PACKET(HEADER EXAMPLE A_IN), &q);
	assert_int_equal(dns_answer(&q, DNS_NOERROR, NULL, &out), -EMSGSIZE);
	assert_int_equal(out.len, 0);
	buf_clear(&out);
	assert_int_equal(dns_answer_tcp(&q, DNS_NOERROR, NULL, &out), -EMSGSIZE);
	assert_int_equal(out.len, 0);
}

static void test_tcp(void **state)
{
	struct str packet;
	size_t n;
	static const char stream[] = "\x00\x1d" HEADER EXAMPLE A_IN "\x00\x1d";

	for (size_t i = 0; i < 31; i++)
		assert_int_equal(dns_tcp_next(str_make(stream, i), &packet, &n), 0);
	assert_int_equal(dns_tcp_next(PACKET(stream), &packet, &n), 1);
	assert_int_equal(n, 31);
	assert_int_equal(packet.len, 29);
	assert_int_equal(dns_tcp_next(PACKET("\x00\x0b"), &packet, &n), -EMSGSIZE);
	assert_int_equal(dns_tcp_next(PACKET("\x04\xd1"), &packet, &n), -EMSGSIZE);
	assert_int_equal(dns_tcp_next(PACKET("\x04\xd0"), &packet, &n), 0);
}

static void test_types(void **state)
{
	char text[DNS_TYPE_TEXT_SIZE];
	assert_string_equal(dns_type_format(65, text), "HTTPS");
	assert_string_equal(dns_type_format(65535, text), "TYPE65535");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_plain),   cmocka_unit_test(test_edns),    cmocka_unit_test(test_rcodes),
	        cmocka_unit_test(test_longest), cmocka_unit_test(test_answers), cmocka_unit_test(test_answer_ceiling),
	        cmocka_unit_test(test_tcp),     cmocka_unit_test(test_types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
