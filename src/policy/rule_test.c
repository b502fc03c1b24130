#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "policy/rule.h"

/* A list of the values between commas; none of NULL. */
static struct str list(struct buf *b, const char *values)
{
	struct str rest = str_of(values), v;
	while (values && str_split(&rest, ',', &v))
		wire_list_add(b, v);
	return buf_str(b);
}

static struct str numbers(struct buf *b, const uint64_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		wire_list_add_u64(b, v[i]);
	return buf_str(b);
}

static int canon(const struct rec_rule *asked, bool tls_given, struct buf *out, struct rec_rule *ret, struct error *e)
{
	int r = rule_canonicalise(asked, tls_given, out, e);
	if (r == 0)
		assert_int_equal(wire_decode(&rec_rule_wire, buf_str(out), ret), 0);
	return r;
}

static void test_hosts(void **state)
{
	static const struct {
		const char *in, *out; /* out NULL: refused */
		unsigned tls;
	} cases[] = {
		{"x.com", "x.com", RULE_INTERCEPT},
		{"API.Example.COM.", "api.example.com", RULE_INTERCEPT},
		{"*.X.com.", "*.x.com", RULE_INTERCEPT},
		{"*", "*", RULE_INTERCEPT},
		{"bücher.example", "xn--bcher-kva.example", RULE_INTERCEPT},
		{"*.bücher.example", "*.xn--bcher-kva.example", RULE_INTERCEPT},
		{"localhost", "localhost", RULE_INTERCEPT},
		{"1.2.3.4", "1.2.3.4", RULE_PASSTHROUGH},
		{"2001:DB8::0", "2001:db8::", RULE_PASSTHROUGH},
		{"127.1", NULL, 0},
		{"1.2.3.4.", NULL, 0},
		{"0x7f000001", NULL, 0},
		{"[::1]", NULL, 0},
		{"x.com:443", NULL, 0},
		{"https://x.com", NULL, 0},
		{"10.0.0.0/8", NULL, 0},
		{"x.*.com", NULL, 0},
		{"*x.com", NULL, 0},
		{"*.", NULL, 0},
		{"*.*", NULL, 0},
		{"*.1.2.3.4", NULL, 0},
		{"**", NULL, 0},
		{".x.com", NULL, 0},
		{"x..com", NULL, 0},
		{"x com", NULL, 0},
		{"x.com\n", NULL, 0},
		{"ü x.com", NULL, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf out = {0};
		struct rec_rule rule, asked = {.host = str_of(cases[i].in)};
		struct error e = {0};
		int r = canon(&asked, false, &out, &rule, &e);
		if ((r == 0) != (cases[i].out != NULL))
			fail_msg("%s: %s", cases[i].in, e.text);
		if (r) {
			assert_int_equal(r, -EINVAL);
			assert_int_equal(strncmp(e.text, "host: ", 6), 0);
			assert_int_equal(rule_canonicalise(&asked, false, &out, NULL), -EINVAL);
			continue;
		}
		assert_true(str_eq(rule.host, str_of(cases[i].out)));
		assert_int_equal(rule.tls, cases[i].tls);
		assert_int_equal(rule.cidr.len, 0);
	}
}

static void test_cidrs(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"10.0.0.0/8", "10.0.0.0/8"}, {"1.2.3.4", "1.2.3.4/32"}, {"2001:DB8:0::/32", "2001:db8::/32"},
		{"10.0.0.1/8", NULL},	      {"10.0.0.0/33", NULL},	 {"x.com", NULL},
		{"10/8", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf out = {0};
		struct rec_rule rule, asked = {.cidr = str_of(cases[i].in)};
		struct error e = {0};
		int r = canon(&asked, false, &out, &rule, &e);
		assert_int_equal(r, cases[i].out ? 0 : -EINVAL);
		if (r)
			assert_int_equal(strncmp(e.text, "cidr: ", 6), 0);
		else
			assert_true(str_eq(rule.cidr, str_of(cases[i].out)) && rule.tls == RULE_PASSTHROUGH);
	}
}

static struct buf *fresh(struct buf *bufs, size_t *n)
{
	return &bufs[(*n)++];
}

struct refused {
	struct rec_rule asked;
	bool tls_given;
	const char *field;
};

