#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/budget.h"
#include "audit/crc32c.h"
#include "audit/index.h"
#include "audit/journal.h"
#include "audit/openset.h"
#include "audit/reader.h"
#include "base/clock.h"
#include "base/vec.h"
#include "codec/record.h"

#define SEGMENT_BYTES JOURNAL_SEGMENT_MIN

struct world {
	char path[40];
	int dir;
};

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof *w);

	snprintf(w->path, sizeof w->path, "/tmp/iron-audit-test-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	w->dir = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = w;
	return 0;
}

static void empty_dir(int dirfd)
{
	DIR *d = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *e;

	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd, e->d_name, 0);
	closedir(d);
}

static int teardown(void **state)
{
	struct world *w = *state;

	empty_dir(w->dir);
	close(w->dir);
	rmdir(w->path);
	free(w);
	return 0;
}

/* --- the format --- */

static void test_crc(void **state)
{
	char bytes[1000];

	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283); /* RFC 3720's check value */
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)(i * 7);
	for (size_t n = 0; n < sizeof bytes; n += 13) {
		assert_int_equal(crc32c(0, bytes, n), crc32c_table(0, bytes, n));
		assert_int_equal(crc32c(crc32c(0, bytes, n / 3), bytes + n / 3, n - n / 3), crc32c(0, bytes, n));
	}
}

