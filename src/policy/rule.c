#include "policy/rule.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "policy/path.h"

/* What is being put together: the record, and the memory of its fields. */
struct canon {
	struct rec_rule rule;
	char host[HOST_PATTERN_SIZE], cidr[CIDR_TEXT_SIZE];
	struct buf ports, methods, paths, addresses;
	struct host_pattern pattern;
};

static void canon_finish(struct canon *c)
{
	buf_finish(&c->ports);
	buf_finish(&c->methods);
	buf_finish(&c->paths);
	buf_finish(&c->addresses);
}

/* --- lists --- */

static int by_text(const void *a, const void *b)
{
	return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* Sorted and without repeats, as a wire list. */
static void write_sorted(struct str *items, size_t n, struct buf *out)
{
	if (n)
		qsort(items, n, sizeof *items, by_text);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || !str_eq(items[i], items[i - 1]))
			wire_list_add(out, items[i]);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static int check_ports(struct str list, struct canon *c, struct error *reterr)
{
	uint64_t ports[RULE_PORTS_MAX];
	size_t count = wire_list_count(list);

	if (count > RULE_PORTS_MAX)
		return error_set(reterr, -EINVAL, "ports: at most %d", RULE_PORTS_MAX);
	for (size_t i = 0; i < count; i++)
		if (!wire_list_next_u64(&list, &ports[i]) || ports[i] == 0 || ports[i] > UINT16_MAX)
			return error_set(reterr, -EINVAL, "ports: a port is a number from 1 to 65535");
	if (count)
		qsort(ports, count, sizeof ports[0], by_number);
	for (size_t i = 0; i < count; i++)
		if (i == 0 || ports[i] != ports[i - 1])
			wire_list_add_u64(&c->ports, ports[i]);
	c->rule.ports = buf_str(&c->ports);
	return 0;
}

static bool is_method_byte(char c)
{
	/* RFC 9110's tchar; letters are in upper case by now. */
	return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'+-.^_`|~", c));
}

#define METHOD_SIZE 33

static int upper_method(struct str item, char ret[METHOD_SIZE], struct error *reterr)
{
	if (item.len == 0 || item.len >= METHOD_SIZE)
		return error_set(reterr, -EINVAL, "methods: a method has 1 to %d characters", METHOD_SIZE - 1);
	for (size_t i = 0; i < item.len; i++) {
		char ch = item.p[i];
		ret[i] = ch >= 'a' && ch <= 'z' ? (char)(ch - 32) : ch;
		if (ch == '*')
			return error_set(reterr, -EINVAL, "methods: leave the list out to mean every method");
		if (!is_method_byte(ret[i]))
			return error_set(reterr, -EINVAL, "methods: a method is one word, as GET or POST");
	}
	ret[item.len] = '\0';
	if (str_eq(str_of(ret), STR("CONNECT")) || str_eq(str_of(ret), STR("TRACE")))
		return error_set(reterr, -EINVAL, "methods: %s is never let through", ret);
	return 0;
}

static int check_methods(struct str list, struct canon *c, struct error *reterr)
{
	char text[RULE_METHODS_MAX][METHOD_SIZE];
	struct str items[RULE_METHODS_MAX], item;
	size_t n = 0;

	while (wire_list_next(&list, &item)) {
		if (n == RULE_METHODS_MAX)
			return error_set(reterr, -EINVAL, "methods: at most %d", RULE_METHODS_MAX);
		int r = upper_method(item, text[n], reterr);
		if (r)
			return r;
		items[n] = str_of(text[n]);
		n++;
	}
	write_sorted(items, n, &c->methods);
	c->rule.methods = buf_str(&c->methods);
	return 0;
}

static int check_paths(struct str list, struct canon *c, struct error *reterr)
{
	struct str items[RULE_PATHS_MAX], item;
	size_t n = 0;

	while (wire_list_next(&list, &item)) {
		if (n == RULE_PATHS_MAX)
			return error_set(reterr, -EINVAL, "paths: at most %d", RULE_PATHS_MAX);
		int r = path_pattern_check(item, reterr);
		if (r)
			return error_prefix(reterr, "paths"), r;
		items[n++] = item;
	}
	write_sorted(items, n, &c->paths);
	c->rule.paths = buf_str(&c->paths);
	if (c->rule.paths.len > 32768)
		return error_set(reterr, -EINVAL, "paths: too long in all");
	return 0;
}

static int check_addresses(struct str list, struct canon *c, struct error *reterr)
{
	char text[RULE_ADDRESSES_MAX][CIDR_TEXT_SIZE];
	struct str items[RULE_ADDRESSES_MAX], item;
	struct cidr cidr;
	size_t n = 0;

	if (list.len && (c->rule.cidr.len || c->pattern.kind == HOST_LITERAL || c->pattern.kind == HOST_ANY))
		return error_set(reterr, -EINVAL, "addresses: only with a host that is a name or `*.` before one");
	if (list.len && c->rule.action == RULE_DENY)
		return error_set(reterr, -EINVAL, "addresses: only with action allow");
	while (wire_list_next(&list, &item)) {
		if (n == RULE_ADDRESSES_MAX)
			return error_set(reterr, -EINVAL, "addresses: at most %d", RULE_ADDRESSES_MAX);
		int r = cidr_parse(item, &cidr);
		if (r)
			return error_set(reterr, -EINVAL, "addresses: `%.*s` %s", STR_ARG(item),
					 r == -ERANGE ? "has bits set below its prefix" : "is no CIDR");
		cidr_format(&cidr, text[n]);
		items[n] = str_of(text[n]);
		n++;
	}
	write_sorted(items, n, &c->addresses);
	c->rule.addresses = buf_str(&c->addresses);
	return 0;
}

/* --- the rest --- */

static int check_host(const struct rec_rule *asked, struct canon *c, struct error *reterr)
{
	struct cidr cidr;
	int r;

	if ((asked->host.len > 0) == (asked->cidr.len > 0))
		return error_set(reterr, -EINVAL, "host: a rule has either a host or a cidr, and exactly one of them");
	if (asked->host.len) {
		r = host_pattern_parse(asked->host, hostname_parse_idn, &c->pattern, reterr);
		if (r)
			return error_prefix(reterr, "host"), r;
		host_pattern_format(&c->pattern, c->host);
		c->rule.host = str_of(c->host);
		return 0;
	}
	r = cidr_parse(asked->cidr, &cidr);
	if (r == -ERANGE)
		return error_set(reterr, -EINVAL,
		                 "cidr: bits below the prefix are set: a network's address ends in zeros");
	if (r)
		return error_set(reterr, -EINVAL, "cidr: is no IPv4 or IPv6 prefix, as 10.0.0.0/8 or 2001:db8::/32");
	cidr_format(&cidr, c->cidr);
	c->rule.cidr = str_of(c->cidr);
	return 0;
}

static int check_tls(const struct rec_rule *asked, bool tls_given, struct canon *c, struct error *reterr)
{
	bool conditional = c->rule.methods.len || c->rule.paths.len;
	bool by_address = c->rule.cidr.len || c->pattern.kind == HOST_LITERAL;

	if (!tls_given) {
		c->rule.tls = by_address && !conditional ? RULE_PASSTHROUGH : RULE_INTERCEPT;
		return 0;
	}
	if (asked->tls > RULE_PASSTHROUGH)
		return error_set(reterr, -EINVAL, "tls: is intercept or passthrough");
	if (asked->tls == RULE_PASSTHROUGH && conditional)
		return error_set(
		        reterr, -EINVAL,
		        "tls: methods and paths cannot be seen with passthrough: use intercept, or leave them out");
	c->rule.tls = asked->tls;
	return 0;
}

static int check_text(const char *field, struct str s, size_t max, struct error *reterr)
{
	if (s.len > max)
		return error_set(reterr, -EINVAL, "%s: at most %zu bytes", field, max);
	if (s.len && !str_is_printable_utf8(s))
		return error_set(reterr, -EINVAL, "%s: no control characters, and valid UTF-8", field);
	return 0;
}

/* So that whatever takes an id can take a name too. */
static bool begins_like_an_id(struct str name)
{
	static const struct str prefixes[] = {
		STR("vm_"),  STR("egr_"), STR("ee_"),  STR("sec_"), STR("snap_"), STR("img_"),	STR("usr_"),
		STR("ws_"),  STR("key_"), STR("pub_"), STR("ses_"), STR("agt_"),  STR("exec_"), STR("op_"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (str_has_prefix(name, prefixes[i]))
			return true;
	return false;
}

static int check_texts(const struct rec_rule *asked, struct error *reterr)
{
	int r = check_text("name", asked->name, 63, reterr);

	if (r == 0 && begins_like_an_id(asked->name))
		r = error_set(reterr, -EINVAL, "name: does not begin like an id");
	if (r == 0)
		r = check_text("comment", asked->comment, 255, reterr);
	if (r == 0)
		r = check_text("preset", asked->preset, 63, reterr);
	if (r == 0 && asked->action > RULE_DENY)
		r = error_set(reterr, -EINVAL, "action: is allow or deny");
	return r;
}

int rule_canonicalise(const struct rec_rule *asked, bool tls_given, struct buf *out, struct error *reterr)
{
	_cleanup_(canon_finish) struct canon c = {
		.rule = {.id = asked->id,
			 .workspace_wide = asked->workspace_wide,
			 .name = asked->name,
			 .action = asked->action,
			 .preset = asked->preset,
			 .comment = asked->comment,
			 .created_at = asked->created_at},
	};
	int r;

	if ((r = check_texts(asked, reterr)) || (r = check_host(asked, &c, reterr)) ||
	    (r = check_ports(asked->ports, &c, reterr)) || (r = check_methods(asked->methods, &c, reterr)) ||
	    (r = check_paths(asked->paths, &c, reterr)) || (r = check_tls(asked, tls_given, &c, reterr)) ||
	    (r = check_addresses(asked->addresses, &c, reterr)))
		return r;
	r = wire_encode(&rec_rule_wire, &c.rule, out);
	return r ? error_set(reterr, r, "rule: too large") : 0;
}
