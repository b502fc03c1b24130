/* Decisions over the rules that a look-up finds. */
#include "policy/policy_internal.h"

#include "base/cleanup.h"
#include "base/id.h"
#include "policy/path.h"

/* Case counts for an allow, since methods are case-sensitive; a deny covers any case. */
static bool covers_method(const struct compiled *c, struct str method)
{
	struct str methods = c->rule.methods, item;

	if (methods.len == 0)
		return true;
	while (wire_list_next(&methods, &item))
		if (policy_is_deny(c) ? str_ieq(item, method) : str_eq(item, method))
			return true;
	return false;
}

static bool covers_path(const struct compiled *c, const struct path *path)
{
	struct str paths = c->rule.paths, item;

	if (paths.len == 0)
		return true;
	while (wire_list_next(&paths, &item))
		if (policy_is_deny(c) ? path_deny_matches(item, path) : path_allow_matches(item, path))
			return true;
	return false;
}

bool policy_rule_applies(const struct compiled *c, const struct policy_request *r, const struct path *path)
{
	switch (r->phase) {
	case POLICY_CONNECT:
	case POLICY_TLS_INTERCEPTED:
		/* What has conditions is judged later: till then an allow may help, and a deny not hurt. */
		return !(policy_is_deny(c) && c->conditional);
	case POLICY_TLS_OPAQUE:
		return policy_is_deny(c) || !c->conditional;
	case POLICY_HTTP:
		return !c->conditional || (covers_method(c, r->method) && covers_path(c, path));
	case POLICY_RAW:
		return policy_is_deny(c) || policy_is_raw(c);
	}
	return false;
}

struct tally {
	const struct policy_request *request;
	struct path path;
	const struct compiled *deny, *allow; /* the deciders: of the lowest ids */
	bool host_allowed;                   /* an allow covers host and port, whatever its conditions */
	bool conditional,
	        passthrough; /* some rule that covers them has methods or paths; some allow may pass anything */
};

static void keep_lowest(const struct compiled **kept, const struct compiled *c)
{
	if (!*kept || c->rule.id < (*kept)->rule.id)
		*kept = c;
}

static void count(const struct compiled *c, void *context)
{
	struct tally *t = context;

	t->conditional |= c->conditional;
	t->host_allowed |= !policy_is_deny(c);
	t->passthrough |= policy_is_raw(c);
	if (policy_rule_applies(c, t->request, &t->path))
		keep_lowest(policy_is_deny(c) ? &t->deny : &t->allow, c);
}

static struct tally tally_up(const struct policy *p, const struct policy_request *r)
{
	struct tally t = {.request = r};

	if (r->phase == POLICY_HTTP)
		t.path = path_examine(r->path);
	policy_visit(p, r, count, &t);
	return t;
}

static enum policy_why why_not(const struct tally *t)
{
	if (t->request->phase == POLICY_RAW && t->host_allowed)
		return POLICY_NOT_RAW;
	if (t->request->phase == POLICY_TLS_OPAQUE && t->host_allowed)
		return POLICY_NOT_OPAQUE;
	return POLICY_NO_RULE;
}

void policy_decide(const struct policy *p, const struct policy_request *r, struct policy_decision *ret)
{
	struct tally t = tally_up(p, r);
	struct policy_decision d = {.intercept = t.conditional || !t.passthrough};
	bool web = policy_is_web_port(r->port);

	if (t.deny) {
		d.verdict = VERDICT_DENIED;
		d.why = POLICY_DENY_RULE;
		d.rule = &t.deny->rule;
	} else if (r->phase == POLICY_RAW && web) {
		d.verdict = VERDICT_DENIED;
		d.why = POLICY_RAW_PORT;
	} else if (t.allow) {
		d.verdict = VERDICT_ALLOWED;
		d.why = POLICY_ALLOW_RULE;
		d.rule = &t.allow->rule;
		/* A deny with conditions could not be judged in raw bytes, so it bars them. */
		d.raw = r->phase == POLICY_CONNECT && t.passthrough && !web && !t.conditional;
	} else {
		d.verdict = p->mode == MODE_WARN ? VERDICT_WARN : VERDICT_DENIED;
		d.why = why_not(&t);
	}
	*ret = d;
}

