#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "policy/policy.h"
#include "policy/rule.h"

/* --- rules in short ---
 * words: id, then allow|deny, then the host or CIDR, then of "ports=80,443", "methods=GET,PUT", "paths=/x,/y",
 * "tls=passthrough|intercept", "addresses=10.0.0.0/8" */

static void add_list(struct buf *list, struct str values, bool numbers)
{
	struct str v;
	uint64_t n;

	while (str_split(&values, ',', &v)) {
		if (!numbers) {
			wire_list_add(list, v);
		} else {
			assert_int_equal(str_parse_u64(v, UINT64_MAX, &n), 0);
			wire_list_add_u64(list, n);
		}
	}
}

static void add_rule(struct policy *p, const char *text)
{
	_cleanup_(buf_finish) struct buf ports = {0}, methods = {0}, paths = {0}, addresses = {0}, canonical = {0};
	struct rec_rule rule = {0};
	struct error e = {0};
	struct str rest = str_of(text), word, key;
	bool tls_given = false;

	assert_true(str_split(&rest, ' ', &word) && str_parse_u64(word, UINT64_MAX, &rule.id) == 0);
	str_split(&rest, ' ', &word);
	rule.action = str_eq(word, STR("deny"));
	str_split(&rest, ' ', &word);
	if (str_chr(word, '/') >= 0)
		rule.cidr = word;
	else
		rule.host = word;
	while (str_split(&rest, ' ', &word)) {
		str_split(&word, '=', &key);
		if (str_eq(key, STR("ports")))
			add_list(&ports, word, true);
		else if (str_eq(key, STR("methods")))
			add_list(&methods, word, false);
		else if (str_eq(key, STR("paths")))
			add_list(&paths, word, false);
		else if (str_eq(key, STR("addresses")))
			add_list(&addresses, word, false);
		else
			rule.tls = str_eq(word, STR("passthrough")), tls_given = true;
	}
	rule.ports = buf_str(&ports);
	rule.methods = buf_str(&methods);
	rule.paths = buf_str(&paths);
	rule.addresses = buf_str(&addresses);
	if (rule_canonicalise(&rule, tls_given, &canonical, &e))
		fail_msg("%s: %s", text, e.text);
	assert_int_equal(policy_add_encoded(p, buf_str(&canonical)), 0);
}

/* Rules separated by newlines. */
static struct policy *make(enum egress_mode mode, const char *rules)
{
	struct policy *p = policy_create(mode);
	struct str rest = str_of(rules), line;

	while (rest.len && str_split(&rest, '\n', &line)) {
		_cleanup_free_ char *z = str_dup(line);
		add_rule(p, z);
	}
	policy_seal(p);
	return p;
}

static void policy_destroyp(struct policy **p)
{
	policy_destroy(*p);
}

static struct policy_request request(enum policy_phase phase, const char *host, uint16_t port, const char *method,
				     const char *path)
{
	struct policy_request r = {.phase = phase, .port = port, .method = str_of(method), .path = str_of(path)};

	if (ip_parse(str_of(host), &r.ip))
		r.name = str_of(host);
	return r;
}

struct decision_case {
	const char *rules;
	enum policy_phase phase;
	const char *host;
	uint16_t port;
	const char *method, *path;
	enum egress_verdict verdict; /* in enforce */
	enum policy_why why;
	uint64_t rule;
};

#define CONNECT(host, port) POLICY_CONNECT, host, port, NULL, NULL
#define OPAQUE(host, port) POLICY_TLS_OPAQUE, host, port, NULL, NULL
#define INSIDE(host, port) POLICY_TLS_INTERCEPTED, host, port, NULL, NULL
#define RAW(host, port) POLICY_RAW, host, port, NULL, NULL
#define HTTP(host, port, method, path) POLICY_HTTP, host, port, method, path
#define ALLOWED(rule) VERDICT_ALLOWED, POLICY_ALLOW_RULE, rule
#define DENIED(rule) VERDICT_DENIED, POLICY_DENY_RULE, rule
#define NOT(why) VERDICT_DENIED, POLICY_##why, 0