static void test_names(void **state)
{
	char name[SEGMENT_NAME_SIZE];
	uint64_t n;

	segment_name_format(1, name);
	assert_string_equal(name, "00000000000000000001.seg");
	assert_int_equal(segment_name_parse(str_of(name), &n), 0);
	assert_int_equal(n, 1);
	segment_name_format(UINT64_MAX, name);
	assert_int_equal(segment_name_parse(str_of(name), &n), 0);
	assert_true(n == UINT64_MAX);
	const char *const bad[] = {"", "1.seg", "00000000000000000000.seg", "99999999999999999999.seg", "00000000000000000001.sex",
				   "0000000000000000000a.seg", "00000000000000000001.seg0"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(segment_name_parse(str_of(bad[i]), &n), -EINVAL);
}

static void test_every_bit_of_a_record_counts(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct segment_record r = {.seq = 5, .time_ns = 77, .type = RECORD_DNS, .payload = STR("hello")}, got;

	assert_int_equal(segment_record_encode(&r, &b), 0);
	assert_int_equal(b.len, SEGMENT_FRAME_SIZE + 8);
	assert_int_equal(segment_record_decode(buf_str(&b), &got), (int)b.len);
	assert_true(got.seq == 5 && got.time_ns == 77 && got.type == RECORD_DNS && str_eq(got.payload, r.payload));
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(segment_record_decode(str_make(b.data, i), &got), -EAGAIN);
	for (size_t bit = 0; bit < b.len * 8; bit++) {
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_true(segment_record_decode(buf_str(&b), &got) < 0);
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	r.payload = STR_NONE;
	assert_int_equal(segment_record_encode(&r, &b), -EINVAL);
	_cleanup_free_ char *large = xcalloc(1, SEGMENT_PAYLOAD_MAX + 1);
	r.payload = str_make(large, SEGMENT_PAYLOAD_MAX + 1);
	assert_int_equal(segment_record_encode(&r, &b), -EMSGSIZE);
}

/* --- writing and recovering --- */

static struct audit_journal *open_journal(struct world *w, struct audit_recovery *ret)
{
	struct audit_journal_options o = {.segment_bytes = SEGMENT_BYTES, .sync_interval_ms = 5};
	struct audit_journal *j = NULL;
	struct audit_recovery recovery;
	struct error error = {0};

	if (audit_journal_open(w->dir, &o, NULL, NULL, &j, ret ? ret : &recovery, &error))
		fail_msg("%s", error.text);
	return j;
}

/* Record i's payload: its number, in a length that depends on it. */
static struct str payload_of(uint64_t i, char *space, size_t size)
{
	memset(space, 'a' + (int)(i % 26), size);
	int n = snprintf(space, size, "%llu", (unsigned long long)i);
	space[n] = ' ';
	return str_make(space, 20 + i * 13 % (size - 20));
}

static uint64_t append(struct audit_journal *j, uint64_t i)
{
	char space[400];
	struct audit_entry e = {RECORD_EVENT, payload_of(i, space, sizeof space)};
	uint64_t seq = 0;

	assert_int_equal(audit_journal_append(j, &e, 1, &seq), 0);
	return seq;
}

static void wait_synced(struct audit_journal *j, uint64_t seq)
{
	uint64_t until = mono_ms() + 10000, up_to;

	audit_journal_sync(j);
	while (audit_journal_synced_seq(j) < seq) {
		struct pollfd p = {.fd = audit_journal_fd(j), .events = POLLIN};
		assert_true(mono_ms() < until);
		poll(&p, 1, 100);
		audit_journal_wakeup(j);
		assert_int_equal(audit_journal_sync_failed(j, &up_to), 0);
	}
}

static int open_segment(struct world *w, uint64_t number, int flags)
{
	char name[SEGMENT_NAME_SIZE];

	segment_name_format(number, name);
	return openat(w->dir, name, flags | O_CLOEXEC, 0600);
}

/* Reads segments from `first` on and expects records `from` to `to`, each whole. Returns how many segments held them. */
static unsigned expect_records(struct world *w, uint64_t first, uint64_t from, uint64_t to)
{
	unsigned segments = 0;

	for (uint64_t number = first;; number++) {
		_cleanup_close_ int fd = open_segment(w, number, O_RDONLY);
		_cleanup_(audit_reader_finish) struct audit_reader r = {0};
		struct segment_record record;
		char space[400];
		int k;
		if (fd < 0 || audit_reader_open(fd, &r) == -ENODATA)
			break;
		while ((k = audit_reader_next(&r, &record)) > 0) {
			assert_true(str_eq(record.payload, payload_of(from, space, sizeof space)));
			from++;
		}
		assert_true(k == 0 || k == -EBADMSG);
		segments++;
	}
	assert_int_equal(from, to + 1);
	return segments;
}

static void test_append_and_rotate(void **state)
{
	struct world *w = *state;
	struct audit_journal *j = open_journal(w, NULL);
	struct msg_audit_head head;
	uint64_t seq = 0;

	for (uint64_t i = 1; i <= 8000; i++) {
		seq = append(j, i);
		assert_int_equal(seq, i);
	}
	wait_synced(j, seq);
	audit_journal_head(j, &head);
	assert_true(head.segment >= 3 && head.seq == 8000 && head.offset <= SEGMENT_BYTES);
	assert_int_equal(audit_journal_health(j), 0);
	assert_int_equal(expect_records(w, 1, 1, 8000), head.segment);
	audit_journal_close(j);
	/* sealed ones are cut to what they hold */
	_cleanup_close_ int fd = open_segment(w, 1, O_RDONLY);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((uint64_t)st.st_size < SEGMENT_BYTES);
}

static void test_batches_are_whole(void **state)
{
	struct world *w = *state;
	struct audit_journal *j = open_journal(w, NULL);
	static char large[SEGMENT_PAYLOAD_MAX + 1];
	struct audit_entry e[3] = {{RECORD_EVENT, STR("a")}, {RECORD_EVENT, STR("b")}, {RECORD_EVENT, {large, sizeof large}}};
	uint64_t seq = 0;

	memset(large, 'x', sizeof large);
	assert_int_equal(audit_journal_append(j, e, 3, &seq), -EMSGSIZE);
	assert_int_equal(audit_journal_append(j, e, 0, &seq), -EINVAL);
	assert_int_equal(audit_journal_append(j, e, 2, &seq), 0);
	assert_int_equal(seq, 1);
	struct msg_audit_head head;
	audit_journal_head(j, &head);
	assert_int_equal(head.seq, 2);
	audit_journal_close(j);
}

static void test_numbers_are_never_given_twice(void **state)
{
	struct world *w = *state;
	struct audit_recovery recovery;
	uint64_t last = 0;

	for (int life = 0; life < 4; life++) {
		struct audit_journal *j = open_journal(w, &recovery);
		assert_int_equal(recovery.last_seq, last);
		assert_int_equal(recovery.cut_bytes, 0);
		uint64_t seq = append(j, 1);
		assert_true(life == 0 ? seq == 1 : seq > last && seq % JOURNAL_SEQ_STEP == 0);
		last = seq;
		audit_journal_close(j);
	}
}

/* A journal of five records, the fifth torn at each of its bytes: cut off, zero from there on, or garbage from there on. */
static void tear(struct world *w, const struct buf *segment, size_t at, int how)
{
	_cleanup_close_ int fd = open_segment(w, 1, O_RDWR | O_CREAT);
	char junk[64];

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, segment->data, at, 0), (ssize_t)at);
	if (how == 1)
		assert_int_equal(ftruncate(fd, (off_t)SEGMENT_BYTES), 0);
	memset(junk, 0xa5, sizeof junk);
	if (how == 2)
		assert_int_equal(pwrite(fd, junk, sizeof junk, (off_t)at), (ssize_t)sizeof junk);
}

