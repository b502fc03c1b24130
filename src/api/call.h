#pragma once
/* One API call, from its head to its answer: route, key, parameters and body by their tables, iron-control, the answer.
 *
 * A call belongs to its connection until it has answered; if the connection goes first, the call ends by itself as soon
 * as nobody holds a pointer to it (iron-control answers, or its deadline passes). */
#include "api/api_internal.h"
#include "api/conn.h"
#include "api/shape.h"
#include "model/code.h"

struct call;

/* From a head. Never NULL: what cannot be served is a call that answers by itself as soon as it is started. */
struct call *call_create(struct api *api, struct conn *conn, const struct http1_request *req);
/* For a head or body that could not be read: answers at once. */
void call_refuse(struct api *api, struct conn *conn, unsigned status, const char *message);
/* The call will fail whatever its body holds: do not read one. */
bool call_refused(const struct call *c);
/* It takes its body itself, piece by piece: start it without. */
bool call_streams_body(const struct call *c);
/* The body is there: the call goes to work and answers now or later. */
void call_start(struct call *c, struct buf *body);
/* The body is no good (too large, too slow, malformed): the call answers with this. */
void call_fail_body(struct call *c, unsigned status, const char *message);
void call_client_eof(struct call *c);
void call_client_gone(struct call *c);