static const struct decision_case decisions[] = {
	{"", CONNECT("x.com", 443), NOT(NO_RULE)},
	/* names, and what covers them */
	{"1 allow x.com", CONNECT("x.com", 443), ALLOWED(1)},
	{"1 allow x.com", CONNECT("x.com", 80), ALLOWED(1)},
	{"1 allow x.com", CONNECT("x.com", 8080), NOT(NO_RULE)},
	{"1 allow x.com", CONNECT("a.x.com", 443), NOT(NO_RULE)},
	{"1 allow *.x.com", CONNECT("x.com", 443), ALLOWED(1)},
	{"1 allow *.x.com", CONNECT("a.b.x.com", 443), ALLOWED(1)},
	{"1 allow *.x.com", CONNECT("ax.com", 443), NOT(NO_RULE)},
	{"1 allow *.x.com", CONNECT("com", 443), NOT(NO_RULE)},
	{"1 allow *", CONNECT("anything.at.all", 443), ALLOWED(1)},
	{"1 allow *", CONNECT("x.com", 22), NOT(NO_RULE)},
	{"1 allow X.COM. ports=8080,22", CONNECT("x.com", 22), ALLOWED(1)},
	{"1 allow x.com ports=8080,22", CONNECT("x.com", 443), NOT(NO_RULE)},
	/* addresses */
	{"1 allow 10.0.0.0/8", CONNECT("10.1.2.3", 12345), ALLOWED(1)},
	{"1 allow 10.0.0.0/8", CONNECT("11.1.2.3", 443), NOT(NO_RULE)},
	{"1 allow 10.0.0.0/8 ports=5432", CONNECT("10.1.2.3", 5433), NOT(NO_RULE)},
	{"1 allow 0.0.0.0/0", CONNECT("1.2.3.4", 443), ALLOWED(1)},
	{"1 allow 0.0.0.0/0", CONNECT("x.com", 443), NOT(NO_RULE)},
	{"1 allow 0.0.0.0/0", CONNECT("2001:db8::1", 443), NOT(NO_RULE)},
	{"1 allow 2001:db8::/32", CONNECT("2001:db8::1", 443), ALLOWED(1)},
	{"1 allow 1.2.3.4", CONNECT("1.2.3.4", 9), ALLOWED(1)},
	{"1 allow 1.2.3.4", CONNECT("1.2.3.5", 9), NOT(NO_RULE)},
	{"1 allow *", CONNECT("1.2.3.4", 443), NOT(NO_RULE)},
	{"1 allow 0.0.0.0/0\n2 deny *", CONNECT("1.2.3.4", 443), DENIED(2)},
	/* union, deny wins, the order never matters, the lowest id decides */
	{"2 allow x.com\n1 allow *.x.com", CONNECT("x.com", 443), ALLOWED(1)},
	{"1 allow x.com\n2 deny x.com", CONNECT("x.com", 443), DENIED(2)},
	{"2 deny x.com\n1 allow x.com", CONNECT("x.com", 443), DENIED(2)},
	{"1 allow *\n9 deny *.x.com\n8 deny a.x.com", CONNECT("a.x.com", 443), DENIED(8)},
	{"1 allow *\n2 deny x.com ports=80", CONNECT("x.com", 443), ALLOWED(1)},
	{"1 allow *\n2 deny x.com ports=80", CONNECT("x.com", 80), DENIED(2)},
	{"1 allow 10.0.0.0/8\n2 deny 10.1.0.0/16", CONNECT("10.1.0.1", 22), DENIED(2)},
	{"1 allow 10.0.0.0/8\n2 deny 10.1.0.0/16", CONNECT("10.2.0.1", 22), ALLOWED(1)},
	/* conditions wait for the request */
	{"1 allow x.com paths=/a/*", CONNECT("x.com", 443), ALLOWED(1)},
	{"1 allow x.com\n2 deny x.com methods=DELETE", CONNECT("x.com", 443), ALLOWED(1)},
	{"1 allow x.com\n2 deny x.com methods=DELETE", INSIDE("x.com", 443), ALLOWED(1)},
	{"1 allow x.com paths=/a/*", HTTP("x.com", 80, "GET", "/a/b"), ALLOWED(1)},
	{"1 allow x.com paths=/a/*", HTTP("x.com", 80, "GET", "/b"), NOT(NO_RULE)},
	{"1 allow x.com paths=/a/*", HTTP("x.com", 80, "GET", "/a/../b"), NOT(NO_RULE)},
	{"1 allow x.com paths=/a/*", HTTP("y.com", 80, "GET", "/a/b"), NOT(NO_RULE)},
	{"1 allow x.com methods=get,head", HTTP("x.com", 80, "GET", "/"), ALLOWED(1)},
	{"1 allow x.com methods=get,head", HTTP("x.com", 80, "POST", "/"), NOT(NO_RULE)},
	{"1 allow x.com methods=get", HTTP("x.com", 80, "get", "/"), NOT(NO_RULE)},
	{"1 allow x.com methods=get paths=/a", HTTP("x.com", 80, "GET", "/b"), NOT(NO_RULE)},
	{"1 allow x.com\n2 deny x.com methods=DELETE", HTTP("x.com", 80, "DELETE", "/"), DENIED(2)},
	{"1 allow x.com\n2 deny x.com methods=DELETE", HTTP("x.com", 80, "delete", "/"), DENIED(2)},
	{"1 allow x.com\n2 deny x.com methods=DELETE", HTTP("x.com", 80, "GET", "/"), ALLOWED(1)},
	{"1 allow x.com\n2 deny x.com paths=/admin/*", HTTP("x.com", 80, "GET", "/%61dmin"), DENIED(2)},
	{"1 allow x.com\n2 deny x.com paths=/admin/*", HTTP("x.com", 80, "GET", "/x/..%2fadmin"), DENIED(2)},
	{"1 allow x.com\n2 deny x.com paths=/admin/*", HTTP("x.com", 80, "GET", "/other"), ALLOWED(1)},
	{"1 allow x.com\n2 deny x.com paths=/admin/* methods=PUT", HTTP("x.com", 80, "GET", "/admin"), ALLOWED(1)},
	{"1 allow x.com tls=passthrough", HTTP("x.com", 80, "GET", "/"), ALLOWED(1)},
	/* TLS that nobody looks into */
	{"1 allow x.com", OPAQUE("x.com", 443), ALLOWED(1)},
	{"1 allow x.com tls=passthrough", OPAQUE("x.com", 443), ALLOWED(1)},
	{"1 allow x.com paths=/a", OPAQUE("x.com", 443), NOT(NOT_OPAQUE)},
	{"1 allow x.com paths=/a\n2 allow x.com", OPAQUE("x.com", 443), ALLOWED(2)},
	{"1 allow x.com\n2 deny x.com paths=/a", OPAQUE("x.com", 443), DENIED(2)},
	{"1 allow x.com", OPAQUE("y.com", 443), NOT(NO_RULE)},
	/* neither TLS nor HTTP */
	{"1 allow x.com ports=22", RAW("x.com", 22), NOT(NOT_RAW)},
	{"1 allow x.com ports=22 tls=passthrough", RAW("x.com", 22), ALLOWED(1)},
	{"1 allow x.com tls=passthrough", RAW("x.com", 22), NOT(NO_RULE)},
	{"1 allow x.com tls=passthrough", RAW("x.com", 443), NOT(RAW_PORT)},
	{"1 allow 10.0.0.0/8", RAW("10.0.0.1", 80), NOT(RAW_PORT)},
	{"1 allow 10.0.0.0/8", RAW("10.0.0.1", 22), ALLOWED(1)},
	{"1 allow 10.0.0.0/8 tls=intercept", RAW("10.0.0.1", 22), NOT(NOT_RAW)},
	{"1 allow 10.0.0.0/8 paths=/a", RAW("10.0.0.1", 22), NOT(NOT_RAW)},
	{"1 allow 10.0.0.0/8\n2 deny 10.0.0.1 paths=/a", RAW("10.0.0.1", 22), DENIED(2)},
	{"1 allow 10.0.0.0/8\n2 deny 10.0.0.0/8 ports=443", RAW("10.0.0.1", 443), DENIED(2)},
};

