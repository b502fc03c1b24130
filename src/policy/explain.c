#include "policy/explain.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"

#define GATEWAY 0x0a4d0001U /* 10.77.0.1: iron.internal */
#define GUEST 0x0a4d0002U

void explain_refuse(struct explanation *x, const char *fmt, ...)
{
	va_list ap;

	x->verdict = VERDICT_DENIED;
	x->rule = NULL;
	va_start(ap, fmt);
	vsnprintf(x->reason, sizeof x->reason, fmt, ap);
	va_end(ap);
}

/* --- what never comes to the door --- */

static bool answer_inside(struct explanation *x, const struct explain_request *r)
{
	x->verdict = VERDICT_ALLOWED;
	snprintf(x->reason, sizeof x->reason, "http://iron.internal/ is the machine's own page; nothing leaves for it");
	if (x->judged.port != 80 || x->protocol != EXPLAIN_HTTP)
		explain_refuse(x, "only http://iron.internal/ is served at %s", r->host.name);
	return true;
}

static bool ends_before_the_door(struct explanation *x, const struct policy *p, const struct explain_world *w,
				 const struct explain_request *r)
{
	const struct ip *ip = &r->host.ip;
	const char *host = r->host.name;
	bool literal = ip->family != 0;
	enum hostname_kind kind = literal ? HOSTNAME_ORDINARY : hostname_kind(str_of(host));

	if (kind == HOSTNAME_IRON || (ip->family == 4 && ip_v4(ip) == GATEWAY && x->judged.port != 53))
		return answer_inside(x, r);
	if (ip->family == 6)
		explain_refuse(x, "a VM has IPv4 alone: no packet to %s leaves it; ask by name", host);
	else if (kind == HOSTNAME_LOCALHOST || (literal && (ip_v4(ip) >> 24 == 127 || ip_v4(ip) == GUEST)))
		explain_refuse(x, "%s is the VM itself: nothing leaves it", host);
	else if (literal && cidr_contains(&w->synthetic, ip))
		explain_refuse(x, "%s stands for a name that the VM asked for: ask by that name", host);
	else if (!literal && !policy_answers_name(p, str_of(host)))
		explain_refuse(x, "DNS in the VM knows no %s: a name of this kind takes a rule that names it", host);
	else if (x->judged.port == 53)
		explain_refuse(x, "port 53 is answered by the machine itself: nothing goes to %s", host);
	else
		return false;
	return true;
}

/* --- as what it is judged --- */

static bool raw_is_allowed(const struct policy *p, const struct policy_request *r)
{
	struct policy_decision d;

	policy_decide(p, r, &d);
	return d.raw;
}

/* On a port that says nothing a client may speak what it likes: tcp where a rule passes anything, else TLS. */
static enum explain_protocol protocol_of(const struct policy *p, const struct explain_request *r,
					 const struct policy_request *connect)
{
	if (r->protocol != EXPLAIN_ANY)
		return r->protocol;
	if (connect->port == 443)
		return EXPLAIN_TLS;
	if (connect->port == 80 || r->method.len || r->path.len)
		return EXPLAIN_HTTP;
	return raw_is_allowed(p, connect) ? EXPLAIN_TCP : EXPLAIN_TLS;
}

static struct str without_query(struct str path)
{
	ptrdiff_t mark = str_chr(path, '?');

	return mark < 0 ? path : str_make(path.p, (size_t)mark);
}

static void set_judged(struct explanation *x, const struct policy *p, const struct explain_request *r)
{
	struct policy_request *j = &x->judged;

	*j = (struct policy_request){.phase = POLICY_CONNECT, .ip = r->host.ip, .port = r->port};
	if (!r->host.ip.family)
		j->name = str_of(r->host.name);
	if (j->port == 0)
		j->port = r->protocol == EXPLAIN_HTTP ? 80 : 443;
	x->protocol = protocol_of(p, r, j);
	switch (x->protocol) {
	case EXPLAIN_HTTP:
		j->phase = POLICY_HTTP;
		j->method = r->method.len ? r->method : STR("GET");
		j->path = r->path.len ? without_query(r->path) : STR("/");
		break;
	case EXPLAIN_TLS:
		j->phase = POLICY_TLS_OPAQUE;
		break;
	case EXPLAIN_ANY:
	case EXPLAIN_TCP:
		j->phase = POLICY_RAW;
		break;
	}
}

static void judge_address(struct explanation *x, const struct policy *p, const struct explain_world *w,
			  const struct explain_request *r)
{
	if (!w->limits || !r->host.ip.family || x->verdict == VERDICT_DENIED)
		return;
	enum dial_verdict v = dial_check(w->limits, p, &x->judged, &r->host.ip);
	if (v != DIAL_OK)
		explain_refuse(x, "%s %s", r->host.name, dial_text(v));
}

void explain_request(const struct policy *p, const struct explain_world *w, const struct explain_request *r,
		     struct explanation *ret)
{
	struct policy_decision d;

	*ret = (struct explanation){0};
	set_judged(ret, p, r);
	if (ends_before_the_door(ret, p, w, r))
		return;
	policy_decide(p, &ret->judged, &d);
	ret->verdict = d.verdict;
	ret->rule = d.rule;
	policy_reason(&ret->judged, &d, ret->reason, sizeof ret->reason);
	size_t n = policy_explain(p, &ret->judged, ret->matched, EXPLAIN_MATCHED_MAX);
	ret->nmatched = MIN(n, (size_t)EXPLAIN_MATCHED_MAX);
	judge_address(ret, p, w, r);
}
