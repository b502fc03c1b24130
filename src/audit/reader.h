#pragma once
/* Reading one segment of the journal through a descriptor, validating every byte: the journal may be torn, or have been
 * written by somebody else. */
#include "audit/segment.h"

struct audit_reader {
	int fd; /* borrowed */
	struct segment_header header;
	uint64_t offset; /* of the record that comes next */
	uint64_t limit;	 /* nothing is read past it; UINT64_MAX at first */
	uint64_t next_seq; /* 0: whichever comes */
	struct buf window;
	uint64_t window_offset;
	size_t record_size; /* of the one handed out last */
};

/* -ENODATA: not begun yet; -EBADMSG, -EPROTONOSUPPORT, -EIO. */
int audit_reader_open(int fd, struct audit_reader *ret);
void audit_reader_finish(struct audit_reader *r);
/* To a record's start, as another reader or msg_audit_head told it. offset 0: the first. -EINVAL: before the first. */
int audit_reader_seek(struct audit_reader *r, uint64_t offset);
/* 1 and a record (its payload is good until the next call); 0: nothing more (yet): end of what is written, limit, or end of
 * the file. -EBADMSG: what follows is damaged (the reader stays where it is); -EIO. */
int audit_reader_next(struct audit_reader *r, struct segment_record *ret);