static void check_torn(struct world *w, const struct buf *segment, size_t start, size_t at, int how)
{
	struct audit_recovery recovery;
	uint64_t expect = at == segment->len ? 5 : 4;

	empty_dir(w->dir);
	tear(w, segment, at, how);
	struct audit_journal *j = open_journal(w, &recovery);
	/* the padding behind the payload is zero, and zero is what a torn tail may end in */
	if (how == 1 && recovery.last_seq == 5)
		expect = 5;
	assert_int_equal(recovery.last_seq, expect);
	assert_int_equal(recovery.segment, 1);
	assert_true(how == 2 ? recovery.cut_bytes > 0 : expect == 5 || at == start || recovery.cut_bytes <= at - start);
	uint64_t seq = append(j, expect + 1);
	assert_int_equal(seq, JOURNAL_SEQ_STEP);
	wait_synced(j, seq);
	assert_int_equal(expect_records(w, 1, 1, expect + 1), 2);
	audit_journal_close(j);
}

static void test_torn_at_every_byte(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf segment = {0};
	struct audit_journal *j = open_journal(w, NULL);
	struct msg_audit_head before, after;

	for (uint64_t i = 1; i <= 4; i++)
		append(j, i);
	audit_journal_head(j, &before);
	append(j, 5);
	audit_journal_head(j, &after);
	audit_journal_close(j);
	_cleanup_close_ int fd = open_segment(w, 1, O_RDONLY);
	assert_int_equal(pread(fd, buf_reserve(&segment, after.offset), after.offset, 0), (ssize_t)after.offset);
	buf_commit(&segment, after.offset);
	for (size_t at = before.offset; at <= after.offset; at++)
		for (int how = 0; how < 3; how++)
			check_torn(w, &segment, before.offset, at, how);
}

static void test_damage_is_kept_and_passed(void **state)
{
	struct world *w = *state;
	struct audit_recovery recovery;
	struct audit_journal *j = open_journal(w, NULL);
	struct msg_audit_head head;

	for (uint64_t i = 1; i <= 4; i++)
		append(j, i);
	audit_journal_head(j, &head);
	audit_journal_close(j);
	_cleanup_close_ int fd = open_segment(w, 1, O_RDWR);
	struct stat st;
	assert_int_equal(pwrite(fd, "X", 1, SEGMENT_HEADER_SIZE + 70), 1); /* in the first record */
	j = open_journal(w, &recovery);
	assert_int_equal(recovery.last_seq, 0);
	size_t written = head.offset - SEGMENT_HEADER_SIZE; /* up to the last byte that is not zero: the padding is */
	assert_true(recovery.cut_bytes > written - 8 && recovery.cut_bytes <= written);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((uint64_t)st.st_size >= head.offset); /* for whoever wants to look */
	audit_journal_close(j);
}

