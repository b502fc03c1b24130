#pragma once
/* What iron-audit does with its channels: batches of records in, acknowledgements out, and to iron-control how far the
 * journal is. Nothing that is in the journal is told to anyone.
 *
 * Who may write what: an egress worker opens, progress, closes and counts of its own workspace; iron-control general events.
 * A progress or close of an open that is not the writer's is recorded without its number. Of a VM over its budget
 * (audit/budget.h) nothing is taken: a batch that holds some of its records is answered -EDQUOT and the VM's id, and what
 * else was in it is taken when it is sent again without.
 *
 * While the next segment cannot be made, workers are refused (their guests stop) and what is left of the current one is
 * iron-control's: a full disk stops guests before it stops the record.
 *
 * When a writer's channel closes, what it left open is closed as aborted. Opens of an earlier life of iron-audit are adopted
 * by the worker of their workspace when it says something of them, and else closed as aborted two minutes after the
 * start: a worker tells the progress of a connection every 30 seconds. */
#include <event2/event.h>
#include <stdint.h>

#include "audit/journal.h"
#include "codec/msg_broker.h"

#define AUDIT_OPEN_MAX 65536	   /* of one writer */
#define AUDIT_OPEN_TOTAL_MAX 1048576
#define AUDIT_BATCH_RECORDS_MAX 4096
#define AUDIT_ORPHAN_MS 120000

struct audit_server;

struct audit_server_options {
	struct audit_journal_options journal;
	/* 0: AUDIT_ORPHAN_MS, BUDGET_BURST_BYTES, BUDGET_BYTES_PER_S */
	unsigned orphan_ms;
	uint64_t budget_burst_bytes, budget_bytes_per_s;
};

/* dirfd is borrowed. Recovers the journal, and records that it was. */
int audit_server_create(struct event_base *base, int dirfd, const struct audit_server_options *options,
			struct audit_server **ret, struct audit_recovery *ret_recovery, struct error *reterr);
void audit_server_destroy(struct audit_server *s);
/* Owns fd. A new channel to the same replaces the old, whose opens are closed. -EINVAL: not a role that writes. */
int audit_server_peer(struct audit_server *s, enum role role, uint64_t id, int fd);
