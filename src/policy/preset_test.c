/* Every preset is what the door would take: canonical rules, each once, none wider than its table means. */
#include "policy/preset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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

static void test_each_expands(void **state)
{
	size_t total = 0;

	for (const struct preset *p = presets; p->name; p++) {
		_cleanup_(buf_finish) struct buf list = {0};
		struct str rest, item, others, other;
		size_t n = 0;
		assert_int_equal(preset_expand(p, &list), 0);
		assert_ptr_equal(preset_find(str_of(p->name)), p);
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
		assert_true(!p[1].name || strcmp(p->name, p[1].name) < 0);
	}
	assert_in_range(total, 10, PRESETS_RULES_MAX);
}

static void test_what_they_hold(void **state)
{
	_cleanup_(buf_finish) struct buf list = {0};
	struct str rest, item, text;
	struct rec_rule rule;
	uint64_t port;

	assert_int_equal(preset_expand(preset_find(STR("npm")), &list), 0);
	rest = buf_str(&list);
	assert_true(wire_list_next(&rest, &item) && wire_list_next(&rest, &item));
	assert_int_equal(wire_decode(&rec_rule_wire, item, &rule), 0);
	assert_true(str_eq(rule.host, STR("registry.npmjs.org")));
	assert_true(wire_list_next_u64(&rule.ports, &port) && port == 443 && !wire_list_next_u64(&rule.ports, &port));
	assert_true(wire_list_next(&rule.methods, &text) && str_eq(text, STR("POST")) && !wire_list_next(&rule.methods, &text));
	assert_true(wire_list_next(&rule.paths, &text) && str_eq(text, STR("/-/npm/v1/security/*")));
	assert_null(preset_find(STR("")));
	assert_null(preset_find(STR("np")));
	assert_null(preset_find(STR("npmm")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_expands), cmocka_unit_test(test_what_they_hold)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
