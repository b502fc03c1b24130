#include "audit/reader.h"

#include <errno.h>
#include <unistd.h>

#define WINDOW ((size_t)256 << 10) /* several of the largest records */

int audit_reader_open(int fd, struct audit_reader *ret)
{
	uint8_t bytes[SEGMENT_HEADER_SIZE];
	struct audit_reader r = {.fd = fd, .offset = SEGMENT_HEADER_SIZE, .limit = UINT64_MAX, .window = BUF_MAX(WINDOW)};
	ssize_t n = pread(fd, bytes, sizeof bytes, 0);

	if (n < 0)
		return -errno;
	if (n < (ssize_t)sizeof bytes)
		return n == 0 ? -ENODATA : -EBADMSG;
	int k = segment_header_decode(bytes, &r.header);
	if (k == 0)
		*ret = r;
	return k;
}

void audit_reader_finish(struct audit_reader *r)
{
	buf_finish(&r->window);
}

int audit_reader_seek(struct audit_reader *r, uint64_t offset)
{
	if (offset == 0)
		offset = SEGMENT_HEADER_SIZE;
	if (offset < SEGMENT_HEADER_SIZE || offset > INT64_MAX)
		return -EINVAL;
	r->offset = offset;
	r->record_size = 0;
	r->next_seq = 0;
	return 0;
}

/* What of the window lies at the offset and before the limit. */
static struct str in_view(const struct audit_reader *r)
{
	uint64_t end = r->window_offset + r->window.len;

	if (r->offset < r->window_offset || r->offset >= end)
		return STR_NONE;
	size_t n = (size_t)MIN(end - r->offset, r->limit > r->offset ? r->limit - r->offset : 0);
	return str_make(r->window.data + (r->offset - r->window_offset), n);
}

static int refill(struct audit_reader *r)
{
	buf_clear(&r->window);
	r->window_offset = r->offset;
	void *room = buf_reserve(&r->window, WINDOW);
	ssize_t n = pread(r->fd, room, WINDOW, (off_t)r->offset);
	if (n < 0)
		return -errno;
	buf_commit(&r->window, (size_t)n);
	return 0;
}

int audit_reader_next(struct audit_reader *r, struct segment_record *ret)
{
	struct segment_record record;
	bool fresh = false;

	r->offset += r->record_size;
	r->record_size = 0;
	if (r->offset >= r->limit)
		return 0;
	int n = segment_record_decode(in_view(r), &record);
	if (n == -EAGAIN || n == 0) {
		/* the end as it was when the window was read may have moved since */
		int k = refill(r);
		if (k)
			return k;
		fresh = true;
		n = segment_record_decode(in_view(r), &record);
	}
	if (n == -EAGAIN)
		return in_view(r).len == 0 && fresh ? 0 : -EBADMSG;
	if (n <= 0)
		return n;
	if (record.seq < r->header.first_seq || (r->next_seq && record.seq != r->next_seq))
		return -EBADMSG;
	r->record_size = (size_t)n;
	r->next_seq = record.seq + 1;
	*ret = record;
	return 1;
}
