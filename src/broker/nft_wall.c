#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "broker/nft.h"
#include "broker/resolvers.h"
#include "broker/vmhost.h"
#include "codec/ip.h"

/* Not globally reachable by IANA's IPv4 Special-Purpose Address Registry, and multicast and the reserved class E. The two
 * anycast addresses of 192.0.0.0/24 that are reachable have no use here. */
static const char *const not_global4[] = {
	"0.0.0.0/8",	  "10.0.0.0/8",	    "100.64.0.0/10", "127.0.0.0/8",   "169.254.0.0/16",
	"172.16.0.0/12",  "192.0.0.0/24",   "192.0.2.0/24",  "192.88.99.0/24", "192.168.0.0/16",
	"198.18.0.0/15",  "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
};

/* The same within IPv6's global unicast space (2000::/3). All outside of that space is rejected as a whole, but for
 * 64:ff9b::/96 (NAT64), of which only the forms that embed an address of the list above are. */
static const char *const not_global6[] = {"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"};

/* The NAT64 form (RFC 6052) of an IPv4 network. */
static struct cidr cidr_nat64(const struct cidr *v4)
{
	struct ip a = {.family = 6, .bytes = {0x00, 0x64, 0xff, 0x9b}};
	memcpy(a.bytes + 12, v4->base.bytes, 4);
	return cidr_of(&a, v4->prefix + 96U);
}

/* One named set of a family out of a list of both. IPv4 entries stand in the IPv6 set too, in their NAT64 form. */
static int set_append(struct buf *out, const char *name, int family, const char *const *list, size_t n,
		      struct error *reterr)
{
	_cleanup_(buf_finish) struct buf elements = {0};
	char text[CIDR_TEXT_SIZE];

	for (size_t i = 0; i < n; i++) {
		struct cidr c;
		if (cidr_parse(str_of(list[i]), &c) < 0)
			return error_set(reterr, -EINVAL, "'%s' is not an address or CIDR", list[i]);
		if (c.base.family == 4 && family == 6)
			c = cidr_nat64(&c);
		if (c.base.family != family)
			continue;
		cidr_format(&c, text);
		buf_printf(&elements, "%s, ", text);
	}
	buf_printf(out, "\tset %s%d {\n\t\ttype ipv%d_addr; flags interval; auto-merge;\n", name, family, family);
	if (elements.len)
		buf_printf(out, "\t\telements = { %.*s }\n", STR_ARG(buf_str(&elements)));
	buf_append_z(out, "\t}\n");
	return 0;
}

static int resolver_append(struct buf *out, const char *text, struct error *reterr)
{
	struct str rest = str_of(text), head;
	char canonical[IP_TEXT_SIZE];
	struct ip address;
	uint64_t port = 53;

	if (!str_split(&rest, '#', &head) || ip_parse(head, &address) < 0 ||
	    (rest.p && (str_parse_u64(rest, 65535, &port) < 0 || port == 0)))
		return error_set(reterr, -EINVAL, "'%s' is not a resolver's address", text);
	ip_format(&address, canonical);
	return buf_printf(out, "\t\t%s daddr %s meta l4proto { tcp, udp } th dport %u accept\n",
			  address.family == 4 ? "ip" : "ip6", canonical, (unsigned)port);
}

static int sets_append(const struct nft_wall *w, struct buf *out, struct error *reterr)
{
	int r;

	for (int family = 4; family <= 6; family += 2)
		if ((r = set_append(out, "never", family, w->never_dial, w->nnever_dial, reterr)) < 0 ||
		    (r = set_append(out, "allowed", family, w->private_allow, w->nprivate_allow, reterr)) < 0 ||
		    (r = set_append(out, "special", family, not_global4, ARRAY_SIZE(not_global4), reterr)) < 0)
			return r;
	return set_append(out, "unreachable", 6, not_global6, ARRAY_SIZE(not_global6), reterr);
}

int nft_wall_format(const struct nft_wall *w, struct buf *out, struct error *reterr)
{
	int r;

	buf_printf(out, "table inet %s\ndelete table inet %s\ntable inet %s {\n", w->table, w->table, w->table);
	if ((r = sets_append(w, out, reterr)) < 0)
		return r;
	buf_append_z(out, "\tchain worker {\n");
	for (size_t i = 0; i < w->nresolvers; i++)
		if ((r = resolver_append(out, w->resolvers[i], reterr)) < 0)
			return r;
	buf_append_z(out, "\t\tmeta l4proto != tcp counter reject with icmpx admin-prohibited\n"
			  "\t\tip daddr @never4 counter reject with tcp reset\n"
			  "\t\tip6 daddr @never6 counter reject with tcp reset\n"
			  "\t\tip daddr @allowed4 accept\n"
			  "\t\tip6 daddr @allowed6 accept\n"
			  "\t\tfib daddr type != unicast counter reject with tcp reset\n"
			  "\t\tip daddr @special4 counter reject with tcp reset\n"
			  "\t\tip6 daddr @special6 counter reject with tcp reset\n"
			  "\t\tip6 daddr @unreachable6 counter reject with tcp reset\n"
			  "\t\tip6 daddr 64:ff9b::/96 accept\n"
			  "\t\tip6 daddr != 2000::/3 counter reject with tcp reset\n"
			  "\t}\n");
	/* A packet without a socket (the kernel's own resets and errors) has no uid: it must match no rule here, which
	 * `skuid != … accept` would not achieve. */
	buf_printf(out,
		   "\tchain output {\n"
		   "\t\ttype filter hook output priority filter; policy accept;\n"
		   "\t\tmeta skuid %u-%u jump worker\n"
		   "\t}\n}\n",
		   w->uid_first, w->uid_last);
	return out->failed ? error_set(reterr, -EMSGSIZE, "too many addresses in the egress configuration") : 0;
}

static void table_name(const char *instance, char *ret, size_t size)
{
	snprintf(ret, size, "%s-host", instance);
}

int nft_host_install(const struct conf *conf, uid_t uid_first, unsigned uid_count, struct error *reterr)
{
	const struct conf_egress *e = &conf->egress;
	_cleanup_(buf_finish) struct buf text = {0};
	_cleanup_(resolvers_finish) resolvers dns = {0};
	_cleanup_free_ const char **allowed = xcalloc(e->private_allow_count + 1, sizeof *allowed);
	char table[128];

	table_name(conf->instance, table, sizeof table);
	resolvers_find(conf, RESOLV_CONF, &dns);
	for (unsigned i = 0; i < e->private_allow_count; i++)
		allowed[i] = e->private_allow[i].cidr;
	const struct nft_wall wall = {
		.table = table,
		.uid_first = uid_first,
		.uid_last = uid_first + uid_count - 1,
		.never_dial = (const char *const *)e->never_dial,
		.nnever_dial = e->never_dial_count,
		.private_allow = allowed,
		.nprivate_allow = e->private_allow_count,
		.resolvers = (const char *const *)dns.v,
		.nresolvers = dns.n,
	};
	int r = nft_wall_format(&wall, &text, reterr);
	if (r < 0)
		return r;
	_cleanup_free_ char *rules = buf_take_z(&text);
	return nft_run(rules, reterr);
}

void nft_host_remove(const char *instance)
{
	char table[128];
	_cleanup_free_ char *text = NULL;

	table_name(instance, table, sizeof table);
	text = xasprintf("table inet %s\ndelete table inet %s\n", table, table);
	nft_run(text, NULL);
}
