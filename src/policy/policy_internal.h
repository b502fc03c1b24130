#pragma once
/* Shared by the parts of the engine only. */
#include "base/arena.h"
#include "base/map.h"
#include "policy/policy.h"

/* A rule ready to match. Everything it points to is in the policy's arena. */
struct compiled {
	struct rec_rule rule;
	struct compiled *next; /* in its bucket, by ascending id */
	bool conditional;      /* has methods or paths */
	bool by_address;       /* a CIDR or literal rule: cidr is set */
	bool bare;             /* host is "*" */
	struct cidr cidr;
	size_t n_addresses;
	struct cidr *addresses;
};

struct policy {
	enum egress_mode mode;
	bool sealed;
	struct arena arena;
	struct compiled **rules;
	size_t n, cap;
	/* To the first rule of a bucket, by "=name", "*suffix", or '/', family, prefix and address bytes. */
	struct map index;
	struct compiled *bare; /* bucket of "*" */
	bool v4_prefixes[33], v6_prefixes[129]; /* which CIDR lengths occur */
};

/* fn is called for every rule whose host or CIDR and whose ports cover the request. */
typedef void (*policy_visit_fn)(const struct compiled *c, void *context);
void policy_visit(const struct policy *p, const struct policy_request *r, policy_visit_fn fn, void *context);

static inline bool policy_is_web_port(uint16_t port)
{
	return port == 80 || port == 443;
}

static inline bool policy_is_deny(const struct compiled *c)
{
	return c->rule.action == 1;
}

/* An allow rule that may carry any protocol. */
static inline bool policy_is_raw(const struct compiled *c)
{
	return c->rule.action == 0 && c->rule.tls == 1 && !c->conditional;
}

/* The rule covers the request in its phase. path: examined, looked at in POLICY_HTTP only. */
struct path;
bool policy_rule_applies(const struct compiled *c, const struct policy_request *r, const struct path *path);
