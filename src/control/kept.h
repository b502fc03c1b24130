#pragma once
/* Idempotency-Key: what a POST with one was answered with is kept for 24 h, by workspace and key, and
 * a second call with the same key is answered with that instead of being done again.
 *
 * A row of the store says how far the first one came, so that a crash of any process leaves a truth to answer with:
 *   BEGUN   written before its work, which has the same effect when it is done twice: a retry does it again
 *   MADE    written in the transaction of its change: a retry answers with what there is of what it made
 *   HANDED  written before iron-api gets the VM's stream: only iron-api learns the answer (msg_keep). A retry does not run it
 *           again; when the answer was never told, it is told that
 * and holds the answer as soon as it is known. A call that fails before it changed anything leaves no row. What two calls do
 * at the same time is done once: the second waits for the first. */
#include "control/request.h"

enum kept_state { KEPT_BEGUN, KEPT_MADE, KEPT_HANDED };

/* The call may go to work. False: it was answered, or waits; request_begin comes again. */
bool kept_begin(struct request *r);
/* A row that it answers with. */
void kept_row(struct request *r, enum msg_type type, const void *row);
/* It is about to be answered. A failure: it must not be answered with success. */
int kept_end(struct request *r, const struct msg_done *done);
/* It goes, answered or not. */
void kept_forget(struct request *r);
/* iron-api tells what it answered with. */
void kept_take(struct control *c, const struct msg_keep *m);
/* iron-api is gone, and with it the answers that it has not told. */
void kept_drop_handed(struct control *c);
