/* Compiling a policy, and finding the few rules that can matter to a destination.
 *
 * Rules lie in buckets by what they say of the host: the exact name, the suffix of a "*.suffix", the prefix of a CIDR
 * (a literal is one of full length), or "*". A look-up tries the name, each of its suffixes, and each prefix length
 * that occurs: its cost grows with the name's labels, not with the number of rules. */
#include "policy/policy_internal.h"

#include <errno.h>

#include "base/cleanup.h"
#include "policy/host_pattern.h"

struct policy *policy_create(enum egress_mode mode)
{
	struct policy *p = xcalloc(1, sizeof *p);
	p->mode = mode;
	p->arena.max = POLICY_BYTES_MAX;
	return p;
}

void policy_destroy(struct policy *p)
{
	if (!p)
		return;
	map_finish(&p->index);
	arena_finish(&p->arena);
	free(p->rules);
	free(p);
}

enum egress_mode policy_mode(const struct policy *p)
{
	return p->mode;
}

size_t policy_rule_count(const struct policy *p)
{
	return p->n;
}

const struct rec_rule *policy_rule_at(const struct policy *p, size_t i)
{
	return i < p->n ? &p->rules[i]->rule : NULL;
}

/* --- adding --- */

/* Every string and list of the record, into the arena. */
static int copy_record(struct policy *p, const struct rec_rule *from, struct rec_rule *ret)
{
	*ret = *from;
	for (size_t i = 0; i < rec_rule_wire.n; i++) {
		const struct wire_field *f = &rec_rule_wire.fields[i];
		if (f->kind != WIRE_str && f->kind != WIRE_list)
			continue;
		struct str *s = (struct str *)((char *)ret + f->offset);
		if (s->len > f->max)
			return -EBADMSG;
		*s = arena_str(&p->arena, *s);
		if (!s->p)
			return -EMSGSIZE;
	}
	return 0;
}

static int compile_host(struct compiled *c)
{
	struct host_pattern pattern;
	char text[HOST_PATTERN_SIZE];

	if (host_pattern_parse(c->rule.host, hostname_parse, &pattern, NULL))
		return -EBADMSG;
	host_pattern_format(&pattern, text);
	if (!str_eq(str_of(text), c->rule.host))
		return -EBADMSG;
	c->bare = pattern.kind == HOST_ANY;
	if (pattern.kind == HOST_LITERAL) {
		c->by_address = true;
		c->cidr = cidr_of(&pattern.host.ip, pattern.host.ip.family == 6 ? 128 : 32);
	}
	return 0;
}

static int compile_addresses(struct policy *p, struct compiled *c)
{
	struct str list = c->rule.addresses, item;

	c->n_addresses = wire_list_count(list);
	c->addresses = arena_alloc(&p->arena, c->n_addresses * sizeof *c->addresses);
	if (!c->addresses)
		return -EMSGSIZE;
	for (size_t i = 0; wire_list_next(&list, &item); i++)
		if (cidr_parse(item, &c->addresses[i]))
			return -EBADMSG;
	return 0;
}

/* Nothing of what the engine later relies on is left unchecked: a port list with an odd item would end early, and a
 * deny would cover less than it says. */
static bool lists_are_sound(const struct rec_rule *r)
{
	struct str ports = r->ports, methods = r->methods, paths = r->paths, item;
	uint64_t port;

	for (size_t n = wire_list_count(ports); n; n--)
		if (!wire_list_next_u64(&ports, &port) || port == 0 || port > UINT16_MAX)
			return false;
	while (wire_list_next(&methods, &item))
		if (item.len == 0)
			return false;
	while (wire_list_next(&paths, &item))
		if (item.len == 0 || item.p[0] != '/')
			return false;
	return r->tls <= 1 && r->action <= 1 && !(r->tls == 1 && (r->methods.len || r->paths.len));
}

static int compile(struct policy *p, const struct rec_rule *rule, struct compiled *c)
{
	int r = copy_record(p, rule, &c->rule);

	if (r)
		return r;
	if ((rule->host.len > 0) == (rule->cidr.len > 0) || !lists_are_sound(rule))
		return -EBADMSG;
	c->conditional = rule->methods.len || rule->paths.len;
	if (rule->host.len) {
		r = compile_host(c);
	} else {
		c->by_address = true;
		r = cidr_parse(rule->cidr, &c->cidr) ? -EBADMSG : 0;
	}
	return r ? r : compile_addresses(p, c);
}

int policy_add(struct policy *p, const struct rec_rule *rule)
{
	if (p->sealed)
		return -EPERM;
	struct compiled *c = p->n < POLICY_RULES_MAX ? arena_alloc(&p->arena, sizeof *c) : NULL;
	if (!c)
		return -EMSGSIZE;
	int r = compile(p, rule, c);
	if (r)
		return r;
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 16;
		p->rules = xrealloc(p->rules, p->cap * sizeof(struct compiled *));
	}
	p->rules[p->n++] = c;
	return 0;
}

int policy_add_encoded(struct policy *p, struct str rule)
{
	struct rec_rule r;
	return wire_decode(&rec_rule_wire, rule, &r) ? -EBADMSG : policy_add(p, &r);
}

/* --- the index --- */

