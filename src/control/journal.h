#pragma once
/* iron-control's way to the audit journal: records through the channel to iron-audit. What must be on record before it
 * is done (keys, rules, policy, VMs, exec) is written first and acknowledged; what is only told is gathered and written
 * once a turn of the loop. */
#include <event2/event.h>
#include <stdbool.h>

#include "codec/record.h"
#include "os/ipc.h"

struct journal;

struct journal *journal_create(struct event_base *base);
void journal_destroy(struct journal *j);
/* The channel to iron-audit, NULL: gone. Not owned; set NULL before it is destroyed. */
void journal_attach(struct journal *j, struct ipc_peer *audit);

/* code 0: it is in the journal (durable: and synced). Otherwise nothing of it may be relied on. */
typedef void journal_written(int code, void *arg);
/* done runs exactly once, from the loop; never when this function itself fails (-EPIPE: no iron-audit, -EMSGSIZE). */
int journal_write(struct journal *j, const struct record_event *e, bool durable, journal_written *done, void *arg);
/* Kept, bounded, until it can be written; past the bound it is counted and the count is written. */
void journal_note(struct journal *j, const struct record_event *e);

/* A JSON object for record_event.detail: {0}, any number of adds, then detail_end (which borrows from it). */
struct detail {
	struct buf text;
};
void detail_finish(struct detail *d);
void detail_add(struct detail *d, const char *key, struct str value);
void detail_add_u64(struct detail *d, const char *key, uint64_t value);
void detail_add_id(struct detail *d, const char *key, const char *prefix, uint64_t id);
/* Items as one text, with a space between them. */
void detail_add_list(struct detail *d, const char *key, struct str list);
struct str detail_end(struct detail *d);