/* Each sentence begins with the field that it is about. */
static void test_refused(void **state)
{
	struct buf b[24] = {0};
	size_t n = 0;
	static const uint64_t zero[] = {0}, high[] = {80, 65536};
	static char many_ports[(RULE_PORTS_MAX + 1) * 12];
	struct buf many = {0};
	for (int i = 0; i <= RULE_PORTS_MAX; i++)
		wire_list_add_u64(&many, 80);
	memcpy(many_ports, many.data, many.len);
	buf_finish(&many);
	static char longest[300];
	memset(longest, 'x', sizeof longest);

#define HOST .host = STR("x.com")
#define LIST(values) list(fresh(b, &n), values)
	const struct refused cases[] = {
		{{.id = 1}, false, "host"},
		{{HOST, .cidr = STR("10.0.0.0/8")}, false, "host"},
		{{HOST, .ports = numbers(fresh(b, &n), zero, 1)}, false, "ports"},
		{{HOST, .ports = numbers(fresh(b, &n), high, 2)}, false, "ports"},
		{{HOST, .ports = LIST("80")}, false, "ports"},
		{{HOST, .ports = str_make(many_ports, sizeof many_ports)}, false, "ports"},
		{{HOST, .methods = LIST("GET,")}, false, "methods"},
		{{HOST, .methods = LIST("G T")}, false, "methods"},
		{{HOST, .methods = LIST("*")}, false, "methods"},
		{{HOST, .methods = LIST("connect")}, false, "methods"},
		{{HOST, .methods = LIST("GET,TRACE")}, false, "methods"},
		{{HOST, .methods = LIST("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG")}, false, "methods"},
		{{HOST, .paths = LIST("x")}, false, "paths"},
		{{HOST, .paths = LIST("/a,/../b")}, false, "paths"},
		{{HOST, .paths = LIST("/a?b")}, false, "paths"},
		{{HOST, .methods = LIST("GET"), .tls = RULE_PASSTHROUGH}, true, "tls"},
		{{HOST, .paths = LIST("/a"), .tls = RULE_PASSTHROUGH}, true, "tls"},
		{{HOST, .tls = 2}, true, "tls"},
		{{HOST, .action = 2}, false, "action"},
		{{HOST, .addresses = LIST("x")}, false, "addresses"},
		{{HOST, .addresses = LIST("10.0.0.1/8")}, false, "addresses"},
		{{HOST, .action = RULE_DENY, .addresses = LIST("10.0.0.0/8")}, false, "addresses"},
		{{.host = STR("*"), .addresses = LIST("10.0.0.0/8")}, false, "addresses"},
		{{.host = STR("1.2.3.4"), .addresses = LIST("10.0.0.0/8")}, false, "addresses"},
		{{.cidr = STR("1.2.3.0/24"), .addresses = LIST("10.0.0.0/8")}, false, "addresses"},
		{{HOST, .name = STR("egr_mine")}, false, "name"},
		{{HOST, .name = STR("a\nb")}, false, "name"},
		{{HOST, .name = str_make(longest, 64)}, false, "name"},
		{{HOST, .comment = STR("\x1b[31m")}, false, "comment"},
		{{HOST, .comment = STR("\xff")}, false, "comment"},
		{{HOST, .comment = str_make(longest, 256)}, false, "comment"},
	};

	assert_true(n <= ARRAY_SIZE(b));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf out = {0};
		struct error e = {0};
		size_t len = strlen(cases[i].field);
		assert_int_equal(rule_canonicalise(&cases[i].asked, cases[i].tls_given, &out, &e), -EINVAL);
		if (strncmp(e.text, cases[i].field, len) || strncmp(e.text + len, ": ", 2))
			fail_msg("case %zu: %s", i, e.text);
		/* refused as well where nobody asks why */
		assert_int_equal(rule_canonicalise(&cases[i].asked, cases[i].tls_given, &out, NULL), -EINVAL);
		assert_int_equal(out.len, 0);
	}
	for (size_t i = 0; i < n; i++)
		buf_finish(&b[i]);
}

static void check_list(struct str got, const char *want)
{
	_cleanup_(buf_finish) struct buf b = {0};
	assert_true(str_eq(got, list(&b, want)));
}

