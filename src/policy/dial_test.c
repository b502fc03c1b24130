#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "codec/msg_broker.h"
#include "policy/dial.h"

static struct dial_limits *limits;
static struct policy *policy;

static void add_private(struct buf *out, const char *cidr, const char *host)
{
	_cleanup_(buf_finish) struct buf hosts = {0};
	if (host)
		wire_list_add_z(&hosts, host);
	struct rec_private rec = {.cidr = str_of(cidr), .hosts = buf_str(&hosts)};
	wire_list_add_record(out, &rec_private_wire, &rec);
}

static void add_rule(uint64_t id, const char *host, const char *cidr, const char *address)
{
	_cleanup_(buf_finish) struct buf addresses = {0};
	if (address)
		wire_list_add_z(&addresses, address);
	struct rec_rule rule = {.id = id, .host = str_of(host), .cidr = str_of(cidr), .addresses = buf_str(&addresses)};
	assert_int_equal(policy_add(policy, &rule), 0);
}

static int setup(void **state)
{
	_cleanup_(buf_finish) struct buf never = {0}, private = {0};
	static const char *const nevers[] = {"168.63.129.16/32", "192.168.9.9", "198.51.100.0/24", "8.8.4.4"};

	for (size_t i = 0; i < ARRAY_SIZE(nevers); i++)
		wire_list_add_z(&never, nevers[i]);
	add_private(&private, "10.0.0.0/8", NULL);
	add_private(&private, "192.168.0.0/16", "*.corp.example");
	add_private(&private, "fd00::/16", "v6.example");
	add_private(&private, "224.0.0.0/4", "*.corp.example");
	add_private(&private, "0.0.0.0/8", "*.corp.example");
	add_private(&private, "::ffff:0:0/96", "*.corp.example");
	assert_int_equal(dial_limits_create(buf_str(&never), buf_str(&private), &limits, NULL), 0);

	policy = policy_create(MODE_ENFORCE);
	add_rule(1, "*", NULL, NULL);
	add_rule(2, "db.example", NULL, "10.1.0.0/16");
	add_rule(3, "far.example", NULL, "172.16.0.0/12");
	add_rule(4, NULL, "10.2.0.0/16", NULL);
	add_rule(5, "10.3.0.1", NULL, NULL);
	add_rule(6, NULL, "172.20.0.0/16", NULL);
	policy_seal(policy);
	return 0;
}

static int teardown(void **state)
{
	dial_limits_destroy(limits);
	dial_limits_destroy(NULL);
	policy_destroy(policy);
	return 0;
}