static void test_damaged_header(void **state)
{
	struct world *w = *state;
	struct audit_recovery recovery;
	struct audit_journal *j = open_journal(w, NULL);
	struct msg_audit_head head;

	append(j, 1);
	audit_journal_close(j);
	_cleanup_close_ int fd = open_segment(w, 2, O_RDWR | O_CREAT); /* made ready; its header torn */
	assert_int_equal(pwrite(fd, "IRONSE", 6, 0), 6);
	j = open_journal(w, &recovery);
	assert_int_equal(recovery.last_seq, 1);
	audit_journal_head(j, &head);
	assert_int_equal(head.segment, 3);
	audit_journal_close(j);
}

static void test_a_made_segment_is_emptied(void **state)
{
	struct world *w = *state;
	struct audit_journal *j = open_journal(w, NULL);
	_cleanup_(buf_finish) struct buf stale = {0};
	struct segment_record record = {.seq = JOURNAL_SEQ_STEP + 1, .type = RECORD_EVENT, .payload = STR("stale")};

	append(j, 1);
	audit_journal_close(j);
	/* its header did not reach the disk, a record behind the one that will be written did */
	_cleanup_close_ int fd = open_segment(w, 2, O_RDWR | O_CREAT);
	assert_int_equal(segment_record_encode(&record, &stale), 0);
	char space[400];
	size_t first = SEGMENT_FRAME_SIZE + (payload_of(2, space, sizeof space).len + 7) / 8 * 8;
	assert_int_equal(pwrite(fd, stale.data, stale.len, (off_t)(SEGMENT_HEADER_SIZE + first)), (ssize_t)stale.len);
	j = open_journal(w, NULL);
	assert_int_equal(append(j, 2), JOURNAL_SEQ_STEP);
	assert_int_equal(expect_records(w, 1, 1, 2), 2);
	audit_journal_close(j);
}

/* --- the reader on a segment that grows --- */

static void test_reader_follows(void **state)
{
	struct world *w = *state;
	struct audit_journal *j = open_journal(w, NULL);
	_cleanup_close_ int fd = open_segment(w, 1, O_RDONLY);
	_cleanup_(audit_reader_finish) struct audit_reader r = {0};
	struct segment_record record;
	struct msg_audit_head head;

	assert_int_equal(audit_reader_open(fd, &r), 0);
	assert_int_equal(audit_reader_next(&r, &record), 0);
	for (uint64_t i = 1; i <= 300; i++) {
		append(j, i);
		assert_int_equal(audit_reader_next(&r, &record), 1);
		assert_int_equal(record.seq, i);
		assert_int_equal(audit_reader_next(&r, &record), 0);
	}
	audit_journal_head(j, &head);
	assert_int_equal(r.offset, head.offset);
	r.limit = head.offset;
	append(j, 301);
	assert_int_equal(audit_reader_next(&r, &record), 0);
	r.limit = head.offset + 10;
	assert_int_equal(audit_reader_next(&r, &record), -EBADMSG); /* a limit within a record */
	assert_int_equal(audit_reader_seek(&r, 5), -EINVAL);
	assert_int_equal(audit_reader_seek(&r, 0), 0);
	r.limit = UINT64_MAX;
	assert_int_equal(audit_reader_next(&r, &record), 1);
	assert_int_equal(record.seq, 1);
	audit_journal_close(j);
}

/* --- the index --- */

struct sink {
	struct world *w;
	struct audit_index *index;
	struct msg_audit_head kept, at;
	int64_t kept_created;
	VEC(uint64_t) kept_seqs, seqs;
	int fail_put, fail_commit;
	bool later; /* segments come after the step, not within it */
	uint64_t wanted, missing;
};

