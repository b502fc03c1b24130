#pragma once
/* The writer of the audit journal: a directory of segments (audit/segment.h), of which one is appended to.
 *
 * What was appended is in the file: it survives the process. It is on the disk after at most sync_interval_ms, or as soon
 * as it can be when somebody asks; a thread does that, and everything else that may wait for a disk: it makes and
 * preallocates the next segment, so that a full disk is noticed before a record has no room. An append waits for it only
 * when a segment is full and the next is not made yet.
 *
 * Opening looks at the last segment, keeps what is whole, cuts off what is not, and begins a new segment: no segment is
 * written by two processes. The new one's first sequence is the next multiple of JOURNAL_SEQ_STEP, so that a number that
 * was told to somebody and then lost with the power is never given to another record. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit/segment.h"
#include "base/error.h"
#include "codec/msg_egress.h"

#define JOURNAL_SEQ_STEP ((uint64_t)1 << 20)

struct audit_journal;

#define JOURNAL_SEGMENT_MIN ((uint64_t)768 << 10)
struct audit_journal_options {
	uint64_t segment_bytes; /* raised to JOURNAL_SEGMENT_MIN */
	unsigned sync_interval_ms;
};

/* Called during open for each record that is still in the journal's last segments, in order (bounded: the last
 * JOURNAL_REPLAY_BYTES): so that the caller knows what was open. */
#define JOURNAL_REPLAY_BYTES ((uint64_t)128 << 20)
typedef void audit_journal_replay(const struct segment_record *record, void *user);

struct audit_recovery {
	uint64_t last_seq;  /* 0: an empty journal */
	uint64_t segment;   /* the last one, 0: none */
	uint64_t cut_bytes; /* what followed the last whole record in it and was not zero */
};

/* dirfd is borrowed; it must stay open. Starts the thread: enter the sandbox before. */
int audit_journal_open(int dirfd, const struct audit_journal_options *options, audit_journal_replay *replay, void *user,
		       struct audit_journal **ret, struct audit_recovery *ret_recovery, struct error *reterr);
/* Syncs, and joins the thread. NULL allowed. */
void audit_journal_close(struct audit_journal *j);

struct audit_entry {
	uint16_t type;
	struct str payload;
};

/* All or nothing, in one write. The i-th entry gets sequence *ret_first_seq + i. -ENOSPC: no room for the next segment;
 * -EIO and others: the disk; -EMSGSIZE. After an error the next call tries again. Together at most JOURNAL_BATCH_MAX. */
#define JOURNAL_BATCH_MAX ((size_t)512 << 10) /* with frames: the largest message of the smallest records */
int audit_journal_append(struct audit_journal *j, const struct audit_entry *entries, size_t n, uint64_t *ret_first_seq);

/* 0: all is well. Otherwise why the next segment could not be made, or a sync failed: what can stop should stop. It
 * becomes 0 again by itself. */
int audit_journal_health(struct audit_journal *j);

/* What is written: the end of the last record. */
void audit_journal_head(const struct audit_journal *j, struct msg_audit_head *ret);

/* Everything appended so far is to be synced now. */
void audit_journal_sync(struct audit_journal *j);
/* Every record up to this is on the disk, but for those of a sync that failed meanwhile: ask for those first. */
uint64_t audit_journal_synced_seq(struct audit_journal *j);
/* The last failed sync since the last call: 0 or its errno. Whoever still waits for a record up to *ret_up_to_seq is to be
 * told so; it may be on the disk or not. The journal goes on in a new segment. */
int audit_journal_sync_failed(struct audit_journal *j, uint64_t *ret_up_to_seq);
/* Becomes readable when synced_seq, sync_failed or health changed; read by audit_journal_wakeup. */
int audit_journal_fd(const struct audit_journal *j);
void audit_journal_wakeup(struct audit_journal *j);