static void test_dial(void **state)
{
	static const struct {
		const char *host, *address; /* address NULL: the literal itself */
		enum dial_verdict v;
	} cases[] = {
		{"x.com", "93.184.216.34", DIAL_OK},
		{"x.com", "2606:4700::1111", DIAL_OK},
		{"x.com", "127.0.0.1", DIAL_NOT_GLOBAL},
		{"x.com", "169.254.169.254", DIAL_NOT_GLOBAL},
		{"x.com", "::1", DIAL_NOT_GLOBAL},
		{"x.com", "fe80::1", DIAL_NOT_GLOBAL},
		{"x.com", "0.0.0.0", DIAL_NOT_GLOBAL},
		{"x.com", "224.0.0.1", DIAL_NOT_GLOBAL},
		/* never is never, whatever else holds */
		{"x.com", "168.63.129.16", DIAL_NEVER},
		{"x.com", "8.8.4.4", DIAL_NEVER},
		{"a.corp.example", "192.168.9.9", DIAL_NEVER},
		{"x.com", "64:ff9b::168.63.129.16", DIAL_NEVER},
		{"x.com", "64:ff9b::8.8.4.4", DIAL_NEVER},
		/* hosts of an entry */
		{"a.corp.example", "192.168.1.1", DIAL_OK},
		{"corp.example", "192.168.1.1", DIAL_OK},
		{"x.com", "192.168.1.1", DIAL_NO_RULE},
		{"v6.example", "fd00::1", DIAL_OK},
		{"v6.example", "fd01::1", DIAL_NOT_GLOBAL},
		{"v6.example", "192.168.1.1", DIAL_NO_RULE},
		/* no entry makes these reachable */
		{"a.corp.example", "224.0.0.1", DIAL_NOT_GLOBAL},
		{"a.corp.example", "0.0.0.1", DIAL_NOT_GLOBAL},
		/* addresses of a rule, inside an entry and outside */
		{"db.example", "10.1.2.3", DIAL_OK},
		{"db.example", "10.2.2.3", DIAL_NO_RULE},
		{"x.com", "10.1.2.3", DIAL_NO_RULE},
		{"far.example", "172.16.0.1", DIAL_NOT_GLOBAL},
		/* CIDR and literal rules */
		{"10.2.0.1", NULL, DIAL_OK},
		{"10.3.0.1", NULL, DIAL_OK},
		{"10.4.0.1", NULL, DIAL_NO_RULE},
		{"172.20.0.1", NULL, DIAL_NOT_GLOBAL},
		{"8.8.8.8", NULL, DIAL_OK},
		/* what is inside an IPv6 address is judged as well */
		{"x.com", "64:ff9b::93.184.216.34", DIAL_OK},
		{"x.com", "64:ff9b::127.0.0.1", DIAL_NOT_GLOBAL},
		{"x.com", "64:ff9b::10.1.2.3", DIAL_NO_RULE},
		{"db.example", "64:ff9b::10.1.2.3", DIAL_OK},
		{"x.com", "::ffff:93.184.216.34", DIAL_NO_RULE},
		{"a.corp.example", "::ffff:93.184.216.34", DIAL_OK},
		{"a.corp.example", "::ffff:127.0.0.1", DIAL_NOT_GLOBAL},
		{"x.com", "2002:808:808::1", DIAL_NOT_GLOBAL},
		{"x.com", "2606:4700::5efe:127.0.0.1", DIAL_NOT_GLOBAL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct policy_request r = {.phase = POLICY_CONNECT, .port = 443};
		struct ip a;
		if (ip_parse(str_of(cases[i].host), &r.ip))
			r.name = str_of(cases[i].host);
		if (cases[i].address)
			assert_int_equal(ip_parse(str_of(cases[i].address), &a), 0);
		else
			a = r.ip;
		enum dial_verdict v = dial_check(limits, policy, &r, &a);
		if (v != cases[i].v)
			fail_msg("%s at %s: %s", cases[i].host, cases[i].address, dial_text(v));
	}
	struct policy_request r = {.name = STR("x.com"), .port = 443};
	struct ip none = {0};
	assert_int_equal(dial_check(limits, policy, &r, &none), DIAL_NOT_GLOBAL);
}

/* A rule counts only where it allows this very request: another port does not. */
static void test_rule_must_apply(void **state)
{
	struct policy_request r = {.name = STR("db.example"), .port = 8443};
	struct ip a;
	ip_parse(STR("10.1.2.3"), &a);
	assert_int_equal(dial_check(limits, policy, &r, &a), DIAL_NO_RULE);
}

static void test_bad_limits(void **state)
{
	_cleanup_(buf_finish) struct buf never = {0}, cidr = {0}, host = {0}, junk = {0};
	struct dial_limits *d = NULL;
	struct error e = {0};

	wire_list_add_z(&never, "10.0.0.1/8");
	assert_int_equal(dial_limits_create(buf_str(&never), STR_NONE, &d, &e), -EINVAL);
	assert_string_equal(e.text, "egress.never_dial: `10.0.0.1/8` is no CIDR");
	add_private(&cidr, "x", NULL);
	assert_int_equal(dial_limits_create(STR_NONE, buf_str(&cidr), &d, NULL), -EINVAL);
	e = (struct error){0};
	add_private(&host, "10.0.0.0/8", "a b");
	assert_int_equal(dial_limits_create(STR_NONE, buf_str(&host), &d, &e), -EINVAL);
	assert_string_equal(e.text, "egress.private_allow: hosts: `a b`: is neither a host name nor an IP address");
	wire_list_add_z(&junk, "junk");
	assert_int_equal(dial_limits_create(STR_NONE, buf_str(&junk), &d, NULL), -EINVAL);
	assert_null(d);
	assert_int_equal(dial_limits_create(STR_NONE, STR_NONE, &d, NULL), 0);
	dial_limits_destroy(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dial), cmocka_unit_test(test_rule_must_apply), cmocka_unit_test(test_bad_limits),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