static int sink_position(struct msg_audit_head *ret, int64_t *ret_created_ns, void *user)
{
	*ret = ((struct sink *)user)->kept;
	*ret_created_ns = ((struct sink *)user)->kept_created;
	return 0;
}

static int sink_begin(void *user)
{
	return 0;
}

static int sink_put(uint64_t seq, int64_t time_ms, uint16_t type, const void *record, void *user)
{
	struct sink *s = user;

	if (s->fail_put && --s->fail_put == 0)
		return -ENOSPC;
	assert_int_equal(type, RECORD_PROGRESS);
	assert_int_equal(((const struct record_progress *)record)->bytes_sent, 5);
	assert_true(time_ms > 1600000000000);
	VEC_PUSH(&s->seqs, seq);
	return 0;
}

static int sink_commit(const struct msg_audit_head *position, int64_t created_ns, void *user)
{
	struct sink *s = user;
	bool fails = s->fail_commit && --s->fail_commit == 0;

	for (size_t i = 0; !fails && i < s->seqs.n; i++)
		VEC_PUSH(&s->kept_seqs, s->seqs.v[i]);
	s->seqs.n = 0;
	if (fails)
		return -EIO;
	s->kept = *position;
	s->kept_created = created_ns;
	return 0;
}

static void sink_rollback(void *user)
{
	((struct sink *)user)->seqs.n = 0;
}

static void hand_over(struct sink *s, uint64_t number)
{
	int fd = number == s->missing ? -1 : open_segment(s->w, number, O_RDONLY);

	audit_index_segment(s->index, number, fd, fd < 0 ? -ENOENT : 0);
}

static int sink_want(uint64_t segment, void *user)
{
	struct sink *s = user;

	if (s->later)
		s->wanted = segment;
	else
		hand_over(s, segment);
	return 0;
}

static const struct audit_index_sink sink_calls = {sink_position, sink_begin, sink_put, sink_commit, sink_rollback, sink_want};

static void sink_finish(struct sink *s)
{
	audit_index_destroy(s->index);
	VEC_FINISH(&s->seqs);
	VEC_FINISH(&s->kept_seqs);
}

static void append_progress(struct audit_journal *j, unsigned n)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct record_progress p = {.open_seq = 1, .bytes_sent = 5};
	uint64_t seq;

	wire_encode(&record_progress_wire, &p, &b);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(audit_journal_append(j, &(struct audit_entry){RECORD_PROGRESS, buf_str(&b)}, 1, &seq), 0);
}

/* Until there is nothing more, with errors passed over: the next step goes on. */
static void run_index(struct sink *s, struct audit_journal *j)
{
	struct msg_audit_head head;
	unsigned idle = 0;

	audit_journal_head(j, &head);
	audit_index_head(s->index, &head);
	for (unsigned i = 0; i < 10000 && idle < 3; i++) {
		int r = audit_index_step(s->index, 50);
		idle = r == 0 ? idle + 1 : 0;
		if (s->wanted) {
			hand_over(s, s->wanted);
			s->wanted = 0;
		}
	}
	assert_int_equal(idle, 3);
}

static void expect_indexed(const struct sink *s, size_t n)
{
	assert_int_equal(s->kept_seqs.n, n);
	for (size_t i = 1; i < n; i++)
		assert_true(s->kept_seqs.v[i] > s->kept_seqs.v[i - 1]);
}

