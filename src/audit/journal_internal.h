#pragma once
/* What the writer's halves share: journal.c appends on the loop's thread, journal_disk.c waits for the disk on its own.
 * Segments' descriptors are closed by the disk thread alone, so neither can pull one away from under the other. */
#include <pthread.h>

#include "audit/journal.h"
#include "base/vec.h"

struct segment_file {
	int fd;
	uint64_t number;
	uint64_t length; /* once it is retired: where its records end */
};

struct audit_journal {
	/* the loop's */
	int dirfd;
	struct audit_journal_options options;
	struct segment_file current;
	uint64_t offset, next_seq;
	bool broken; /* nothing more may be appended to the current segment */
	struct buf frames;
	int wake_fd;
	pthread_t thread;
	bool running;

	pthread_mutex_t lock; /* for all below */
	pthread_cond_t work, made;
	bool stop, want_sync, dirty;
	uint64_t dirty_since_ms;
	struct segment_file appending; /* what the disk thread syncs */
	VEC(struct segment_file) retired;
	uint64_t written_seq, synced_seq;
	int sync_failed;
	uint64_t sync_failed_seq;
	bool poisoned; /* a sync failed: the current segment's pages may be gone although they read well */
	struct segment_file next; /* fd -1: not made yet */
	uint64_t next_number;
	int make_error;
	uint64_t make_again_ms;
};

/* A segment of that number: preallocated, zero, its name and size on the disk. */
int segment_file_make(int dirfd, uint64_t number, uint64_t bytes, struct segment_file *ret);
int segment_file_begin(const struct segment_file *f, uint64_t first_seq);

/* The disk thread. */
int disk_start(struct audit_journal *j);
void disk_stop(struct audit_journal *j);

/* journal_recover.c: what is there. *ret_next: the number of the segment to begin. */
int journal_recover(int dirfd, audit_journal_replay *replay, void *user, struct audit_recovery *ret, uint64_t *ret_next,
		    struct error *reterr);
