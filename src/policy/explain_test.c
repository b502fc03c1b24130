/* Explain against the way that a worker takes with the same policy: random rules, random requests. */
#include "policy/explain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "codec/msg_broker.h"
#include "policy/rule.h"

#define GATEWAY 0x0a4d0001U

static const char *const hosts[] = {"a.example.com", "b.example.com", "x.b.example.com", "example.com", "10.0.0.7", "93.184.216.34",
				    "127.0.0.1", "169.254.169.254", "28.0.0.9", "10.77.0.1", "iron.internal", "localhost",
				    "x.local", "printer", "168.63.129.16", "192.168.1.1"};
static const char *const patterns[] = {"a.example.com", "*.example.com", "*.b.example.com", "*", "example.com", "93.184.216.34",
				       "x.local", "10.0.0.7"};
static const char *const cidrs[] = {"10.0.0.0/8", "93.184.0.0/16", "0.0.0.0/0", "127.0.0.0/8", "168.63.129.16/32", "192.168.0.0/16"};
static const char *const methods[] = {"GET", "POST", "get"};
static const char *const paths[] = {"/", "/v1/*", "/v1/secret", "/*"};
static const char *const asked_paths[] = {"/", "/v1", "/v1/x", "/v1/secret", "/v1/../v1/secret", "/%76%31/secret", "/v1/secret?q=/x"};
static const uint16_t ports[] = {80, 443, 22, 8443, 53};
static const struct explain_world world_bare = {.synthetic = {.base = {.family = 4, .bytes = {28}}, .prefix = 15}};

#define PICK(array) ((array)[(size_t)rand() % ARRAY_SIZE(array)])

static void add_random_rule(struct policy *p, uint64_t id)
{
	_cleanup_(buf_finish) struct buf list_ports = {0}, list_methods = {0}, list_paths = {0}, canonical = {0};
	struct rec_rule rule = {.id = id, .action = rand() % 3 == 0};
	struct error e = {0};
	bool tls_given = rand() % 3 == 0;

	if (rand() % 3)
		rule.host = str_of(PICK(patterns));
	else
		rule.cidr = str_of(PICK(cidrs));
	if (rand() % 3 == 0)
		wire_list_add_u64(&list_ports, PICK(ports));
	if (rand() % 4 == 0)
		wire_list_add_z(&list_methods, PICK(methods));
	if (rand() % 4 == 0)
		wire_list_add_z(&list_paths, PICK(paths));
	rule.ports = buf_str(&list_ports);
	rule.methods = buf_str(&list_methods);
	rule.paths = buf_str(&list_paths);
	rule.tls = tls_given && rand() % 2;
	if (rule_canonicalise(&rule, tls_given, &canonical, &e) == 0)
		assert_int_equal(policy_add_encoded(p, buf_str(&canonical)), 0);
}

static struct policy *random_policy(void)
{
	struct policy *p = policy_create(rand() % 2 ? MODE_WARN : MODE_ENFORCE);

	for (int n = rand() % 6; n; n--)
		add_random_rule(p, (uint64_t)n);
	policy_seal(p);
	return p;
}

static struct dial_limits *limits(void)
{
	_cleanup_(buf_finish) struct buf never = {0}, private = {0}, names = {0};
	struct dial_limits *d = NULL;
	struct error e = {0};

	wire_list_add_z(&never, "168.63.129.16/32");
	wire_list_add_z(&names, "*.example.com");
	wire_list_add_record(&private, &rec_private_wire, &(struct rec_private){STR("10.0.0.0/8"), buf_str(&names)});
	assert_int_equal(dial_limits_create(buf_str(&never), buf_str(&private), &d, &e), 0);
	return d;
}

/* egress/dns.c, then conn.c's set_target: what the connection is to. False: the guest gets no address, or one of its own. */
static bool reaches_the_door(const struct policy *p, const struct host *h, struct policy_request *r)
{
	enum hostname_kind kind = hostname_kind(str_of(h->name));

	if (h->ip.family) {
		r->ip = h->ip;
		return ip_v4(&h->ip) >> 24 != 127;
	}
	if (kind == HOSTNAME_LOCALHOST || (kind == HOSTNAME_SPECIAL && !policy_names(p, str_of(h->name))))
		return false;
	r->name = str_of(h->name);
	return true;
}