static void test_index_tails(void **state)
{
	struct sink s = {.w = *state, .later = true};
	struct audit_journal *j = open_journal(s.w, NULL);
	struct audit_index_status status;

	s.index = audit_index_create(&sink_calls, &s);
	run_index(&s, j); /* nothing yet */
	append_progress(j, 100);
	run_index(&s, j);
	expect_indexed(&s, 100);
	append_progress(j, 20000); /* over several segments */
	run_index(&s, j);
	expect_indexed(&s, 20100);
	assert_true(s.kept.segment >= 3 && s.kept.seq == 20100);
	/* another process of iron-control goes on where the position says */
	audit_index_destroy(s.index);
	s.index = audit_index_create(&sink_calls, &s);
	append_progress(j, 7);
	run_index(&s, j);
	expect_indexed(&s, 20107);
	audit_index_status(s.index, &status);
	assert_true(status.skipped == 0 && status.position.seq == 20107);
	audit_journal_close(j);
	/* and over a new life of iron-audit */
	j = open_journal(s.w, NULL);
	append_progress(j, 5);
	run_index(&s, j);
	expect_indexed(&s, 20112);
	/* all of it again, into an empty sink */
	s.kept_seqs.n = 0;
	s.kept = (struct msg_audit_head){0};
	s.kept_created = 0;
	audit_index_restart(s.index);
	run_index(&s, j);
	expect_indexed(&s, 20112);
	audit_journal_close(j);
	sink_finish(&s);
}

/* Power went after the index's commit and before the journal's sync: the index is ahead of what is left of the journal, and
 * what comes next has other numbers. */
static void test_index_ahead_of_the_journal(void **state)
{
	struct sink s = {.w = *state};
	struct audit_journal *j = open_journal(s.w, NULL);
	struct audit_index_status status;

	s.index = audit_index_create(&sink_calls, &s);
	append_progress(j, 100);
	run_index(&s, j);
	audit_journal_close(j);
	_cleanup_close_ int fd = open_segment(s.w, 1, O_RDWR);
	assert_int_equal(ftruncate(fd, SEGMENT_HEADER_SIZE + 90 * (SEGMENT_FRAME_SIZE + 24)), 0);
	j = open_journal(s.w, NULL);
	append_progress(j, 5);
	run_index(&s, j);
	expect_indexed(&s, 105);
	audit_index_status(s.index, &status);
	assert_true(status.skipped == 0 && status.position.seq == JOURNAL_SEQ_STEP + 4);
	audit_journal_close(j);
	sink_finish(&s);
}

static void test_index_failures(void **state)
{
	struct sink s = {.w = *state};
	struct audit_journal *j = open_journal(s.w, NULL);

	s.index = audit_index_create(&sink_calls, &s);
	append_progress(j, 15000);
	for (int i = 1; i < 40; i++) {
		s.fail_put = i * 7;
		s.fail_commit = i % 5 + 1;
		run_index(&s, j);
	}
	s.fail_put = s.fail_commit = 0;
	run_index(&s, j);
	expect_indexed(&s, 15000); /* each once, although some were put more than once */
	audit_journal_close(j);
	sink_finish(&s);
}

static void test_index_passes_damage(void **state)
{
	struct sink s = {.w = *state};
	struct audit_journal *j = open_journal(s.w, NULL);
	struct audit_index_status status;

	s.index = audit_index_create(&sink_calls, &s);
	append_progress(j, 30000);
	_cleanup_close_ int fd = open_segment(s.w, 2, O_RDWR);
	assert_int_equal(pwrite(fd, "X", 1, 100000), 1);
	s.missing = 3; /* removed */
	run_index(&s, j);
	audit_index_status(s.index, &status);
	assert_int_equal(status.skipped, 1);
	assert_true(status.position.seq == 30000 && s.kept_seqs.n > 8000 && s.kept_seqs.n < 30000);
	audit_journal_close(j);
	sink_finish(&s);
}

