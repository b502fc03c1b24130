#pragma once
/* What a request of a VM's would meet, without sending it: the decision of the same policy by the same functions that the
 * worker judges by, after what comes before them on the way of a connection (which names DNS answers, which addresses
 * never reach the door, which may not be dialled). What only the moment can show is not in it: where a name resolves
 * to, whether an address is the host's own (explain_refuse is for who knows), SNI and Host. */
#include "policy/dial.h"

enum explain_protocol { EXPLAIN_ANY, EXPLAIN_HTTP, EXPLAIN_TLS, EXPLAIN_TCP };

struct explain_world {
	const struct dial_limits *limits; /* may be NULL: addresses are not judged */
	struct cidr synthetic;
};

struct explain_request {
	struct host host;
	uint16_t port; /* 0: 443, or 80 for EXPLAIN_HTTP */
	enum explain_protocol protocol;
	struct str method, path; /* empty: GET, "/"; a query is cut off */
};

#define EXPLAIN_MATCHED_MAX 100
struct explanation {
	enum egress_verdict verdict;
	enum explain_protocol protocol; /* what it was judged as */
	struct policy_request judged;	/* borrows from the request */
	const struct rec_rule *rule;	/* as policy_decision.rule; NULL too where something other than the rules decides */
	char reason[512];
	const struct rec_rule *matched[EXPLAIN_MATCHED_MAX]; /* by id */
	size_t nmatched;
};

/* p is sealed. Rules live as long as it does. */
void explain_request(const struct policy *p, const struct explain_world *w, const struct explain_request *r,
		     struct explanation *ret);
/* Denied, and not by a rule. */
void explain_refuse(struct explanation *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
