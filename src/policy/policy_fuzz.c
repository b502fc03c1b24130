/* Encoded rules: what is canonical stays as it is and compiles; decisions hold what policy.h promises. */
#include <stdlib.h>

#include "base/buf.h"
#include "policy/policy.h"
#include "policy/rule.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
	if (!ok)
		abort();
}

static void check_decisions(const struct rec_rule *rule)
{
	static const char *const paths[] = {"/", "/a", "/a/b%2fc", "/../x"};
	static const char *const names[] = {"x.com", "a.x.com"};
	struct policy *enforce = policy_create(MODE_ENFORCE), *warn = policy_create(MODE_WARN);

	need(policy_add(enforce, rule) == 0 && policy_add(warn, rule) == 0);
	policy_seal(enforce);
	policy_seal(warn);
	for (unsigned i = 0; i < 40; i++) {
		struct policy_request r = {.phase = i % 5, .name = str_of(names[i & 1]), .port = i & 2 ? 443 : 22,
					   .method = STR("GET"), .path = str_of(paths[i / 4 % 4])};
		struct policy_decision d, w;
		const struct rec_rule *matched[1];
		char reason[256];
		if (i & 4 && rule->host.len && hostname_is_canonical(rule->host))
			r.name = rule->host;
		policy_decide(enforce, &r, &d);
		policy_decide(warn, &r, &w);
		policy_reason(&r, &d, reason, sizeof reason);
		need(d.verdict != VERDICT_WARN && (d.verdict == VERDICT_ALLOWED) == (w.verdict == VERDICT_ALLOWED));
		need(w.verdict != VERDICT_WARN || d.verdict == VERDICT_DENIED);
		need(!d.rule || policy_explain(enforce, &r, matched, 1) == 1);
		need(!d.raw || (d.verdict == VERDICT_ALLOWED && r.port != 443));
		need(rule->action == RULE_ALLOW || d.verdict == VERDICT_DENIED);
	}
	policy_destroy(enforce);
	policy_destroy(warn);
}

/* The first byte: whether tls was given. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(buf_finish) struct buf out = {0}, again = {0};
	struct rec_rule asked, canonical;

	if (size == 0 || wire_decode(&rec_rule_wire, str_make(data + 1, size - 1), &asked))
		return 0;
	struct policy *p = policy_create(MODE_ENFORCE);
	policy_add(p, &asked); /* hostile here: refused or not, no fault */
	policy_seal(p);
	policy_destroy(p);
	if (rule_canonicalise(&asked, data[0] & 1, &out, NULL))
		return 0;
	need(wire_decode(&rec_rule_wire, buf_str(&out), &canonical) == 0);
	need(rule_canonicalise(&canonical, true, &again, NULL) == 0);
	need(str_eq(buf_str(&again), buf_str(&out)));
	check_decisions(&canonical);
	return 0;
}
