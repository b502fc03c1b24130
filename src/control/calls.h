#pragma once
/* The request log: every call of the API becomes an event of kind "api" {method, path, client, duration_us}. So that a flood
 * cannot fill the journal, calls of one kind (key, operation, status; without a key by status alone) have a bucket: what
 * is beyond it is counted, and told by one event of {count, longest_us} every few seconds, which carries what the last
 * of them said. What changed something is always told by itself. */
#include <event2/event.h>

#include "codec/msg_api.h"
#include "control/journal.h"
#include "store/store.h"

struct calls;

struct calls *calls_create(struct event_base *base, struct journal *journal, struct store *store);
void calls_destroy(struct calls *c);
/* A call that iron-api tells of. */
void calls_note(struct calls *c, const struct msg_api_record *m);
