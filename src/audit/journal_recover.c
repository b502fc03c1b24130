/* What a journal holds when it is opened: which segments, the last whole record, and what is behind it. Nothing is repaired:
 * a damaged segment stays as it is for whoever wants to look at it, and a new one is begun after it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/journal_internal.h"
#include "audit/reader.h"

/* A segment that was begun. first_seq 0: its header cannot be read. */
struct found {
	uint64_t number, first_seq, bytes;
};

typedef VEC(struct found) found_list;

static int open_segment(int dirfd, uint64_t number, int flags)
{
	char name[SEGMENT_NAME_SIZE];

	segment_name_format(number, name);
	int fd = openat(dirfd, name, flags | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int look_at(int dirfd, uint64_t number, found_list *list)
{
	_cleanup_close_ int fd = open_segment(dirfd, number, O_RDONLY);
	struct audit_reader reader = {0};
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	int r = audit_reader_open(fd, &reader);
	if (r == -ENODATA)
		return 0; /* made ready and never begun */
	if (r && r != -EBADMSG)
		return r;
	if (r == 0 && reader.header.number != number)
		r = -EBADMSG;
	VEC_PUSH(list, ((struct found){.number = number, .first_seq = r ? 0 : reader.header.first_seq,
				       .bytes = (uint64_t)st.st_size}));
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static int list_segments(int dirfd, found_list *list)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	uint64_t number;
	int r = 0;

	if (!dir) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (entry = readdir(dir)))
		if (segment_name_parse(str_of(entry->d_name), &number) == 0)
			r = look_at(dirfd, number, list);
	closedir(dir);
	if (r == 0 && list->n)
		qsort(list->v, list->n, sizeof *list->v, by_number);
	return r;
}

/* Bytes from `offset` to the last that is not zero. */
static int count_rest(int fd, uint64_t offset, uint64_t *ret)
{
	_cleanup_free_ uint8_t *bytes = xmalloc(65536);
	uint64_t rest = 0, at = offset;
	ssize_t n;

	while ((n = pread(fd, bytes, 65536, (off_t)at)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			if (bytes[i])
				rest = at + (uint64_t)i + 1 - offset;
		at += (uint64_t)n;
	}
	*ret = rest;
	return n < 0 ? -errno : 0;
}

/* The records of one segment that count: below `before`. */
static int replay_segment(int dirfd, const struct found *s, uint64_t before, audit_journal_replay *replay, void *user,
			  struct audit_recovery *recovery)
{
	_cleanup_close_ int fd = open_segment(dirfd, s->number, O_RDWR);
	_cleanup_(audit_reader_finish) struct audit_reader reader = {0};
	struct segment_record record;

	if (fd < 0)
		return fd;
	int r = audit_reader_open(fd, &reader);
	while (r >= 0 && (r = audit_reader_next(&reader, &record)) > 0 && record.seq < before) {
		recovery->last_seq = record.seq;
		if (replay)
			replay(&record, user);
	}
	if (r < 0 && r != -EBADMSG)
		return r;
	if (before != UINT64_MAX)
		return 0;
	r = count_rest(fd, reader.offset, &recovery->cut_bytes);
	/* what was preallocated and not needed */
	if (r == 0 && recovery->cut_bytes == 0 && ftruncate(fd, (off_t)reader.offset) < 0)
		r = -errno;
	return r;
}

static uint64_t first_seq_behind(const found_list *list, size_t i)
{
	while (++i < list->n)
		if (list->v[i].first_seq)
			return list->v[i].first_seq;
	return UINT64_MAX;
}

static int replay_all(int dirfd, const found_list *list, audit_journal_replay *replay, void *user,
		      struct audit_recovery *recovery)
{
	uint64_t bytes = 0;
	size_t i = list->n;
	int r = 0;

	while (i > 0 && (i == list->n || bytes + list->v[i - 1].bytes <= JOURNAL_REPLAY_BYTES))
		bytes += list->v[--i].bytes;
	for (; r == 0 && i < list->n; i++) {
		if (!list->v[i].first_seq)
			continue;
		recovery->segment = list->v[i].number;
		recovery->last_seq = MAX(recovery->last_seq, list->v[i].first_seq - 1);
		r = replay_segment(dirfd, &list->v[i], first_seq_behind(list, i), replay, user, recovery);
	}
	return r;
}

int journal_recover(int dirfd, audit_journal_replay *replay, void *user, struct audit_recovery *ret, uint64_t *ret_next,
		    struct error *reterr)
{
	struct audit_recovery recovery = {0};
	found_list list = {0};
	int r = list_segments(dirfd, &list);

	if (r == 0)
		r = replay_all(dirfd, &list, replay, user, &recovery);
	if (r == 0)
		*ret_next = list.n ? list.v[list.n - 1].number + 1 : 1;
	VEC_FINISH(&list);
	if (r)
		return error_set(reterr, r, "journal: cannot be read: %s", strerror(-r));
	*ret = recovery;
	return 0;
}
