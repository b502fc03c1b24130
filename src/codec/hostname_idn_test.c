#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/hostname.h"

static void test_idna(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example.", "xn--bcher-kva.example"},
		{"faß.de", "xn--fa-hia.de"}, /* non-transitional */
		{"日本語.jp", "xn--wgv71a119e.jp"},
		{"日本語。jp", "xn--wgv71a119e.jp"}, /* the ideographic full stop */
		{"ＡＢＣ.com", "abc.com"},
		{"Plain.COM", "plain.com"},
		{"a_b.com", "a_b.com"},
	};
	static const char *const bad[] = {"",      "a\xff.com",    "１２７.０.０.１", "b\xc3\xbc cher.de",
	                                  "ü..de", "\xe2\x80\x8b", "ü/x.de",          "ü\x7f.de"};
	char name[HOSTNAME_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(hostname_parse_idn(str_of(cases[i].in), name), 0);
		assert_string_equal(name, cases[i].out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (hostname_parse_idn(str_of(bad[i]), name) != -EINVAL)
			fail_msg("%s parses", bad[i]);
}

static void test_long(void **state)
{
	char text[2000], name[HOSTNAME_SIZE];
	memset(text, 'a', sizeof text);
	memcpy(text, "ü", 2);
	assert_int_equal(hostname_parse_idn(str_make(text, sizeof text), name), -EINVAL);
	assert_int_equal(hostname_parse_idn(str_make(text, 300), name), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_idna), cmocka_unit_test(test_long)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
