#pragma once
/* Idempotency-Key on iron-api's side: the header, the fingerprint of the call that it belongs to, and telling iron-control
 * the answers that it cannot see (exec and what else runs over a VM's stream). control/kept.h has the rest. */
#include "api/call_internal.h"

/* From the head: takes the key of a POST. NULL, or what is wrong with it. */
const char *idempotency_take(struct call *c, const struct http1_request *req);
/* The body is there. */
void idempotency_seal(struct call *c, struct str body);
/* The call is answered with this; iron-control is told when the answer is one that it waits for. */
void idempotency_tell(struct call *c, unsigned status, struct str body);
/* The call ended without an answer that could be kept: a stream, or a client that left. */
void idempotency_tell_lost(struct call *c);
