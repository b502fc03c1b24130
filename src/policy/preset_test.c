/* Every preset is what the door would take: canonical rules, each once, none wider than its table means. */
#include "policy/preset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "policy/rule.h"

static void check_rule(const struct preset *p, struct str encoded)
{
	_cleanup_(buf_finish) struct buf again = {0};
	struct error e = {0};
	struct rec_rule rule;

	assert_int_equal(wire_decode(&rec_rule_wire, encoded, &rule), 0);
	if (rule_canonicalise(&rule, true, &again, &e))
		fail_msg("%s: %s", p->name, e.text);
	assert_true(str_eq(buf_str(&again), encoded));
	assert_true(str_eq(rule.preset, str_of(p->name)));
	assert_true(rule.host.len > 0 && rule.cidr.len == 0 && rule.addresses.len == 0 && rule.ports.len > 0);
	assert_int_equal(rule.tls, RULE_INTERCEPT);
	assert_int_equal(rule.action, RULE_ALLOW);
	assert_false(str_eq(rule.host, STR("*")));
	assert_true(rule.id == 0 && rule.created_at == 0);
}

static const char *const packages[] = {"debian=mirror.example.org:80", "debian=mirror.example.org", "npm=Registry.Example.com.",
				       "npm=registry.example.com:443", "github=packages.example.com"};

static void make(struct presets *all, const char *const *v, size_t n, int code)
{
	_cleanup_(buf_finish) struct buf list = {0};
	struct error e = {0};

	for (size_t i = 0; i < n; i++)
		assert_int_equal(wire_list_add_z(&list, v[i]), 0);
	assert_int_equal(presets_make(buf_str(&list), all, &e), code);
	assert_true(code == 0 || strstr(e.text, "egress.packages"));
}

static void test_each_expands(void **state)
{
	_cleanup_(presets_finish) struct presets all = {0};
	size_t total = 0;

	make(&all, packages, ARRAY_SIZE(packages), 0);
	for (size_t i = 0; i < all.v.n; i++) {
		const struct preset *p = &all.v.v[i];
		_cleanup_(buf_finish) struct buf list = {0};
		struct str rest, item, others, other;
		size_t n = 0;
		assert_int_equal(preset_expand(p, &list), 0);
		assert_ptr_equal(preset_find(&all, str_of(p->name)), p);
		assert_true(strlen(p->summary) > 0 && strlen(p->summary) <= 255);
		for (rest = buf_str(&list); wire_list_next(&rest, &item); n++) {
			check_rule(p, item);
			for (others = rest; wire_list_next(&others, &other);)
				assert_false(str_eq(item, other));
		}
		assert_in_range(n, 1, PRESET_RULES_MAX);
		assert_true(list.len <= 16384);
		total += n;
		/* by name, so each once */
		assert_true(i == 0 || strcmp(all.v.v[i - 1].name, p->name) < 0);
	}
	assert_in_range(total, 14, PRESETS_RULES_MAX);
}

static void test_what_packages_hold(void **state)
{
	_cleanup_(presets_finish) struct presets all = {0};
	_cleanup_(buf_finish) struct buf list = {0};
	struct str rest, item, text;
	struct rec_rule rule;
	uint64_t port;

	make(&all, packages, ARRAY_SIZE(packages), 0);
	assert_int_equal(preset_expand(preset_find(&all, STR("npm")), &list), 0);
	rest = buf_str(&list);
	assert_true(wire_list_next(&rest, &item) && rest.len == 0); /* the same twice is once */
	assert_int_equal(wire_decode(&rec_rule_wire, item, &rule), 0);
	assert_true(str_eq(rule.host, STR("registry.example.com")));
	assert_true(wire_list_next_u64(&rule.ports, &port) && port == 443 && !wire_list_next_u64(&rule.ports, &port));
	assert_true(wire_list_next(&rule.methods, &text) && str_eq(text, STR("GET")));
	assert_true(wire_list_next(&rule.methods, &text) && str_eq(text, STR("HEAD")) && !wire_list_next(&rule.methods, &text));
	assert_null(preset_find(&all, STR("")));
	assert_null(preset_find(&all, STR("np")));
	assert_null(preset_find(&all, STR("npmm")));
}

static void test_what_is_none(void **state)
{
	static const char *const bad[] = {"", "npm", "=host.example", "npm=", "npm=10.0.0.1", "npm=host.example:0", "npm=host.example:x",
					  "npm=a b.example", "npm=*.example.com", "npm=https://host.example/"};
	const char *many[PRESET_PACKAGES_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_(presets_finish) struct presets all = {0};
		make(&all, &bad[i], 1, -EINVAL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = "npm=host.example";
	_cleanup_(presets_finish) struct presets fit = {0};
	_cleanup_(presets_finish) struct presets all = {0};
	make(&fit, many, PRESET_PACKAGES_MAX, 0);
	make(&all, many, ARRAY_SIZE(many), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_expands), cmocka_unit_test(test_what_packages_hold),
					   cmocka_unit_test(test_what_is_none)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