bool policy_still_allows(const struct policy *p, const struct policy_request *r)
{
	struct policy_decision d;
	policy_decide(p, r, &d);
	return d.verdict != VERDICT_DENIED;
}

/* --- explaining --- */

struct explanation {
	const struct policy_request *request;
	struct path path;
	const struct rec_rule **rules;
	size_t n, cap;
};

/* Whether it is told of: in phases before method and path are known, a rule that has them counts. */
static bool is_told(const struct compiled *c, const struct explanation *e)
{
	return e->request->phase != POLICY_HTTP || policy_rule_applies(c, e->request, &e->path);
}

static void explain(const struct compiled *c, void *context)
{
	struct explanation *e = context;

	if (!is_told(c, e))
		return;
	size_t at = MIN(e->n, e->cap);
	e->n++;
	while (at && e->rules[at - 1]->id > c->rule.id) {
		if (at < e->cap)
			e->rules[at] = e->rules[at - 1];
		at--;
	}
	if (at < e->cap)
		e->rules[at] = &c->rule;
}

size_t policy_explain(const struct policy *p, const struct policy_request *r, const struct rec_rule **ret_rules,
		      size_t cap)
{
	struct explanation e = {.request = r, .rules = ret_rules, .cap = cap};

	if (r->phase == POLICY_HTTP)
		e.path = path_examine(r->path);
	policy_visit(p, r, explain, &e);
	return e.n;
}

bool policy_host_agrees(const struct policy_request *r, struct str given)
{
	char literal[IP_TEXT_SIZE];

	if (!r->ip.family)
		return given.len && str_eq(given, r->name);
	ip_format(&r->ip, literal);
	return given.len == 0 || str_eq(given, str_of(literal));
}

static void format_destination(const struct policy_request *r, char *ret, size_t size)
{
	char literal[IP_TEXT_SIZE];

	if (!r->ip.family) {
		snprintf(ret, size, "%.*s:%u", STR_ARG(r->name), r->port);
		return;
	}
	ip_format(&r->ip, literal);
	snprintf(ret, size, r->ip.family == 6 ? "[%s]:%u" : "%s:%u", literal, r->port);
}

static const char *after_deny(const struct policy_request *r, const struct policy_decision *d)
{
	bool conditional = d->rule->methods.len || d->rule->paths.len;
	bool blind = r->phase == POLICY_TLS_OPAQUE || r->phase == POLICY_RAW;

	return conditional && blind ? ": it denies methods or paths, which cannot be seen in what is passed through"
	                            : "";
}

void policy_reason(const struct policy_request *r, const struct policy_decision *d, char *ret, size_t size)
{
	char where[HOSTNAME_SIZE + 8], rule[ID_TEXT_SIZE] = "";

	format_destination(r, where, sizeof where);
	if (d->rule)
		id_format("egr_", d->rule->id, rule);
	switch (d->why) {
	case POLICY_ALLOW_RULE:
		snprintf(ret, size, "rule %s allows %s", rule, where);
		return;
	case POLICY_DENY_RULE:
		snprintf(ret, size, "rule %s denies %s%s", rule, where, after_deny(r, d));
		return;
	case POLICY_NO_RULE:
		if (r->phase == POLICY_HTTP)
			snprintf(ret, size, "no rule allows %.*s %.*s at %s", STR_ARG(r->method),
			         (int)MIN(r->path.len, 80), r->path.len ? r->path.p : "", where);
		else
			snprintf(ret, size, "no rule allows %s", where);
		return;
	case POLICY_NOT_RAW:
		snprintf(ret, size,
		         "no rule allows a protocol that is neither TLS nor HTTP at %s: it takes one with tls: "
		         "passthrough",
		         where);
		return;
	case POLICY_RAW_PORT:
		snprintf(ret, size, "neither TLS nor HTTP at %s", where);
		return;
	case POLICY_NOT_OPAQUE:
		snprintf(ret, size, "only rules with methods or paths allow %s, which cannot be judged inside TLS",
		         where);
		return;
	}
	snprintf(ret, size, "?");
}
