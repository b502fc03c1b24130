#include "policy/dial.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/vec.h"
#include "codec/msg_broker.h"
#include "policy/host_pattern.h"
#include "policy/path.h"
#include "policy/policy_internal.h"

#define ENTRIES_MAX 4096

struct private_entry {
	struct cidr cidr;
	size_t first_host, n_hosts; /* in dial_limits.hosts */
};

struct dial_limits {
	VEC(struct cidr) never;
	VEC(struct private_entry) private;
	VEC(struct host_pattern) hosts;
};

void dial_limits_destroy(struct dial_limits *d)
{
	if (!d)
		return;
	VEC_FINISH(&d->never);
	VEC_FINISH(&d->private);
	VEC_FINISH(&d->hosts);
	free(d);
}

static void destroyp(struct dial_limits **d)
{
	dial_limits_destroy(*d);
}

static int read_never(struct str list, struct dial_limits *d, struct error *reterr)
{
	struct str item;
	struct cidr c;

	while (wire_list_next(&list, &item)) {
		if (cidr_parse(item, &c) || d->never.n == ENTRIES_MAX)
			return error_set(reterr, -EINVAL, "egress.never_dial: `%.*s` is no CIDR", STR_ARG(item));
		VEC_PUSH(&d->never, c);
	}
	return 0;
}

static int read_hosts(struct str list, struct dial_limits *d, struct private_entry *e, struct error *reterr)
{
	struct host_pattern pattern;
	struct str item;

	e->first_host = d->hosts.n;
	while (wire_list_next(&list, &item)) {
		int r = host_pattern_parse(item, hostname_parse, &pattern, reterr);
		if (r)
			return error_prefix(reterr, "egress.private_allow: hosts: `%.*s`", STR_ARG(item)), r;
		VEC_PUSH(&d->hosts, pattern);
	}
	e->n_hosts = d->hosts.n - e->first_host;
	return 0;
}

static int read_private(struct str list, struct dial_limits *d, struct error *reterr)
{
	struct private_entry e;
	struct rec_private rec;
	struct str item;

	while (wire_list_next(&list, &item)) {
		if (wire_decode(&rec_private_wire, item, &rec) || d->private.n == ENTRIES_MAX)
			return error_set(reterr, -EINVAL, "egress.private_allow: an entry is malformed");
		if (cidr_parse(rec.cidr, &e.cidr))
			return error_set(reterr, -EINVAL, "egress.private_allow: `%.*s` is no CIDR", STR_ARG(rec.cidr));
		int r = read_hosts(rec.hosts, d, &e, reterr);
		if (r)
			return r;
		VEC_PUSH(&d->private, e);
	}
	return 0;
}

int dial_limits_create(struct str never_dial, struct str private_allow, struct dial_limits **ret, struct error *reterr)
{
	_cleanup_(destroyp) struct dial_limits *d = xcalloc(1, sizeof *d);
	int r = read_never(never_dial, d, reterr);

	if (r == 0)
		r = read_private(private_allow, d, reterr);
	if (r == 0)
		*ret = take_ptr(d);
	return r;
}

static bool is_never(const struct dial_limits *d, const struct ip *a)
{
	for (size_t i = 0; i < d->never.n; i++)
		if (cidr_contains(&d->never.v[i], a))
			return true;
	return false;
}

/* Whether an entry holds the address, and whether one that does names the host. */
static bool find_private(const struct dial_limits *d, const struct ip *a, struct str name, bool *ret_host_covered)
{
	bool found = false;

	*ret_host_covered = false;
	for (size_t i = 0; i < d->private.n; i++) {
		const struct private_entry *e = &d->private.v[i];
		if (!cidr_contains(&e->cidr, a))
			continue;
		found = true;
		for (size_t h = 0; name.len && h < e->n_hosts; h++)
			*ret_host_covered |= host_pattern_covers(&d->hosts.v[e->first_host + h], name);
	}
	return found;
}

struct search {
	const struct policy_request *request;
	const struct ip *address;
	struct path path;
	bool found;
};

/* An allow rule that covers the request and says the address itself: by its CIDR, or in `addresses`. */
static void search_rule(const struct compiled *c, void *context)
{
	struct search *s = context;

	if (policy_is_deny(c) || !policy_rule_applies(c, s->request, &s->path))
		return;
	if (c->by_address && cidr_contains(&c->cidr, s->address))
		s->found = true;
	for (size_t i = 0; i < c->n_addresses; i++)
		s->found |= cidr_contains(&c->addresses[i], s->address);
}

static bool rule_says(const struct policy *p, const struct policy_request *r, const struct ip *a)
{
	struct search s = {.request = r, .address = a};

	if (r->phase == POLICY_HTTP)
		s.path = path_examine(r->path);
	policy_visit(p, r, search_rule, &s);
	return s.found;
}

static enum dial_verdict check_one(const struct dial_limits *d, const struct policy *p, const struct policy_request *r,
				   const struct ip *a)
{
	enum ip_class class = ip_classify(a);
	bool host_covered;

	if (is_never(d, a))
		return DIAL_NEVER;
	if (class == IP_GLOBAL)
		return DIAL_OK;
	if (class == IP_UNSPECIFIED || class == IP_MULTICAST || class == IP_BROADCAST)
		return DIAL_NOT_GLOBAL;
	if (!find_private(d, a, r->ip.family ? STR_NONE : r->name, &host_covered))
		return DIAL_NOT_GLOBAL;
	return host_covered || rule_says(p, r, a) ? DIAL_OK : DIAL_NO_RULE;
}

enum dial_verdict dial_check(const struct dial_limits *d, const struct policy *p, const struct policy_request *request,
			     const struct ip *address)
{
	struct ip inner[IP_EMBEDDED_MAX];
	unsigned n = ip_embedded(address, inner);

	if (address->family == 0)
		return DIAL_NOT_GLOBAL;
	for (unsigned i = 0; i < n; i++) {
		enum dial_verdict v = check_one(d, p, request, &inner[i]);
		if (v != DIAL_OK)
			return v;
	}
	return check_one(d, p, request, address);
}

const char *dial_text(enum dial_verdict v)
{
	switch (v) {
	case DIAL_OK:
		return "may be dialled";
	case DIAL_NEVER:
		return "is in egress.never_dial";
	case DIAL_NOT_GLOBAL:
		return "is not a globally reachable address, and egress.private_allow does not hold it";
	case DIAL_NO_RULE:
		return "is private: it takes a CIDR rule for it, or a host rule that names it in `addresses`";
	}
	return "?";
}