/* A position that this journal cannot have given: past its end, or in a segment that was begun at another time. */
static void test_index_of_another_journal(void **state)
{
	struct sink s = {.w = *state};
	struct audit_journal *j = open_journal(s.w, NULL);
	const struct msg_audit_head none = {0};
	struct msg_audit_head head;

	s.index = audit_index_create(&sink_calls, &s);
	append_progress(j, 100);
	run_index(&s, j);
	expect_indexed(&s, 100);
	append_progress(j, 10);
	audit_journal_head(j, &head);
	for (unsigned i = 0; i < 3; i++) {
		int64_t created = s.kept_created;
		struct msg_audit_head kept = s.kept;
		if (i == 0)
			s.kept_created++;
		else if (i == 1)
			s.kept.segment = head.segment + 1;
		else
			s.kept.offset = head.offset + 8;
		audit_index_restart(s.index);
		audit_index_head(s.index, &head);
		assert_int_equal(audit_index_step(s.index, 50), -ESTALE);
		assert_int_equal(audit_index_step(s.index, 50), -ESTALE);
		s.kept = kept;
		s.kept_created = created;
	}
	s.kept = none;
	s.kept_created = 0;
	s.kept_seqs.n = 0;
	audit_index_restart(s.index);
	run_index(&s, j);
	expect_indexed(&s, 110);
	audit_journal_close(j);
	sink_finish(&s);
}

/* --- what is open, and budgets --- */

static void test_openset(void **state)
{
	struct openset s = {0};
	struct open_entry e;
	bool there[2000] = {0};
	size_t n = 0;

	srand(7);
	for (int i = 0; i < 100000; i++) {
		uint64_t seq = (uint64_t)rand() % 1999 + 1;
		if (rand() % 2) {
			openset_put(&s, &(struct open_entry){.seq = seq, .sent = seq * 2});
			n += !there[seq];
			there[seq] = true;
		} else {
			assert_int_equal(openset_remove(&s, seq, &e), there[seq]);
			n -= there[seq];
			there[seq] = false;
		}
		assert_int_equal(s.n, n);
	}
	for (uint64_t seq = 1; seq < 2000; seq++) {
		const struct open_entry *found = openset_find(&s, seq);
		assert_int_equal(found != NULL, there[seq]);
		assert_true(!found || found->sent == seq * 2);
	}
	size_t walked = 0;
	for (size_t i = 0; openset_next(&s, &i);)
		walked++;
	assert_int_equal(walked, n);
	openset_finish(&s);
}

static void test_budget(void **state)
{
	struct budget b = BUDGET_DEFAULT;
	uint64_t now = 1000;

	assert_int_equal(budget_hold(&b, 1, BUDGET_BURST_BYTES, now), 0);
	assert_int_equal(budget_hold(&b, 1, 1, now), -EDQUOT);
	assert_int_equal(budget_hold(&b, 2, 1, now), 0); /* its own only */
	budget_settle(&b, 0);
	assert_int_equal(budget_hold(&b, 1, BUDGET_BURST_BYTES, now), 0); /* given back */
	budget_settle(&b, 1);
	assert_int_equal(budget_hold(&b, 1, 1, now), -EDQUOT);
	now += 1000;
	assert_int_equal(budget_hold(&b, 1, BUDGET_BYTES_PER_S, now), 0);
	assert_int_equal(budget_hold(&b, 1, 1, now), -EDQUOT);
	budget_settle(&b, 1);
	/* bounded, and those that wrote nothing make room */
	for (uint64_t vm = 10; vm < 5000; vm++)
		assert_int_equal(budget_hold(&b, vm, 1, now), 0);
	assert_true(b.buckets.n <= BUDGET_VMS + 1);
	budget_settle(&b, 1);
	budget_finish(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc), cmocka_unit_test(test_names), cmocka_unit_test(test_every_bit_of_a_record_counts),
		T(test_append_and_rotate), T(test_batches_are_whole), T(test_numbers_are_never_given_twice),
		T(test_torn_at_every_byte), T(test_damage_is_kept_and_passed), T(test_damaged_header),
		T(test_a_made_segment_is_emptied), T(test_reader_follows), T(test_index_tails),
		T(test_index_ahead_of_the_journal), T(test_index_failures),
		T(test_index_passes_damage), T(test_index_of_another_journal), cmocka_unit_test(test_openset), cmocka_unit_test(test_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
