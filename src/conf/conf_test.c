#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/conf.h"

static void test_empty_is_all_defaults(void **state)
{
	static const char *const empties[] = {"", "# nothing\n", "---\n"};
	for (size_t i = 0; i < ARRAY_SIZE(empties); i++) {
		struct conf *c = NULL;
		struct error e = {0};
		assert_int_equal(conf_parse("iron.yaml", str_of(empties[i]), &c, &e), 0);
		assert_int_equal(c->listen_count, 1);
		assert_string_equal(c->listen[0], "127.0.0.1:7443");
		assert_string_equal(c->metrics_listen, "");
		assert_string_equal(c->state_dir, "/var/lib/iron");
		assert_int_equal(c->shapes_count, 3);
		assert_int_equal(c->shapes[1].memory_mib, 512);
		assert_int_equal(c->egress.synthetic_base, 28U << 24);
		assert_int_equal(c->egress.synthetic_prefix, 15);
		assert_int_equal(c->limits.boot_timeout_s, 180);
		assert_false(c->allow_tcg_multi_tenant);
		conf_destroy(c);
	}
}

static void test_values(void **state)
{
	struct conf *c = NULL;
	struct error e = {0};
	assert_int_equal(conf_parse("iron.yaml",
				    STR("listen: ['[::1]:1', '10.0.0.1:7443']\n"
					"metrics_listen: '[::1]:7444'\n"
					"shapes: [{name: one, vcpus: 1, memory_mib: 256}]\n"
					"egress:\n"
					"  resolvers: [10.78.0.2, 'fd00::1#5353']\n"
					"  private_allow:\n"
					"    - cidr: 10.78.0.2/32\n"
					"      hosts: [api.example.com, '*.example.org']\n"
					"    - cidr: fd00::/8\n"),
				    &c, &e),
			 0);
	assert_int_equal(c->listen_count, 2);
	assert_string_equal(c->metrics_listen, "[::1]:7444");
	assert_int_equal(c->shapes_count, 1);
	assert_int_equal(c->egress.resolvers_count, 2);
	assert_int_equal(c->egress.private_allow_count, 2);
	assert_string_equal(c->egress.private_allow[0].hosts[1], "*.example.org");
	assert_string_equal(c->egress.never_dial[0], "168.63.129.16/32");
	conf_destroy(c);
}

/* Each mistake is named with its line and, where it is a value, with what was expected. */
static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"listen: [127.0.0.1:1]\nbogus: 1\n", "iron.yaml:2: unknown key 'bogus'"},
		{"egress:\n  resolver: []\n", "iron.yaml:2: unknown key 'egress.resolver'"},
		{"\nuid_base: many\n", "iron.yaml:2: uid_base: expected a number from 100000"},
		{"uid_base: 5\n", "iron.yaml:1: uid_base: expected a number from 100000 to 4000000000, not '5'"},
		{"uid_base: -1\n", "iron.yaml:1: uid_base: expected"},
		{"listen: []\n", "iron.yaml:1: listen: expected a list of ADDRESS:PORT, not 'an empty list'"},
		{"listen: localhost\n", "iron.yaml:1: listen: expected a list"},
		{"metrics_listen: 7444\n", "iron.yaml:1: metrics_listen: expected ADDRESS:PORT, or empty for none, not '7444'"},
		{"listen: ['example.com:80']\n", "iron.yaml:1: listen: expected a list"},
		{"shapes:\n  - name: a\n    vcpus: 99\n    memory_mib: 256\n", "shapes: expected a list of {name, vcpus"},
		{"shapes:\n  - name: a\n", "shapes: expected"},
		{"egress:\n  synthetic_range: 28.0.0.1/15\n", "iron.yaml:2: egress.synthetic_range: expected an IPv4 CIDR"},
		{"egress:\n  never_dial: [300.0.0.0/8]\n", "iron.yaml:2: egress.never_dial: expected"},
		{"egress:\n  packages: [npm]\n", "iron.yaml:2: egress.packages: expected"},
		{"egress:\n  packages: [npm=10.0.0.1]\n", "iron.yaml:2: egress.packages: expected"},
		{"egress:\n  packages: [NPM=host.example]\n", "iron.yaml:2: egress.packages: expected"},
		{"egress:\n  private_allow: [{cidr: 10.0.0.1/8}]\n", "iron.yaml:2: egress.private_allow: expected"},
		{"state_dir: relative\n", "iron.yaml:1: state_dir: expected an absolute path, not 'relative'"},
		{"sandbox: none\n", "iron.yaml:1: sandbox: expected full or degraded, not 'none'"},
		{"run_dir: /0123456789012345678901234567890123456789012345678901234567890123456789\n", "iron.yaml:1: run_dir: expected"},
		{"listen: [\n", "iron.yaml:2: not YAML"},
		{"- a\n", "iron.yaml:1: expected `key: value`"},
		{"egress: 5\n", "iron.yaml:1: expected `key: value` lines in egress"},
		{"log_level: \"a\\eb\"\n", "not 'a\\x1bb'"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct conf *c = NULL;
		struct error e = {0};
		assert_int_equal(conf_parse("iron.yaml", str_of(cases[i].text), &c, &e), -EINVAL);
		assert_null(c);
		if (!strstr(e.text, cases[i].says))
			fail_msg("for %s: %s", cases[i].text, e.text);
	}
}

/* The example says what the defaults are: without its comment marks it is a configuration equal to none. */
static void test_the_example_holds(void **state)
{
	_cleanup_(buf_finish) struct buf example = {0}, text = {0};
	struct conf *c = NULL;
	struct error e = {0};

	assert_int_equal(conf_write_example(&example), 0);
	struct str rest = buf_str(&example), line;
	while (str_split(&rest, '\n', &line)) {
		bool value = line.len > 1 && line.p[0] == '#' && line.p[1] != ' ';
		bool nested = str_has_prefix(line, STR("#  ")) && line.len > 3 && line.p[3] != '#' && line.p[3] != ' ';
		if (value || nested) {
			buf_append(&text, line.p + 1, line.len - 1);
			buf_append_byte(&text, '\n');
		}
	}
	if (conf_parse("example", buf_str(&text), &c, &e))
		fail_msg("%s", e.text);
	assert_string_equal(c->egress.synthetic_range, "28.0.0.0/15");
	assert_int_equal(c->shapes_count, 3);
	conf_destroy(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty_is_all_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_the_example_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
