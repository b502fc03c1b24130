#pragma once
/* Which resolved or literal addresses may be dialled (docs/ARCHITECTURE.md, "The way of a connection"). The kernel's
 * view (is it local?) is the worker's to ask beside this. Pure, and no allocation in dial_check. */
#include "base/error.h"
#include "policy/policy.h"

struct dial_limits;

/* never_dial: a wire list of CIDRs. private_allow: a wire list of rec_private. Both as msg_egress_config has them.
 * -EINVAL with a sentence that names the entry. */
int dial_limits_create(struct str never_dial, struct str private_allow, struct dial_limits **ret, struct error *reterr);
void dial_limits_destroy(struct dial_limits *d);

enum dial_verdict {
	DIAL_OK,
	DIAL_NEVER,      /* in egress.never_dial */
	DIAL_NOT_GLOBAL, /* not globally reachable, and no entry of private_allow holds it */
	DIAL_NO_RULE, /* inside an entry of private_allow whose hosts do not cover the name, and no rule that allows the
	               * request is a CIDR rule for it or names it in `addresses` */
};

/* request: as it was (or is being) decided; its matching allow rules count, in any phase. The address and every IPv4
 * address it embeds must pass. Unspecified, multicast and broadcast addresses never do. */
enum dial_verdict dial_check(const struct dial_limits *d, const struct policy *p, const struct policy_request *request,
			     const struct ip *address);
const char *dial_text(enum dial_verdict v);
