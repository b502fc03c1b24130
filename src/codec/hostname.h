#pragma once
/* Host names in one canonical form, so that comparing two is comparing bytes: ASCII, lower case, no final dot, labels
 * of 1 to 63 of [a-z0-9_-] (RFC 1123 and the underscore that DNS uses), at most 253 bytes in all. A name whose last
 * label is a number ("1.2.3", "0x7f.1", "127.1", "10.0.0.08") is refused: some resolver or library takes it for an
 * address. */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "codec/ip.h"

#define HOSTNAME_MAX 253
#define HOSTNAME_SIZE (HOSTNAME_MAX + 1)

/* An ASCII name as it comes off the wire (SNI, Host, a DNS question's text): lower-cased, one final dot dropped.
 * -EINVAL; never allocates. */
int hostname_parse(struct str s, char ret[HOSTNAME_SIZE]);
/* A name as a person wrote it, UTF-8: IDNA 2008 with UTS 46's mapping (libidn2, non-transitional), then hostname_parse.
 * -EINVAL. Only for input that people write: what comes from a guest or a peer is ASCII or refused. */
int hostname_parse_idn(struct str s, char ret[HOSTNAME_SIZE]);
/* s is already in canonical form. */
bool hostname_is_canonical(struct str s);

/* name is suffix, or below it ("a.x.com" in "x.com"). Both canonical. */
bool hostname_in(struct str name, struct str suffix);

/* What kind of name, for one in canonical form (docs/ARCHITECTURE.md, "The way of a connection"). */
enum hostname_kind {
	HOSTNAME_ORDINARY,
	HOSTNAME_LOCALHOST, /* "localhost" and below: the guest itself */
	HOSTNAME_IRON,      /* iron.internal: the VM's own page */
	HOSTNAME_SPECIAL,   /* single labels, local, lan, internal, home.arpa, onion, invalid, arpa,
	                     * use-application-dns.net   and all below them: NXDOMAIN unless a rule names it */
};
enum hostname_kind hostname_kind(struct str name);

/* A name or a literal address. */
struct host {
	struct ip ip;             /* family 0: a name */
	char name[HOSTNAME_SIZE]; /* canonical; for a literal its text by ip_format, without brackets */
};
/* "host", "1.2.3.4", "::1" (as rules and the API give it: no brackets, no port). -EINVAL. */
int host_parse(struct str s, struct host *ret);

/* RFC 3986 authority without userinfo: host [":" port], IPv6 in brackets. *ret_port is 0 when there is none; an empty
 * port ("host:"), port 0, leading zeros and anything above 65535 are -EINVAL. */
int authority_parse(struct str s, struct host *ret_host, uint16_t *ret_port);
