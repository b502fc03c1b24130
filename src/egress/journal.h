#pragma once
/* The worker's end of the audit journal. The records of one turn of the loop go out as one batch; an open's owner
 * learns when it is in the journal's file, and only then may a byte go upstream. Closes of opens that are in the file
 * are kept until acknowledged and sent again to the next iron-audit, bounded.
 *
 * An entry is one open and what follows it: made by journal_open, ended by journal_close. The owner never frees it. */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/record.h"
#include "os/ipc.h"

struct journal;
struct journal_entry;

struct journal *journal_create(struct event_base *base);
void journal_destroy(struct journal *j); /* entries that are left are freed, their owners not called */

/* A new channel to iron-audit (borrowed), or NULL: it is gone. What waited for its answer fails. */
void journal_set_peer(struct journal *j, struct ipc_peer *peer);
/* Once a second: closes that were refused are sent again. */
void journal_retry(struct journal *j);

/* on_written runs once, later, from the loop: code 0 and the open's sequence, or why it is not in the file. It may be
 * NULL. NULL is returned, and on_written not called, when nothing can be written: no iron-audit is there, or it refused
 * all, or all of this VM (over its budget), within the last second, or it is far behind. */
typedef void journal_written(struct journal_entry *e, int code, void *arg);
struct journal_entry *journal_open(struct journal *j, const struct record_open *open, journal_written *on_written,
				   void *arg);
uint64_t journal_entry_seq(const struct journal_entry *e); /* 0: not in the file yet */
void journal_progress(struct journal_entry *e, uint64_t sent, uint64_t received);
/* Ends the entry, whose owner must not use it again (on_written is not called any more). open_seq is filled in. */
void journal_close(struct journal_entry *e, const struct record_close *close);

/* A record of its own (counts). Dropped when nothing can be written: false. */
bool journal_note(struct journal *j, uint64_t vm, enum record_type type, const void *record);
