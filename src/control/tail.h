#pragma once
/* The audit index: follows the journal into the store. Segments are read through descriptors that irond opens. All of it
 * is done at the loop's lowest priority, a bounded number of records a turn: never ahead of a request, but for one turn a
 * second where requests would leave it none.
 *
 * An index that is begun anew (it was missing, damaged, of another schema or of another journal; or tail_reindex) is not
 * whole until it has reached what the journal held then: tail_status.whole. */
#include <event2/event.h>

#include "codec/msg_egress.h"
#include "control/links.h"
#include "store/store.h"

struct tail;

/* keep_days: events older than that are forgotten by the index (never by the journal); 0: none. whole runs when an index
 * that was not has become so. */
struct tail *tail_create(struct event_base *base, struct store *store, struct links *links, unsigned keep_days,
			 void (*whole)(void *user), void *user);
void tail_destroy(struct tail *t);
/* News of iron-audit. */
void tail_on_head(struct tail *t, const struct msg_audit_head *head);

/* Throws the index away and builds it anew. Negative: it could not be; it is tried again by itself. */
int tail_reindex(struct tail *t, const char *why);
struct tail_status {
	bool whole;
	unsigned permille; /* of the journal, by its segments */
	uint64_t skipped;  /* segments given up half-way, and records that do not decode */
	uint64_t indexed, written; /* sequence of the last record in the index, and in the journal */
};
void tail_get_status(const struct tail *t, struct tail_status *ret);