#define KEY_SIZE (HOSTNAME_SIZE + 1)

static struct str name_key(char kind, struct str name, char buf[KEY_SIZE])
{
	buf[0] = kind;
	memcpy(buf + 1, name.p, name.len);
	return str_make(buf, name.len + 1);
}

static struct str cidr_key(const struct cidr *c, char buf[KEY_SIZE])
{
	buf[0] = '/';
	buf[1] = (char)c->base.family;
	buf[2] = (char)c->prefix;
	memcpy(buf + 3, c->base.bytes, sizeof c->base.bytes);
	return str_make(buf, 3 + sizeof c->base.bytes);
}

static struct str rule_key(const struct compiled *c, char buf[KEY_SIZE])
{
	if (c->by_address)
		return cidr_key(&c->cidr, buf);
	if (str_has_prefix(c->rule.host, STR("*.")))
		return name_key('*', str_make(c->rule.host.p + 2, c->rule.host.len - 2), buf);
	return name_key('=', c->rule.host, buf);
}

static void index_rule(struct policy *p, struct compiled *c)
{
	char key[KEY_SIZE];

	if (c->bare) {
		c->next = p->bare;
		p->bare = c;
		return;
	}
	if (c->by_address)
		(c->cidr.base.family == 6 ? p->v6_prefixes : p->v4_prefixes)[c->cidr.prefix] = true;
	c->next = map_put_str(&p->index, rule_key(c, key), c);
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = (*(struct compiled *const *)a)->rule.id, y = (*(struct compiled *const *)b)->rule.id;
	return (x > y) - (x < y);
}

void policy_seal(struct policy *p)
{
	if (p->sealed)
		return;
	if (p->n)
		qsort(p->rules, p->n, sizeof(struct compiled *), by_id);
	for (size_t i = p->n; i--;)
		index_rule(p, p->rules[i]);
	p->sealed = true;
}

/* --- finding --- */

/* 80 and 443 for a name, every port for an address, unless given. */
static bool covers_port(const struct compiled *c, uint16_t port)
{
	struct str ports = c->rule.ports;
	uint64_t p;

	if (ports.len == 0)
		return c->by_address || policy_is_web_port(port);
	while (wire_list_next_u64(&ports, &p))
		if (p == port)
			return true;
	return false;
}

static void visit_bucket(const struct compiled *c, uint16_t port, policy_visit_fn fn, void *context)
{
	for (; c; c = c->next)
		if (covers_port(c, port))
			fn(c, context);
}

static void visit_name(const struct policy *p, const struct policy_request *r, policy_visit_fn fn, void *context)
{
	char key[KEY_SIZE];
	struct str suffix = r->name;

	if (r->name.len > HOSTNAME_MAX)
		return;
	visit_bucket(map_get_str(&p->index, name_key('=', r->name, key)), r->port, fn, context);
	for (;;) {
		visit_bucket(map_get_str(&p->index, name_key('*', suffix, key)), r->port, fn, context);
		ptrdiff_t dot = str_chr(suffix, '.');
		if (dot < 0)
			break;
		suffix = str_make(suffix.p + dot + 1, suffix.len - (size_t)dot - 1);
	}
	visit_bucket(p->bare, r->port, fn, context);
}

static void visit_address(const struct policy *p, const struct policy_request *r, policy_visit_fn fn, void *context)
{
	const bool *prefixes = r->ip.family == 6 ? p->v6_prefixes : p->v4_prefixes;
	unsigned width = r->ip.family == 6 ? 128 : 32;
	char key[KEY_SIZE];

	for (unsigned prefix = 0; prefix <= width; prefix++) {
		if (!prefixes[prefix])
			continue;
		struct cidr c = cidr_of(&r->ip, prefix);
		visit_bucket(map_get_str(&p->index, cidr_key(&c, key)), r->port, fn, context);
	}
	/* "*" stands for every name. To deny everything it stands for every address too; to allow one it does not: what
	 * is asked for by address alone has no name that anything could be judged by. */
	for (const struct compiled *c = p->bare; c; c = c->next)
		if (policy_is_deny(c) && covers_port(c, r->port))
			fn(c, context);
}

void policy_visit(const struct policy *p, const struct policy_request *r, policy_visit_fn fn, void *context)
{
	if (r->ip.family)
		visit_address(p, r, fn, context);
	else if (r->name.len)
		visit_name(p, r, fn, context);
}

static bool bucket_allows(const struct compiled *c)
{
	for (; c; c = c->next)
		if (!policy_is_deny(c))
			return true;
	return false;
}

bool policy_names(const struct policy *p, struct str name)
{
	char key[KEY_SIZE];

	if (name.len > HOSTNAME_MAX)
		return false;
	if (bucket_allows(map_get_str(&p->index, name_key('=', name, key))))
		return true;
	for (;;) {
		if (bucket_allows(map_get_str(&p->index, name_key('*', name, key))))
			return true;
		ptrdiff_t dot = str_chr(name, '.');
		if (dot < 0)
			return false;
		name = str_make(name.p + dot + 1, name.len - (size_t)dot - 1);
	}
}

bool policy_answers_name(const struct policy *p, struct str name)
{
	return hostname_kind(name) != HOSTNAME_SPECIAL || policy_names(p, name);
}
