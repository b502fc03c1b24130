#pragma once
/* Tails the journal into an index, from segments that somebody opens for it, up to where iron-audit says it has written.
 * It knows neither database nor loop: iron-control gives it a sink, news, descriptors and turns.
 *
 *	on msg_audit_head            audit_index_head, then turns
 *	sink.want(number)            ask irond (msg_segment_open); then audit_index_segment, then turns
 *	a turn                       audit_index_step; 1: again soon (event_active), 0: nothing to do until there is news,
 *	                             negative: the sink or the disk failed, again after a second
 *
 * The sink's calls fit store.h: begin store_begin(NORMAL), put store_index_put, commit store_index_advance and
 * store_commit. A record is put again when a commit was lost, so put must not mind. */
#include <stdint.h>

#include "codec/msg_egress.h"
#include "codec/record.h"

struct audit_index_sink {
	/* Once, at the first step. created_ns: when the segment at the position was begun, by its header: which journal it is of */
	int (*position)(struct msg_audit_head *ret, int64_t *ret_created_ns, void *user);
	int (*begin)(void *user);
	/* record: the decoded struct of `type`. Only types that record_wire knows. */
	int (*put)(uint64_t seq, int64_t time_ms, uint16_t type, const void *record, void *user);
	int (*commit)(const struct msg_audit_head *position, int64_t created_ns, void *user);
	void (*rollback)(void *user); /* after begin, instead of commit */
	int (*want)(uint64_t segment, void *user); /* may answer at once, from inside */
};

struct audit_index;

struct audit_index *audit_index_create(const struct audit_index_sink *sink, void *user);
void audit_index_destroy(struct audit_index *x);

void audit_index_head(struct audit_index *x, const struct msg_audit_head *head);
/* The answer to sink.want: a descriptor, owned from now on, or -1 and why (-ENOENT: it is gone, the next one is read). */
void audit_index_segment(struct audit_index *x, uint64_t number, int fd, int code);
/* At most `most` records, in one transaction of the sink. -ESTALE: the position is past the journal's end, or
 * in a segment of another time, so the index is that of another journal: empty the sink and restart. */
int audit_index_step(struct audit_index *x, unsigned most);
/* Anew from the journal's start (the sink has been emptied). */
void audit_index_restart(struct audit_index *x);

/* What is indexed, and how much of the journal could not be read (segments given up half-way, records that do not decode). */
struct audit_index_status {
	struct msg_audit_head position, head;
	uint64_t skipped;
};
void audit_index_status(const struct audit_index *x, struct audit_index_status *ret);
