#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/ip.h"

static struct ip ip(const char *text)
{
	struct ip a;
	if (ip_parse(str_of(text), &a))
		fail_msg("%s does not parse", text);
	return a;
}

static void test_round_trip(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"0.0.0.0", "0.0.0.0"},
		{"255.255.255.255", "255.255.255.255"},
		{"10.0.200.9", "10.0.200.9"},
		{"::", "::"},
		{"::1", "::1"},
		{"1::", "1::"},
		{"2001:DB8::A", "2001:db8::a"},
		{"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
		{"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
		{"0:0:0:0:0:0:0:0", "::"},
		{"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
		{"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
		{"1:0:0:4:0:0:0:8", "1:0:0:4::8"},
		{"::ffff:1.2.3.4", "::ffff:102:304"},
		{"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
		{"0001:0:0:0:0:0:0:0", "1::"},
	};
	char text[IP_TEXT_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ip a = ip(cases[i].in), again;
		ip_format(&a, text);
		assert_string_equal(text, cases[i].out);
		assert_int_equal(ip_parse(str_of(text), &again), 0);
		assert_true(ip_eq(&a, &again));
	}
}

static void test_refused_text(void **state)
{
	static const char *const bad[] = {
	        "",
	        ".",
	        "1",
	        "127.1",
	        "1.2.3",
	        "1.2.3.4.5",
	        "1.2.3.4.",
	        ".1.2.3.4",
	        "1..2.3",
	        "01.2.3.4",
	        "1.2.3.04",
	        "0177.0.0.1",
	        "0x7f.0.0.1",
	        "0x7f000001",
	        "2130706433",
	        "256.1.1.1",
	        "1.2.3.256",
	        "1.2.3.-4",
	        "1.2.3.4 ",
	        " 1.2.3.4",
	        "1.2.3.4/32",
	        "1.2.3.a",
	        "1.2.3.4:80",
	        ":",
	        ":::",
	        "1:",
	        ":1",
	        "1::2::3",
	        "1:2:3:4:5:6:7",
	        "1:2:3:4:5:6:7:8:9",
	        "1:2:3:4:5:6:7:8::",
	        "::1:2:3:4:5:6:7:8",
	        "12345::",
	        "g::",
	        "::1%eth0",
	        "[::1]",
	        "::1.2.3",
	        "::1.2.3.04",
	        "1.2.3.4::",
	        "::1.2.3.4:5",
	        "1:2:3:4:5:6:7:1.2.3.4",
	        "::ffff:1.2.3.4.5",
	        "1:2:3:4",
	};
	struct ip a;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (ip_parse(str_of(bad[i]), &a) != -EINVAL)
			fail_msg("%s parses", bad[i]);
	assert_int_equal(ip_parse(str_make("1.2.3.4\0", 8), &a), -EINVAL);
}

static void test_cidr(void **state)
{
	static const struct {
		const char *text;
		int r;
		const char *out;
	} cases[] = {
		{"10.0.0.0/8", 0, "10.0.0.0/8"},
		{"0.0.0.0/0", 0, "0.0.0.0/0"},
		{"1.2.3.4", 0, "1.2.3.4/32"},
		{"::1", 0, "::1/128"},
		{"2001:db8::/33", 0, "2001:db8::/33"},
		{"10.0.0.1/8", -ERANGE, NULL},
		{"128.0.0.0/0", -ERANGE, NULL},
		{"2001:db8:8000::/32", -ERANGE, NULL},
		{"10.0.0.0/33", -EINVAL, NULL},
		{"::/129", -EINVAL, NULL},
		{"10.0.0.0/", -EINVAL, NULL},
		{"10.0.0.0/08", -EINVAL, NULL},
		{"10.0.0.0/8/8", -EINVAL, NULL},
		{"10.0.0.0/+8", -EINVAL, NULL},
		{"10/8", -EINVAL, NULL},
		{"/8", -EINVAL, NULL},
		{"", -EINVAL, NULL},
	};
	char text[CIDR_TEXT_SIZE];
	struct cidr c;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(cidr_parse(str_of(cases[i].text), &c), cases[i].r);
		if (cases[i].r)
			continue;
		cidr_format(&c, text);
		assert_string_equal(text, cases[i].out);
	}
}

static void test_contains(void **state)
{
	static const struct {
		const char *cidr, *address;
		bool in;
	} cases[] = {
		{"10.0.0.0/8", "10.255.255.255", true},   {"10.0.0.0/8", "11.0.0.0", false},
		{"172.16.0.0/12", "172.31.0.1", true},    {"172.16.0.0/12", "172.32.0.1", false},
		{"1.2.3.4/32", "1.2.3.4", true},          {"1.2.3.4/32", "1.2.3.5", false},
		{"0.0.0.0/0", "255.1.2.3", true},         {"0.0.0.0/0", "::", false},
		{"::/0", "1.2.3.4", false},               {"::/0", "ffff::", true},
		{"2001:db8::/33", "2001:db8:7fff::", true}, {"2001:db8::/33", "2001:db8:8000::", false},
		{"::1/128", "::1", true},                 {"::1/128", "::2", false},
		{"192.168.1.128/25", "192.168.1.127", false}, {"192.168.1.128/25", "192.168.1.129", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cidr c;
		struct ip a = ip(cases[i].address);
		assert_int_equal(cidr_parse(str_of(cases[i].cidr), &c), 0);
		if (cidr_contains(&c, &a) != cases[i].in)
			fail_msg("%s in %s", cases[i].address, cases[i].cidr);
	}
}

static void test_covers(void **state)
{
	struct cidr outer, inner;
	cidr_parse(STR("10.0.0.0/8"), &outer);
	cidr_parse(STR("10.1.0.0/16"), &inner);
	assert_true(cidr_covers(&outer, &inner));
	assert_false(cidr_covers(&inner, &outer));
	assert_true(cidr_covers(&outer, &outer));
	struct ip a = ip("10.9.8.7");
	struct cidr of = cidr_of(&a, 8);
	assert_true(cidr_covers(&of, &outer) && cidr_covers(&outer, &of));
}

/* Both ends of each registered range, and its neighbours. */
static const struct {
	const char *address;
	enum ip_class is;
} classes[] = {
	{"0.0.0.0", IP_UNSPECIFIED},
	{"0.255.255.255", IP_UNSPECIFIED},
	{"1.0.0.0", IP_GLOBAL},
	{"8.8.8.8", IP_GLOBAL},
	{"9.255.255.255", IP_GLOBAL},
	{"10.0.0.0", IP_PRIVATE},
	{"10.255.255.255", IP_PRIVATE},
	{"11.0.0.0", IP_GLOBAL},
	{"28.0.0.1", IP_GLOBAL},
	{"100.63.255.255", IP_GLOBAL},
	{"100.64.0.0", IP_PRIVATE},
	{"100.127.255.255", IP_PRIVATE},
	{"100.128.0.0", IP_GLOBAL},
	{"127.0.0.1", IP_LOOPBACK},
	{"127.255.255.255", IP_LOOPBACK},
	{"128.0.0.0", IP_GLOBAL},
	{"169.253.255.255", IP_GLOBAL},
	{"169.254.169.254", IP_LINK_LOCAL},
	{"169.255.0.0", IP_GLOBAL},
	{"172.15.255.255", IP_GLOBAL},
	{"172.16.0.0", IP_PRIVATE},
	{"172.31.255.255", IP_PRIVATE},
	{"172.32.0.0", IP_GLOBAL},
	{"192.0.0.0", IP_RESERVED},
	{"192.0.0.8", IP_RESERVED},
	{"192.0.0.9", IP_GLOBAL},
	{"192.0.0.10", IP_GLOBAL},
	{"192.0.0.11", IP_RESERVED},
	{"192.0.0.170", IP_RESERVED},
	{"192.0.1.0", IP_GLOBAL},
	{"192.0.2.1", IP_DOCUMENTATION},
	{"192.0.3.0", IP_GLOBAL},
	{"192.31.196.1", IP_GLOBAL},
	{"192.52.193.1", IP_GLOBAL},
	{"192.88.99.1", IP_TRANSITION},
	{"192.167.255.255", IP_GLOBAL},
	{"192.168.0.0", IP_PRIVATE},
	{"192.168.255.255", IP_PRIVATE},
	{"192.169.0.0", IP_GLOBAL},
	{"192.175.48.1", IP_GLOBAL},
	{"198.17.255.255", IP_GLOBAL},
	{"198.18.0.0", IP_BENCHMARKING},
	{"198.19.255.255", IP_BENCHMARKING},
	{"198.20.0.0", IP_GLOBAL},
	{"198.51.100.7", IP_DOCUMENTATION},
	{"203.0.113.7", IP_DOCUMENTATION},
	{"223.255.255.255", IP_GLOBAL},
	{"224.0.0.1", IP_MULTICAST},
	{"239.255.255.255", IP_MULTICAST},
	{"240.0.0.0", IP_RESERVED},
	{"255.255.255.254", IP_RESERVED},
	{"255.255.255.255", IP_BROADCAST},
	{"::", IP_UNSPECIFIED},
	{"::1", IP_LOOPBACK},
	{"::2", IP_TRANSITION},
	{"::127.0.0.1", IP_TRANSITION},
	{"::ffff:8.8.8.8", IP_TRANSITION},
	{"::ffff:0:8.8.8.8", IP_TRANSITION},
	{"64:ff9b::1", IP_GLOBAL},
	{"64:ff9b:0:0:0:1::", IP_RESERVED},
	{"64:ff9b:1::1", IP_TRANSITION},
	{"64:ff9b:2::1", IP_RESERVED},
	{"100::1", IP_RESERVED},
	{"100:0:0:1::1", IP_RESERVED},
	{"200::1", IP_RESERVED},
	{"1fff::", IP_RESERVED},
	{"2000::1", IP_GLOBAL},
	{"2001::1", IP_TRANSITION},
	{"2001:1::1", IP_GLOBAL},
	{"2001:1::2", IP_GLOBAL},
	{"2001:1::3", IP_GLOBAL},
	{"2001:1::4", IP_RESERVED},
	{"2001:2::1", IP_BENCHMARKING},
	{"2001:2:1::", IP_RESERVED},
	{"2001:3::1", IP_GLOBAL},
	{"2001:4:111::", IP_RESERVED},
	{"2001:4:112::1", IP_GLOBAL},
	{"2001:10::1", IP_RESERVED},
	{"2001:20::1", IP_GLOBAL},
	{"2001:30::1", IP_GLOBAL},
	{"2001:40::1", IP_RESERVED},
	{"2001:1ff:ffff::", IP_RESERVED},
	{"2001:200::1", IP_GLOBAL},
	{"2001:db8::1", IP_DOCUMENTATION},
	{"2001:db9::1", IP_GLOBAL},
	{"2002::1", IP_TRANSITION},
	{"2003::1", IP_GLOBAL},
	{"2606:4700::1111", IP_GLOBAL},
	{"2620:4f:8000::1", IP_GLOBAL},
	{"3ffe::1", IP_RESERVED},
	{"3fff::1", IP_DOCUMENTATION},
	{"3fff:fff::1", IP_DOCUMENTATION},
	{"3fff:1000::", IP_GLOBAL},
	{"4000::1", IP_RESERVED},
	{"5f00::1", IP_RESERVED},
	{"fbff::", IP_RESERVED},
	{"fc00::1", IP_PRIVATE},
	{"fdff::", IP_PRIVATE},
	{"fe00::", IP_RESERVED},
	{"fe80::1", IP_LINK_LOCAL},
	{"febf::1", IP_LINK_LOCAL},
	{"fec0::1", IP_PRIVATE},
	{"ff02::1", IP_MULTICAST},
};

static void test_classes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		struct ip a = ip(classes[i].address);
		if (ip_classify(&a) != classes[i].is)
			fail_msg("%s is %s, not %s", classes[i].address, ip_class_text(ip_classify(&a)),
				 ip_class_text(classes[i].is));
	}
}

static void test_embedded(void **state)
{
	static const struct {
		const char *address, *inner[IP_EMBEDDED_MAX];
	} cases[] = {
		{"1.2.3.4", {NULL}},
		{"2606:4700::1", {NULL}},
		{"::", {NULL}},
		{"::1", {NULL}},
		{"::ffff:10.1.2.3", {"10.1.2.3"}},
		{"::10.1.2.3", {"10.1.2.3"}},
		{"::ffff:0:10.1.2.3", {"10.1.2.3"}},
		{"64:ff9b::10.1.2.3", {"10.1.2.3"}},
		{"2002:a01:203::1", {"10.1.2.3"}},
		{"2001:0:a01:203:0:0:f5fe:fdfc", {"10.1.2.3", "10.1.2.3"}},
		{"fe80::5efe:10.1.2.3", {"10.1.2.3"}},
		{"2606:4700::200:5efe:10.1.2.3", {"10.1.2.3"}},
		{"2002:808:808::5efe:10.1.2.3", {"8.8.8.8", "10.1.2.3"}},
		/* RFC 6052 section 2.4, with the local prefix: /48, /56, /64 and /96 */
		{"64:ff9b:1:c000:2:2100::", {"192.0.2.33", "0.2.33.0", "2.33.0.0", "0.0.0.0"}},
		{"64:ff9b:1:c0:0:221::", {"0.192.0.2", "192.0.2.33", "0.2.33.0", "0.0.0.0"}},
		{"64:ff9b:1:0:c0:2:2100:0", {"0.0.192.0", "0.192.0.2", "192.0.2.33", "33.0.0.0"}},
		{"64:ff9b:1::192.0.2.33", {"0.0.0.0", "0.0.0.0", "0.0.0.192", "192.0.2.33"}},
	};
	struct ip inner[IP_EMBEDDED_MAX];
	char text[IP_TEXT_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ip a = ip(cases[i].address);
		unsigned n = ip_embedded(&a, inner), want = 0;
		while (want < IP_EMBEDDED_MAX && cases[i].inner[want])
			want++;
		if (n != want)
			fail_msg("%s embeds %u, not %u", cases[i].address, n, want);
		for (unsigned j = 0; j < n; j++) {
			ip_format(&inner[j], text);
			assert_string_equal(text, cases[i].inner[j]);
		}
	}
}

static void test_global(void **state)
{
	static const char *const yes[] = {"8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "2001:4860::5efe:8.8.8.8"};
	static const char *const no[] = {
	        "127.0.0.1",
	        "::ffff:8.8.8.8",
	        "::8.8.8.8",
	        "2002:808:808::1",
	        "64:ff9b::10.0.0.1",
	        "64:ff9b::127.0.0.1",
	        "64:ff9b::169.254.169.254",
	        "64:ff9b:1::8.8.8.8",
	        "2001:0:808:808::",
	        "2606:4700::5efe:192.168.0.1",
	        "::",
	};
	struct ip none = {0};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		struct ip a = ip(yes[i]);
		if (!ip_is_global(&a))
			fail_msg("%s is not global", yes[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		struct ip a = ip(no[i]);
		if (ip_is_global(&a))
			fail_msg("%s is global", no[i]);
	}
	assert_false(ip_is_global(&none));
}

static void test_integers(void **state)
{
	struct ip a = ip_from_v4(0x0a4d0002), b = ip("10.77.0.2");
	assert_true(ip_eq(&a, &b));
	assert_int_equal(ip_v4(&b), 0x0a4d0002);
	uint8_t bytes[16] = {[15] = 1};
	struct ip c = ip_from_v6(bytes), d = ip("::1");
	assert_true(ip_eq(&c, &d));
	assert_false(ip_eq(&c, &a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused_text), cmocka_unit_test(test_cidr),
		cmocka_unit_test(test_contains),   cmocka_unit_test(test_covers),	cmocka_unit_test(test_classes),
		cmocka_unit_test(test_embedded),   cmocka_unit_test(test_global),	cmocka_unit_test(test_integers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