static void test_lists(void **state)
{
	_cleanup_(buf_finish) struct buf ports = {0}, methods = {0}, paths = {0}, addresses = {0}, out = {0},
	                                 sorted = {0};
	static const uint64_t p[] = {443, 65535, 1, 443}, want[] = {1, 443, 65535};
	struct rec_rule rule, asked = {
	                              .id = 7,
	                              .workspace_wide = true,
	                              .name = STR("n"),
	                              .host = STR("x.com"),
	                              .comment = STR("ü"),
	                              .preset = STR("p"),
	                              .created_at = 5,
	                              .ports = numbers(&ports, p, 4),
	                              .methods = list(&methods, "post,GET,get,M-Search"),
	                              .paths = list(&paths, "/b/*,/a,/b/*"),
	                              .addresses = list(&addresses, "fd00::/8,10.0.0.0/8,10.0.0.0/8,10.1.2.3"),
	                      };

	assert_int_equal(canon(&asked, false, &out, &rule, NULL), 0);
	assert_true(str_eq(rule.ports, numbers(&sorted, want, 3)));
	check_list(rule.methods, "GET,M-SEARCH,POST");
	check_list(rule.paths, "/a,/b/*");
	check_list(rule.addresses, "10.0.0.0/8,10.1.2.3/32,fd00::/8");
	assert_true(rule.id == 7 && rule.workspace_wide && rule.created_at == 5);
	assert_true(str_eq(rule.name, STR("n")) && str_eq(rule.comment, STR("ü")) && str_eq(rule.preset, STR("p")));

	/* canonical is a fixed point */
	_cleanup_(buf_finish) struct buf again = {0};
	assert_int_equal(rule_canonicalise(&rule, true, &again, NULL), 0);
	assert_true(str_eq(buf_str(&again), buf_str(&out)));
}

static void test_tls_defaults(void **state)
{
	_cleanup_(buf_finish) struct buf get = {0};
	const struct {
		struct rec_rule asked;
		bool given;
		unsigned tls;
	} cases[] = {
	        {{.host = STR("x.com"), .tls = RULE_PASSTHROUGH}, true, RULE_PASSTHROUGH},
	        {{.host = STR("x.com"), .tls = RULE_PASSTHROUGH},
	         false,
	         RULE_INTERCEPT}, /* not given: what it holds is nothing */
	        {{.cidr = STR("10.0.0.0/8")}, true, RULE_INTERCEPT},
	        {{.cidr = STR("10.0.0.0/8")}, false, RULE_PASSTHROUGH},
	        {{.cidr = STR("10.0.0.0/8"), .methods = list(&get, "GET")}, false, RULE_INTERCEPT},
	        {{.host = STR("::1"), .methods = buf_str(&get)}, false, RULE_INTERCEPT},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(buf_finish) struct buf out = {0};
		struct rec_rule rule;
		assert_int_equal(canon(&cases[i].asked, cases[i].given, &out, &rule, NULL), 0);
		assert_int_equal(rule.tls, cases[i].tls);
	}
}

static void test_patterns(void **state)
{
	struct host_pattern p;
	host_pattern_parse(STR("*.x.com"), hostname_parse, &p, NULL);
	assert_true(host_pattern_covers(&p, STR("x.com")) && host_pattern_covers(&p, STR("a.b.x.com")));
	assert_false(host_pattern_covers(&p, STR("ax.com")));
	host_pattern_parse(STR("x.com"), hostname_parse, &p, NULL);
	assert_true(host_pattern_covers(&p, STR("x.com")));
	assert_false(host_pattern_covers(&p, STR("a.x.com")));
	host_pattern_parse(STR("*"), hostname_parse, &p, NULL);
	assert_true(host_pattern_covers(&p, STR("x.com")));
	host_pattern_parse(STR("1.2.3.4"), hostname_parse, &p, NULL);
	assert_false(host_pattern_covers(&p, STR("x.com")));
	assert_int_equal(host_pattern_parse(STR("ü.de"), hostname_parse, &p, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts), cmocka_unit_test(test_cidrs),	   cmocka_unit_test(test_refused),
		cmocka_unit_test(test_lists), cmocka_unit_test(test_tls_defaults), cmocka_unit_test(test_patterns),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
