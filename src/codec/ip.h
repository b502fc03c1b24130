#pragma once
/* IPv4 and IPv6 addresses and prefixes as values: strict text (RFC 4291 section 2.2, RFC 5952 on the way out), and what
 * IANA's special-purpose address registries (RFC 6890 and its successors) say about them.
 *
 * Nothing here is lenient: an IPv4 address is four decimal numbers without leading zeros ("127.1", "0177.0.0.1" and
 * "0x7f000001" are no addresses), an IPv6 address has no zone and no brackets. */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct ip {
	uint8_t family;    /* 4 or 6; 0: none */
	uint8_t bytes[16]; /* network order; IPv4 in the first four, the rest zero */
};

struct cidr {
	struct ip base; /* bits below the prefix are zero */
	uint8_t prefix;
};

#define IP_TEXT_SIZE 46   /* 39 or 45 characters and a NUL */
#define CIDR_TEXT_SIZE 50

struct ip ip_from_v4(uint32_t host_order);
struct ip ip_from_v6(const uint8_t bytes[16]);
/* The address in host order. Only for family 4. */
uint32_t ip_v4(const struct ip *a);
bool ip_eq(const struct ip *a, const struct ip *b);

/* -EINVAL. */
int ip_parse(struct str s, struct ip *ret);
void ip_format(const struct ip *a, char ret[IP_TEXT_SIZE]);

/* "10.0.0.0/8"; an address alone is /32 or /128. -EINVAL when malformed, -ERANGE when bits below the prefix are set
 * (10.0.0.1/8: the writer meant something else, and which is not ours to guess). */
int cidr_parse(struct str s, struct cidr *ret);
/* Always with its prefix. */
void cidr_format(const struct cidr *c, char ret[CIDR_TEXT_SIZE]);
/* The families must be the same: ::/0 holds no IPv4 address, and 0.0.0.0/0 no IPv6 one. */
bool cidr_contains(const struct cidr *c, const struct ip *a);
/* inner is a part of outer, or the same. */
bool cidr_covers(const struct cidr *outer, const struct cidr *inner);
/* The prefix of this length that holds a. prefix must be at most 32 or 128. */
struct cidr cidr_of(const struct ip *a, unsigned prefix);

/* The IPv4 addresses that an IPv6 address embeds: mapped (::ffff:0:0/96), compatible (::/96), SIIT-translated
 * (::ffff:0:0:0/96), NAT64 (64:ff9b::/96; 64:ff9b:1::/48 by every layout of RFC 6052 that a prefix of /48 to /96 there
 * can have), 6to4 (2002::/16), Teredo (2001::/32: server and client), ISATAP (interface id 0:5efe or 200:5efe).
 * Returns how many were written, at most IP_EMBEDDED_MAX; 0 for an IPv4 address. */
#define IP_EMBEDDED_MAX 4
unsigned ip_embedded(const struct ip *a, struct ip ret[IP_EMBEDDED_MAX]);

/* What an address is, by its own registry entry alone (not by what it embeds). Whatever is not IP_GLOBAL is not
 * globally reachable. IPv6 outside 2000::/3 is unassigned but for the entries: IP_RESERVED. */
enum ip_class {
	IP_GLOBAL,
	IP_UNSPECIFIED,  /* 0.0.0.0/8, :: */
	IP_LOOPBACK,
	IP_LINK_LOCAL,
	IP_PRIVATE,      /* RFC 1918, shared space 100.64/10, unique local fc00::/7, site-local fec0::/10 */
	IP_MULTICAST,
	IP_BROADCAST,
	IP_DOCUMENTATION,
	IP_BENCHMARKING,
	IP_TRANSITION,   /* forms that embed IPv4 and are not themselves reachable: mapped, 6to4, Teredo … */
	IP_RESERVED,     /* everything else that IANA does not call globally reachable */
};
enum ip_class ip_classify(const struct ip *a);
const char *ip_class_text(enum ip_class c); /* "loopback", "link-local" … */

/* Globally reachable: its own entry says so, and so do those of every address it embeds. */
bool ip_is_global(const struct ip *a);