/* conn_judge and what calls it, with the bytes that a client of this protocol would send first. */
static bool worker_lets_pass(const struct policy *p, const struct dial_limits *d, const struct explain_request *q,
			     enum explain_protocol protocol, uint16_t port)
{
	struct policy_request r = {.phase = POLICY_CONNECT, .port = port};
	struct policy_decision decision;
	ptrdiff_t query = str_chr(q->path, '?');

	if (!reaches_the_door(p, &q->host, &r))
		return false;
	bool inside = (r.ip.family && ip_v4(&r.ip) == GATEWAY) || hostname_kind(r.name) == HOSTNAME_IRON;
	if (port == 53)
		return false; /* dns_tcp_enter */
	if (inside)
		return port == 80 && protocol == EXPLAIN_HTTP;
	if (r.ip.family && cidr_contains(&world_bare.synthetic, &r.ip))
		return false; /* nameless */
	policy_decide(p, &r, &decision);
	if (decision.raw || protocol == EXPLAIN_TCP) {
		r.phase = POLICY_RAW;
	} else if (protocol == EXPLAIN_TLS) {
		r.phase = POLICY_TLS_OPAQUE;
	} else {
		r.phase = POLICY_HTTP;
		r.method = q->method;
		r.path = query < 0 ? q->path : str_make(q->path.p, (size_t)query);
	}
	policy_decide(p, &r, &decision);
	return decision.verdict != VERDICT_DENIED &&
	       (!r.ip.family || dial_check(d, p, &r, &r.ip) == DIAL_OK);
}

static bool is_among(const struct explanation *x, const struct rec_rule *rule)
{
	for (size_t i = 0; i < x->nmatched; i++)
		if (x->matched[i] == rule)
			return true;
	return false;
}

static void test_it_says_what_the_worker_does(void **state)
{
	struct explain_world world = world_bare;
	unsigned passed = 0, denied = 0, by_rule = 0;

	world.limits = limits();
	srand(4);
	for (unsigned i = 0; i < 60000; i++) {
		struct policy *p = random_policy();
		struct explain_request q = {.port = PICK(ports), .protocol = (enum explain_protocol)(rand() % 4),
					    .method = str_of(PICK(methods)), .path = str_of(PICK(asked_paths))};
		struct explanation x;
		assert_int_equal(host_parse(str_of(PICK(hosts)), &q.host), 0);
		explain_request(p, &world, &q, &x);
		bool expected = worker_lets_pass(p, world.limits, &q, x.protocol, q.port);
		if ((x.verdict != VERDICT_DENIED) != expected)
			fail_msg("%u: %s:%u as %d: explained %d (%s)", i, q.host.name, q.port, x.protocol, x.verdict, x.reason);
		assert_true(x.reason[0] && (q.protocol == EXPLAIN_ANY || x.protocol == q.protocol));
		assert_true(x.verdict != VERDICT_WARN || policy_mode(p) == MODE_WARN);
		assert_true(!x.rule || is_among(&x, x.rule));
		passed += expected;
		denied += !expected;
		by_rule += x.rule != NULL;
		policy_destroy(p);
	}
	assert_true(passed > 3000 && denied > 3000 && by_rule > 3000); /* and not one kind of answer alone */
	dial_limits_destroy((struct dial_limits *)(uintptr_t)world.limits);
}

static void test_what_is_absent(void **state)
{
	struct policy *p = policy_create(MODE_ENFORCE);
	struct explain_request q = {0};
	struct explanation x;

	policy_seal(p);
	assert_int_equal(host_parse(STR("a.example.com"), &q.host), 0);
	explain_request(p, &world_bare, &q, &x);
	assert_true(x.protocol == EXPLAIN_TLS && x.judged.port == 443 && x.judged.phase == POLICY_TLS_OPAQUE);
	q.protocol = EXPLAIN_HTTP;
	explain_request(p, &world_bare, &q, &x);
	assert_true(x.judged.port == 80 && x.judged.phase == POLICY_HTTP && str_eq(x.judged.method, STR("GET")));
	assert_string_equal(x.reason, "no rule allows GET / at a.example.com:80");
	q = (struct explain_request){.host = q.host, .port = 8080, .method = STR("PUT")};
	explain_request(p, &world_bare, &q, &x);
	assert_int_equal(x.protocol, EXPLAIN_HTTP);
	policy_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_it_says_what_the_worker_does), cmocka_unit_test(test_what_is_absent)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
