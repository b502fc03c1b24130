#pragma once
/* The egress policy of one VM, compiled: what may leave, and which rule says so. Pure decisions: no I/O, no clock, and
 * no allocation once sealed.
 *
 * Rules are a union; order never matters; a deny wins over every allow; without a matching allow the answer is no. Warn
 * mode turns exactly that last answer ("no rule allows this") into VERDICT_WARN, never a deny rule's.
 *
 * What a rule covers: an exact name; "*.x.com" x.com and all below it; "*" every name, and in a deny every address too
 * (an allow of "*" lets no literal address through: what has no name takes a CIDR or literal rule); a CIDR or a literal
 * only what was asked for by address. Without ports: 80 and 443 for a name or "*", every port for an address, for
 * denies as for allows.
 *
 * A policy is filled with canonical rules (policy/rule.h), sealed, and then only read. The rules of a workspace and of
 * a VM are added alike: which ones belong in a VM's policy (inherit, and always the workspace's denies) is the caller's
 * choice, and policy_includes says it. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"
#include "codec/hostname.h"
#include "codec/msg_egress.h"
#include "codec/record.h"

#define POLICY_RULES_MAX 10000
#define POLICY_BYTES_MAX ((size_t)64 << 20) /* all rules of a policy */

struct policy;

struct policy *policy_create(enum egress_mode mode);
void policy_destroy(struct policy *p);
/* Copies. -EBADMSG: not in the form that rule_canonicalise writes; -EMSGSIZE: more than a policy holds. */
int policy_add(struct policy *p, const struct rec_rule *rule);
/* The same for the bytes of a rec_rule, as msg_policy_rule brings them. */
int policy_add_encoded(struct policy *p, struct str rule);
/* Builds the index. Afterwards nothing may be added. */
void policy_seal(struct policy *p);

enum egress_mode policy_mode(const struct policy *p);
size_t policy_rule_count(const struct policy *p);
const struct rec_rule *policy_rule_at(const struct policy *p, size_t i);

/* Whether a workspace's rule belongs in the policy of a VM: all of them where it inherits, its denies always. */
static inline bool policy_includes(const struct rec_rule *workspace_rule, bool vm_inherits)
{
	return vm_inherits || workspace_rule->action == 1;
}

/* How much of a connection is known, and so what is being decided. */
enum policy_phase {
	/* Name or literal, and port. Yes means: go on and look at the first bytes (or, decision.raw, relay at once).
	 * Nothing may be sent upstream on this answer alone unless decision.raw. */
	POLICY_CONNECT,
	/* A TLS connection whose inside will not be seen. Rules with methods or paths cannot be judged: such an allow
	 * does not count, such a deny does. */
	POLICY_TLS_OPAQUE,
	/* A TLS connection that will be intercepted: each request inside is judged as POLICY_HTTP. */
	POLICY_TLS_INTERCEPTED,
	/* One HTTP request: method and path count. */
	POLICY_HTTP,
	/* Bytes of no known protocol, or none at all: only a rule with `tls: passthrough` and without methods and
	 * paths, on a port other than 80 and 443. On those two ports warn mode does not help either. */
	POLICY_RAW,
};

struct policy_request {
	enum policy_phase phase;
	struct str name; /* canonical; empty when ip is the destination */
	struct ip ip;    /* a literal destination: family 0 when name is. Never a synthetic address: those are names */
	uint16_t port;
	struct str method; /* POLICY_HTTP, as sent */
	/* POLICY_HTTP, as sent, without query (http1_request.path); policy/path.h says how it matches. */
	struct str path;
};

enum policy_why {
	POLICY_ALLOW_RULE,      /* decision.rule allows it */
	POLICY_DENY_RULE,       /* decision.rule denies it */
	POLICY_NO_RULE,         /* no rule allows host and port (or, in POLICY_HTTP, method and path) */
	POLICY_NOT_RAW,         /* host and port are allowed, but not a protocol that is neither TLS nor HTTP */
	POLICY_RAW_PORT,        /* neither TLS nor HTTP on port 80 or 443 */
	POLICY_NOT_OPAQUE,      /* only rules with methods or paths allow the host, and they need interception */
};

struct policy_decision {
	enum egress_verdict verdict;
	enum policy_why why;
	const struct rec_rule *rule; /* the decider (of several the one with the lowest id); NULL where no rule decides.
				      * Lives as long as the policy */
	bool raw;       /* POLICY_CONNECT: POLICY_RAW is allowed by a rule: dial at once */
	bool intercept; /* how TLS is to be treated: some rule that matches host and port has methods or paths, or none
	                 * that allows says passthrough */
};

void policy_decide(const struct policy *p, const struct policy_request *r, struct policy_decision *ret);

/* A connection that was let through as `r` (in its last phase) may go on under this policy. */
bool policy_still_allows(const struct policy *p, const struct policy_request *r);

/* All rules that matched, allows and denies, by ascending id: returns how many there are and writes at most cap of
 * them. In phases without method and path a rule that has them counts as matched by host and port. */
size_t policy_explain(const struct policy *p, const struct policy_request *r, const struct rec_rule **ret_rules,
		      size_t cap);

/* Some allow rule other than a bare `*` covers the name on some port: then DNS answers it although its kind is
 * HOSTNAME_SPECIAL. */
bool policy_names(const struct policy *p, struct str name);

/* DNS in a VM knows this name: it is an ordinary one, or a rule names it. (localhost and iron.internal it knows always.) */
bool policy_answers_name(const struct policy *p, struct str name);

/* The name that SNI or Host gave is the destination. An empty `given` (no SNI) agrees only with a literal; a literal
 * agrees with itself or nothing. given is canonical text (tls_hello.sni, http1_request.host.name). */
bool policy_host_agrees(const struct policy_request *r, struct str given);

/* One sentence for the record and the 403: "no rule allows api.example.com:443", "rule egr_… denies …". Cut to fit. */
void policy_reason(const struct policy_request *r, const struct policy_decision *d, char *ret, size_t size);
