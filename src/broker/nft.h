#pragma once
/* nftables, as text through libnftables, in the calling process's network namespace. One call is one transaction: all of
 * the text holds, or none of it. No other part of iron writes nft text. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

/* The one constant rule set of every VM's namespace (nft_door.c explains it). */
extern const char nft_door_rules[];

/* Runs text. -EINVAL with nft's first complaint. */
int nft_run(const char *text, struct error *reterr);

/* The second wall on the host: what processes of a range of uids may never send to, whatever they believe. In this order:
 * the resolvers' port is accepted; all but TCP, and `never_dial`, is rejected; `private_allow` is accepted; the host's own
 * addresses, and those that IANA's registries do not call globally reachable, are rejected. Strings are CIDRs or addresses of either family; they come from the
 * operator's configuration and are parsed again here: -EINVAL names the one that is not one. */
struct nft_wall {
	const char *table; /* [a-z][a-z0-9-]* */
	uid_t uid_first, uid_last;
	const char *const *never_dial;
	size_t nnever_dial;
	const char *const *private_allow;
	size_t nprivate_allow;
	const char *const *resolvers; /* "address" or "address#port" */
	size_t nresolvers;
};

/* Pure: the text that replaces the table in one transaction, or makes it: there is no moment without a wall. */
int nft_wall_format(const struct nft_wall *w, struct buf *out, struct error *reterr);
