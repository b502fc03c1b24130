#pragma once
/* The audit index: follows the journal into the store. Segments are read through descriptors that irond opens. */
#include <event2/event.h>

#include "codec/msg_egress.h"
#include "control/links.h"
#include "store/store.h"

struct tail;

struct tail *tail_create(struct event_base *base, struct store *store, struct links *links);
void tail_destroy(struct tail *t);
/* News of iron-audit. */
void tail_on_head(struct tail *t, const struct msg_audit_head *head);
