#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/hostname.h"

static void test_names(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"example.com", "example.com"},
		{"EXAMPLE.Com.", "example.com"},
		{"a", "a"},
		{"_dmarc.x-y.com", "_dmarc.x-y.com"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"1.2.3.com", "1.2.3.com"},
		{"4chan.org", "4chan.org"},
		{"0xdead.beef.", "0xdead.beef"},
		{"r3---sn-a5m.googlevideo.com", "r3---sn-a5m.googlevideo.com"},
		{"0xg", "0xg"},
	};
	static const char *const bad[] = {
	        "",
	        ".",
	        "..",
	        "a..b",
	        ".a",
	        "a.b..",
	        "a b.com",
	        "a,b.com",
	        "a.com\n",
	        "a/b",
	        "a:80",
	        "a*.com",
	        "*.com",
	        "b\xc3\xbc.de",
	        "1.2.3.4",
	        "1",
	        "127.1",
	        "0x7f.1",
	        "a.0x7f",
	        "a.0x",
	        "10.0.0.08",
	        "2130706433",
	        "a.123.",
	        "a%2e.com",
	        "[::1]",
	        "::1",
	        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.com",
	};
	char name[HOSTNAME_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(hostname_parse(str_of(cases[i].in), name), 0);
		assert_string_equal(name, cases[i].out);
		assert_true(hostname_is_canonical(str_of(name)));
		assert_int_equal(hostname_is_canonical(str_of(cases[i].in)), strcmp(cases[i].in, cases[i].out) == 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (hostname_parse(str_of(bad[i]), name) != -EINVAL)
			fail_msg("%s parses", bad[i]);
	assert_int_equal(hostname_parse(str_make("a\0.com", 6), name), -EINVAL);
}

static void test_lengths(void **state)
{
	char text[300], name[HOSTNAME_SIZE];

	memset(text, 'a', sizeof text);
	for (size_t i = 63; i < sizeof text; i += 64)
		text[i] = '.';
	assert_int_equal(hostname_parse(str_make(text, 253), name), 0);
	assert_int_equal(strlen(name), 253);
	assert_int_equal(hostname_parse(str_make(text, 254), name), -EINVAL);
	text[253] = '.';
	assert_int_equal(hostname_parse(str_make(text, 254), name), 0);
	assert_int_equal(hostname_parse(str_make(text, 63), name), 0);
}

static void test_in(void **state)
{
	assert_true(hostname_in(STR("x.com"), STR("x.com")));
	assert_true(hostname_in(STR("a.b.x.com"), STR("x.com")));
	assert_false(hostname_in(STR("ax.com"), STR("x.com")));
	assert_false(hostname_in(STR("com"), STR("x.com")));
	assert_false(hostname_in(STR("x.com.evil"), STR("x.com")));
}

static void test_kinds(void **state)
{
	static const struct {
		const char *name;
		enum hostname_kind kind;
	} cases[] = {
		{"example.com", HOSTNAME_ORDINARY},    {"localhost", HOSTNAME_LOCALHOST},
		{"a.localhost", HOSTNAME_LOCALHOST},   {"iron.internal", HOSTNAME_IRON},
		{"a.iron.internal", HOSTNAME_SPECIAL}, {"db.internal", HOSTNAME_SPECIAL},
		{"internal", HOSTNAME_SPECIAL},        {"printer", HOSTNAME_SPECIAL},
		{"printer.local", HOSTNAME_SPECIAL},   {"nas.lan", HOSTNAME_SPECIAL},
		{"x.home.arpa", HOSTNAME_SPECIAL},     {"4.3.2.1.in-addr.arpa", HOSTNAME_SPECIAL},
		{"abc.onion", HOSTNAME_SPECIAL},       {"x.invalid", HOSTNAME_SPECIAL},
		{"use-application-dns.net", HOSTNAME_SPECIAL}, {"dns.net", HOSTNAME_ORDINARY},
		{"notlocal.com", HOSTNAME_ORDINARY},   {"mylocal.mylan", HOSTNAME_ORDINARY},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (hostname_kind(str_of(cases[i].name)) != cases[i].kind)
			fail_msg("%s", cases[i].name);
}

static void test_hosts(void **state)
{
	struct host h;

	assert_int_equal(host_parse(STR("2001:DB8::1"), &h), 0);
	assert_int_equal(h.ip.family, 6);
	assert_string_equal(h.name, "2001:db8::1");
	assert_int_equal(host_parse(STR("X.com."), &h), 0);
	assert_int_equal(h.ip.family, 0);
	assert_string_equal(h.name, "x.com");
	assert_int_equal(host_parse(STR("127.1"), &h), -EINVAL);
	assert_int_equal(host_parse(STR("1.2.3.4."), &h), -EINVAL);
}

static void test_authorities(void **state)
{
	static const struct {
		const char *in, *host;
		unsigned port;
	} good[] = {
		{"x.com", "x.com", 0},	       {"X.com:8080", "x.com", 8080},  {"1.2.3.4:1", "1.2.3.4", 1},
		{"[::1]", "::1", 0},	       {"[::1]:65535", "::1", 65535},  {"x.com.:80", "x.com", 80},
	};
	static const char *const bad[] = {
	        "",          ":",           ":80",     "x.com:", "x.com:0", "x.com:080", "x.com:65536",
	        "x.com:8x",  "x.com:80:80", "u@x.com", "::1",    "[::1",    "[::1]x",    "[::1]:",
	        "[x.com]",   "[1.2.3.4]",   "[]",      "[:]",    "x.com ",  "x,y.com",   "127.1:80",
	        "[::1%251]", "]",
	};
	struct host h;
	uint16_t port;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(authority_parse(str_of(good[i].in), &h, &port), 0);
		assert_string_equal(h.name, good[i].host);
		assert_int_equal(port, good[i].port);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (authority_parse(str_of(bad[i]), &h, &port) != -EINVAL)
			fail_msg("%s parses", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names), cmocka_unit_test(test_lengths), cmocka_unit_test(test_in),
		cmocka_unit_test(test_kinds), cmocka_unit_test(test_hosts),   cmocka_unit_test(test_authorities),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
