#include "audit/index.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "audit/reader.h"
#include "codec/msg.h"

struct audit_index {
	const struct audit_index_sink *sink;
	void *user;
	bool loaded;
	struct msg_audit_head position, head;
	int fd; /* of the segment at position, or -1 */
	bool reading;
	struct audit_reader reader;
	uint64_t asked; /* a segment that was asked for and has not come, 0: none */
	int failed;	/* why it did not come, told once by the next step */
	uint64_t skipped;
	int64_t created_ns; /* of the segment at position; 0: not known yet */
};

struct audit_index *audit_index_create(const struct audit_index_sink *sink, void *user)
{
	struct audit_index *x = xcalloc(1, sizeof *x);

	*x = (struct audit_index){.sink = sink, .user = user, .fd = -1};
	return x;
}

static void drop_segment(struct audit_index *x)
{
	if (x->reading)
		audit_reader_finish(&x->reader);
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
	x->reading = false;
}

void audit_index_destroy(struct audit_index *x)
{
	if (!x)
		return;
	drop_segment(x);
	free(x);
}

void audit_index_head(struct audit_index *x, const struct msg_audit_head *head)
{
	x->head = *head;
}

void audit_index_status(const struct audit_index *x, struct audit_index_status *ret)
{
	*ret = (struct audit_index_status){x->position, x->head, x->skipped};
}

void audit_index_restart(struct audit_index *x)
{
	drop_segment(x);
	x->loaded = false;
	x->asked = 0;
	x->failed = 0;
	x->skipped = 0;
	x->created_ns = 0;
	x->position = (struct msg_audit_head){0}; /* a segment that is still to come is no answer any more */
}

static void go_to_next(struct audit_index *x)
{
	drop_segment(x);
	x->position.segment++;
	x->position.offset = 0;
	x->created_ns = 0;
}

void audit_index_segment(struct audit_index *x, uint64_t number, int fd, int code)
{
	if (number == x->asked)
		x->asked = 0;
	if (number != x->position.segment || x->fd >= 0) {
		if (fd >= 0)
			close(fd);
		return;
	}
	x->fd = fd;
	if (fd >= 0)
		return;
	if (code == -ENOENT && number < x->head.segment)
		go_to_next(x);
	else
		x->failed = code ? code : -EIO;
}

/* What is wrong with the segment at position will not become better, once it is written no more. */
static int give_up(struct audit_index *x, int code)
{
	if (x->position.segment >= x->head.segment)
		return code;
	x->skipped++;
	go_to_next(x);
	return 1;
}

/* 1: the segment can be read; 0: it has yet to come. */
static int begin_segment(struct audit_index *x)
{
	if (x->fd < 0 && !x->asked) {
		x->asked = x->position.segment;
		int r = x->sink->want(x->position.segment, x->user);
		if (r < 0) {
			x->asked = 0;
			return r;
		}
	}
	if (x->fd < 0)
		return 0;
	int r = audit_reader_open(x->fd, &x->reader);
	if (r == 0) {
		x->reading = true;
		r = x->reader.header.number != x->position.segment ? -EBADMSG :
								     audit_reader_seek(&x->reader, x->position.offset);
	}
	if (r == 0 && x->created_ns && x->created_ns != x->reader.header.created_ns) {
		drop_segment(x);
		return -ESTALE;
	}
	if (r == 0) {
		x->created_ns = x->reader.header.created_ns;
		return 1;
	}
	if (x->position.segment >= x->head.segment)
		drop_segment(x); /* asked for again */
	return give_up(x, r) < 0 ? r : 0;
}

static int put(struct audit_index *x, const struct segment_record *record)
{
	_Alignas(16) char space[MSG_RECORD_MAX];
	const struct wire_type *type = record_wire(record->type);

	if (!type || type->size > sizeof space || wire_decode(type, record->payload, space)) {
		x->skipped++;
		return 0;
	}
	return x->sink->put(record->seq, record->time_ns / 1000000, record->type, space, x->user);
}

/* Puts up to `most` records. *ret: as audit_reader_next's answer that ended it, 1 when there may be more. */
static int put_some(struct audit_index *x, unsigned most, struct msg_audit_head *at, int *ret)
{
	struct segment_record record;
	int r = 1;

	x->reader.limit = x->position.segment == x->head.segment ? x->head.offset : UINT64_MAX;
	while (most-- > 0 && (r = audit_reader_next(&x->reader, &record)) > 0) {
		int k = put(x, &record);
		if (k < 0)
			return k;
		at->seq = record.seq;
		at->offset = x->reader.offset + x->reader.record_size;
	}
	*ret = r;
	return 0;
}

/* One transaction. 1: there may be more in this segment; 0: its end; negative: as audit_reader_next, or of the sink. */
static int turn(struct audit_index *x, unsigned most, bool *ret_sink_failed)
{
	struct msg_audit_head at = x->position;
	int end = 0, r = x->sink->begin(x->user);

	*ret_sink_failed = true;
	if (r < 0)
		return r;
	r = put_some(x, most, &at, &end);
	if (r < 0 || at.offset == x->position.offset)
		x->sink->rollback(x->user);
	else
		r = x->sink->commit(&at, x->created_ns, x->user);
	if (r < 0) {
		drop_segment(x); /* read again from the position that holds */
		return r;
	}
	*ret_sink_failed = false;
	x->position = at;
	return end;
}

static int load(struct audit_index *x)
{
	int r = x->sink->position(&x->position, &x->created_ns, x->user);

	if (r < 0)
		return r;
	if (x->position.segment == 0)
		x->position = (struct msg_audit_head){.segment = 1};
	x->loaded = true;
	return 0;
}

int audit_index_step(struct audit_index *x, unsigned most)
{
	bool sink_failed;
	int r = x->loaded ? 0 : load(x);

	if (r < 0)
		return r;
	if (x->failed) {
		r = x->failed;
		x->failed = 0;
		return r;
	}
	if (x->head.segment == 0)
		return 0;
	if (x->position.segment > x->head.segment ||
	    (x->position.segment == x->head.segment && x->position.offset > x->head.offset))
		return -ESTALE;
	if (x->position.segment == x->head.segment && x->position.offset == x->head.offset)
		return 0;
	if (!x->reading) {
		uint64_t before = x->position.segment;
		r = begin_segment(x);
		if (r <= 0)
			return r < 0 ? r : x->position.segment != before;
	}
	r = turn(x, most, &sink_failed);
	if (r > 0 || (r < 0 && sink_failed))
		return r;
	if (r < 0)
		return give_up(x, r);
	if (x->position.segment == x->head.segment)
		return 0;
	go_to_next(x);
	return 1;
}