static void test_decisions(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(decisions); i++) {
		const struct decision_case *c = &decisions[i];
		struct policy_request r = request(c->phase, c->host, c->port, c->method, c->path);
		for (enum egress_mode mode = MODE_ENFORCE; mode <= MODE_WARN; mode++) {
			_cleanup_(policy_destroyp) struct policy *p = make(mode, c->rules);
			struct policy_decision d;
			char reason[256];
			/* Warn turns "no rule allows this" into a record, and nothing else. */
			bool turned = mode == MODE_WARN && c->verdict == VERDICT_DENIED && c->why != POLICY_DENY_RULE &&
				      c->why != POLICY_RAW_PORT;

			policy_decide(p, &r, &d);
			policy_reason(&r, &d, reason, sizeof reason);
			if (d.verdict != (turned ? VERDICT_WARN : c->verdict) || d.why != c->why)
				fail_msg("case %zu: %s", i, reason);
			assert_int_equal(d.rule ? d.rule->id : 0, c->rule);
			assert_int_equal(policy_still_allows(p, &r), d.verdict != VERDICT_DENIED);
		}
	}
}

static void test_raw_and_intercept(void **state)
{
	static const struct {
		const char *rules, *host;
		uint16_t port;
		bool raw, intercept;
	} cases[] = {
		{"1 allow x.com", "x.com", 443, false, true},
		{"1 allow x.com tls=passthrough", "x.com", 443, false, false},
		{"1 allow x.com tls=passthrough ports=5432", "x.com", 5432, true, false},
		{"1 allow x.com ports=5432", "x.com", 5432, false, true},
		{"1 allow 10.0.0.0/8", "10.0.0.1", 5432, true, false},
		{"1 allow 10.0.0.0/8", "10.0.0.1", 80, false, false},
		{"1 allow 10.0.0.0/8 paths=/x", "10.0.0.1", 5432, false, true},
		{"1 allow x.com\n2 allow *.com tls=passthrough", "x.com", 443, false, false},
		{"1 allow x.com paths=/x\n2 allow *.com tls=passthrough", "x.com", 443, false, true},
		{"1 allow x.com tls=passthrough\n2 deny x.com methods=PUT", "x.com", 443, false, true},
		{"1 allow 10.0.0.0/8\n2 deny 10.0.0.0/8 methods=PUT", "10.0.0.1", 5432, false, true},
		{"1 allow 10.0.0.0/8\n2 deny 10.0.0.0/8", "10.0.0.1", 5432, false, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(policy_destroyp) struct policy *p = make(MODE_ENFORCE, cases[i].rules);
		struct policy_request r = request(POLICY_CONNECT, cases[i].host, cases[i].port, NULL, NULL);
		struct policy_decision d;
		policy_decide(p, &r, &d);
		if (d.raw != cases[i].raw || d.intercept != cases[i].intercept)
			fail_msg("case %zu", i);
	}
}

static void test_explain(void **state)
{
	_cleanup_(policy_destroyp) struct policy *p =
	        make(MODE_ENFORCE,
	             "5 allow *\n3 deny *.x.com paths=/a\n4 allow x.com\n1 allow y.com\n2 allow *.com methods=GET");
	const struct rec_rule *rules[8];
	struct policy_request r = request(POLICY_HTTP, "x.com", 443, "GET", "/a");

	assert_int_equal(policy_explain(p, &r, rules, 8), 4);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(rules[i]->id, i + 2);
	assert_int_equal(policy_explain(p, &r, rules, 2), 4);
	assert_int_equal(rules[0]->id, 2);
	assert_int_equal(rules[1]->id, 3);
	assert_int_equal(policy_explain(p, &r, NULL, 0), 4);
	r.path = STR("/b");
	r.method = STR("POST");
	assert_int_equal(policy_explain(p, &r, rules, 8), 2);
	r.phase = POLICY_CONNECT;
	assert_int_equal(policy_explain(p, &r, rules, 8), 4);
}

static void test_names(void **state)
{
	_cleanup_(policy_destroyp) struct policy *p = make(
	        MODE_ENFORCE, "1 allow *\n2 allow db.internal\n3 allow *.lan\n4 deny printer\n5 allow nas ports=445");
	assert_true(policy_names(p, STR("db.internal")));
	assert_true(policy_names(p, STR("a.b.lan")));
	assert_true(policy_names(p, STR("nas")));
	assert_false(policy_names(p, STR("printer")));
	assert_false(policy_names(p, STR("other.internal")));
}

static void test_host_agrees(void **state)
{
	struct policy_request name = request(POLICY_CONNECT, "x.com", 443, NULL, NULL);
	struct policy_request literal = request(POLICY_CONNECT, "2001:db8::1", 443, NULL, NULL);
	assert_true(policy_host_agrees(&name, STR("x.com")));
	assert_false(policy_host_agrees(&name, STR("y.com")));
	assert_false(policy_host_agrees(&name, STR("")));
	assert_true(policy_host_agrees(&literal, STR("")));
	assert_true(policy_host_agrees(&literal, STR("2001:db8::1")));
	assert_false(policy_host_agrees(&literal, STR("x.com")));
}

static void test_reasons(void **state)
{
	static const struct {
		const char *rules;
		enum policy_phase phase;
		const char *host;
		uint16_t port;
		const char *method, *path, *reason;
	} cases[] = {
	        {"", CONNECT("api.example.com", 443), "no rule allows api.example.com:443"},
	        {"", CONNECT("2001:db8::1", 22), "no rule allows [2001:db8::1]:22"},
	        {"", HTTP("x.com", 80, "GET", "/a"), "no rule allows GET /a at x.com:80"},
	        {"1 allow x.com", CONNECT("x.com", 443), "rule egr_0000000000001 allows x.com:443"},
	        {"1 deny x.com", CONNECT("x.com", 443), "rule egr_0000000000001 denies x.com:443"},
	        {"1 deny x.com paths=/a", OPAQUE("x.com", 443),
	         "rule egr_0000000000001 denies x.com:443: it denies methods or paths, which cannot be seen in what is "
	         "passed through"},
	        {"1 allow x.com paths=/a", OPAQUE("x.com", 443),
	         "only rules with methods or paths allow x.com:443, which cannot be judged inside TLS"},
	        {"", RAW("x.com", 80), "neither TLS nor HTTP at x.com:80"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(policy_destroyp) struct policy *p = make(MODE_ENFORCE, cases[i].rules);
		struct policy_request r =
			request(cases[i].phase, cases[i].host, cases[i].port, cases[i].method, cases[i].path);
		struct policy_decision d;
		char reason[256], cut[10];
		policy_decide(p, &r, &d);
		policy_reason(&r, &d, reason, sizeof reason);
		assert_string_equal(reason, cases[i].reason);
		policy_reason(&r, &d, cut, sizeof cut);
		assert_memory_equal(cut, reason, 9);
	}
}

/* Only the canonical form is taken: what is not, came from elsewhere than rule_canonicalise. */
static void test_refused_records(void **state)
{
	_cleanup_(buf_finish) struct buf zero = {0}, odd = {0}, relative = {0};
	wire_list_add_u64(&zero, 0);
	wire_list_add_u64(&zero, 80);
	wire_list_add_z(&odd, "80");
	wire_list_add_z(&relative, "x");
	const struct rec_rule bad[] = {
		{.id = 1},
		{.host = STR("x.com"), .cidr = STR("10.0.0.0/8")},
		{.host = STR("X.com")},
		{.host = STR("x.com.")},
		{.host = STR("b\xc3\xbc")},
		{.host = STR("127.1")},
		{.cidr = STR("10.0.0.1/8")},
		{.host = STR("x.com"), .ports = buf_str(&zero)},
		{.host = STR("x.com"), .ports = buf_str(&odd)},
		{.host = STR("x.com"), .paths = buf_str(&relative)},
		{.host = STR("x.com"), .addresses = buf_str(&relative)},
		{.host = STR("x.com"), .methods = buf_str(&relative), .tls = 1},
		{.host = STR("x.com"), .tls = 2},
		{.host = STR("x.com"), .action = 2},
	};
	struct policy *p = policy_create(MODE_ENFORCE);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (policy_add(p, &bad[i]) != -EBADMSG)
			fail_msg("case %zu", i);
	assert_int_equal(policy_add_encoded(p, STR("junk")), -EBADMSG);
	assert_int_equal(policy_rule_count(p), 0);
	policy_seal(p);
	const struct rec_rule good = {.host = STR("x.com")};
	assert_int_equal(policy_add(p, &good), -EPERM);
	policy_destroy(p);
	policy_destroy(NULL);
}

static void test_ceilings(void **state)
{
	/* a VM that does not inherit keeps the workspace's denies */
	const struct rec_rule deny = {.action = RULE_DENY}, allow = {.action = RULE_ALLOW};
	assert_true(policy_includes(&deny, false) && policy_includes(&deny, true) && policy_includes(&allow, true));
	assert_false(policy_includes(&allow, false));

	struct policy *p = policy_create(MODE_WARN);
	char host[32];
	for (unsigned i = 0; i < POLICY_RULES_MAX; i++) {
		snprintf(host, sizeof host, "h%u.example.com", i);
		const struct rec_rule rule = {.id = i + 1, .host = str_of(host)};
		assert_int_equal(policy_add(p, &rule), 0);
	}
	const struct rec_rule more = {.host = STR("x.com")};
	assert_int_equal(policy_add(p, &more), -EMSGSIZE);
	policy_seal(p);
	struct policy_request r = request(POLICY_CONNECT, "h9999.example.com", 443, NULL, NULL);
	struct policy_decision d;
	policy_decide(p, &r, &d);
	assert_int_equal(d.rule->id, POLICY_RULES_MAX);
	assert_int_equal(policy_mode(p), MODE_WARN);
	assert_int_equal(policy_rule_at(p, 0)->id, 1);
	assert_null(policy_rule_at(p, POLICY_RULES_MAX));
	policy_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(test_decisions),       cmocka_unit_test(test_raw_and_intercept),
	        cmocka_unit_test(test_explain),         cmocka_unit_test(test_names),
	        cmocka_unit_test(test_host_agrees),     cmocka_unit_test(test_reasons),
	        cmocka_unit_test(test_refused_records), cmocka_unit_test(test_ceilings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
