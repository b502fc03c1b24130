#include "audit/journal.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "audit/journal_internal.h"
#include "base/clock.h"

#define NEXT_WAIT_S 5 /* for a disk that is slow to make the next segment; afterwards the batch is refused */

static int64_t real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int segment_file_begin(const struct segment_file *f, uint64_t first_seq)
{
	struct segment_header h = {.number = f->number, .first_seq = first_seq, .created_ns = real_ns()};
	uint8_t bytes[SEGMENT_HEADER_SIZE];

	segment_header_encode(&h, bytes);
	ssize_t n = pwrite(f->fd, bytes, sizeof bytes, 0);
	return n < 0 ? -errno : n < (ssize_t)sizeof bytes ? -EIO : 0;
}

static void locks_init(struct audit_journal *j)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&j->work, &attr);
	pthread_cond_init(&j->made, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&j->lock, NULL);
}

static uint64_t first_seq_after(uint64_t last)
{
	return last == 0 ? 1 : (last / JOURNAL_SEQ_STEP + 1) * JOURNAL_SEQ_STEP;
}

static int begin_first(struct audit_journal *j, uint64_t number, uint64_t last_seq, struct error *reterr)
{
	int r = segment_file_make(j->dirfd, number, j->options.segment_bytes, &j->current);

	j->next_seq = first_seq_after(last_seq);
	if (r == 0)
		r = segment_file_begin(&j->current, j->next_seq);
	if (r)
		return error_set(reterr, r, "journal: segment %llu cannot be made: %s", (unsigned long long)number,
				 strerror(-r));
	j->offset = SEGMENT_HEADER_SIZE;
	j->appending = j->current;
	j->written_seq = j->synced_seq = j->next_seq - 1;
	j->next_number = number + 1;
	return 0;
}

int audit_journal_open(int dirfd, const struct audit_journal_options *options, audit_journal_replay *replay, void *user,
		       struct audit_journal **ret, struct audit_recovery *ret_recovery, struct error *reterr)
{
	struct audit_journal *j = xcalloc(1, sizeof *j);
	struct audit_recovery recovery;
	uint64_t number = 0;

	j->dirfd = dirfd;
	j->options = *options;
	j->options.segment_bytes = MAX(options->segment_bytes, JOURNAL_SEGMENT_MIN);
	j->current.fd = j->next.fd = -1;
	j->frames = BUF_MAX(JOURNAL_BATCH_MAX);
	locks_init(j);
	j->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = j->wake_fd < 0 ? error_set(reterr, -errno, "journal: eventfd: %s", strerror(errno)) : 0;
	if (r == 0)
		r = journal_recover(dirfd, replay, user, &recovery, &number, reterr);
	if (r == 0)
		r = begin_first(j, number, recovery.last_seq, reterr);
	if (r == 0) {
		r = disk_start(j);
		error_set(r ? reterr : NULL, r, "journal: thread: %s", strerror(-r));
	}
	if (r) {
		audit_journal_close(j);
		return r;
	}
	*ret = j;
	*ret_recovery = recovery;
	return 0;
}

void audit_journal_close(struct audit_journal *j)
{
	if (!j)
		return;
	if (j->running)
		disk_stop(j);
	else if (j->current.fd >= 0)
		close(j->current.fd);
	if (j->wake_fd >= 0)
		close(j->wake_fd);
	VEC_FINISH(&j->retired);
	pthread_cond_destroy(&j->work);
	pthread_cond_destroy(&j->made);
	pthread_mutex_destroy(&j->lock);
	buf_finish(&j->frames);
	free(j);
}

/* Under the lock: the next segment, waited for when the disk thread is still at it. */
static int take_next(struct audit_journal *j, struct segment_file *ret)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += NEXT_WAIT_S;
	while (j->next.fd < 0) {
		if (j->make_error)
			return j->make_error;
		pthread_cond_signal(&j->work);
		if (pthread_cond_timedwait(&j->made, &j->lock, &until) == ETIMEDOUT)
			return -EIO;
	}
	*ret = j->next;
	j->next.fd = -1;
	j->next_number = ret->number + 1;
	return 0;
}

/* Appends go to the next segment from here on. */
static int rotate(struct audit_journal *j)
{
	struct segment_file next;

	pthread_mutex_lock(&j->lock);
	int r = take_next(j, &next);
	if (r == 0) {
		j->current.length = j->offset;
		VEC_PUSH(&j->retired, j->current);
		j->appending = next;
		j->poisoned = false;
		pthread_cond_signal(&j->work);
	}
	pthread_mutex_unlock(&j->lock);
	if (r)
		return r;
	j->current = next;
	j->offset = SEGMENT_HEADER_SIZE;
	r = segment_file_begin(&next, j->next_seq);
	j->broken = r != 0;
	return r;
}

static int encode_batch(struct audit_journal *j, const struct audit_entry *entries, size_t n)
{
	int64_t now = real_ns();

	buf_clear(&j->frames);
	for (size_t i = 0; i < n; i++) {
		struct segment_record record = {.seq = j->next_seq + i, .time_ns = now, .type = entries[i].type,
						.payload = entries[i].payload};
		int r = segment_record_encode(&record, &j->frames);
		if (r)
			return r;
	}
	return 0;
}

/* What a failed write left is no record any more, if the disk allows; and nobody appends behind it. */
static void undo_write(struct audit_journal *j)
{
	static const uint8_t zero[SEGMENT_FRAME_SIZE];

	j->broken = true;
	if (pwrite(j->current.fd, zero, sizeof zero, (off_t)j->offset) < 0)
		return; /* the next segment's first sequence says that it does not count */
}

static int write_frames(struct audit_journal *j)
{
	size_t done = 0;

	while (done < j->frames.len) {
		ssize_t n = pwrite(j->current.fd, j->frames.data + done, j->frames.len - done, (off_t)(j->offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int r = n < 0 ? -errno : -EIO;
			undo_write(j);
			return r;
		}
		done += (size_t)n;
	}
	return 0;
}

static void mark_written(struct audit_journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->written_seq = j->next_seq - 1;
	if (!j->dirty) {
		j->dirty = true;
		j->dirty_since_ms = mono_ms();
		pthread_cond_signal(&j->work);
	}
	pthread_mutex_unlock(&j->lock);
}

static bool is_poisoned(struct audit_journal *j)
{
	pthread_mutex_lock(&j->lock);
	bool poisoned = j->poisoned;
	pthread_mutex_unlock(&j->lock);
	return poisoned;
}

int audit_journal_append(struct audit_journal *j, const struct audit_entry *entries, size_t n, uint64_t *ret_first_seq)
{
	int r = n == 0 ? -EINVAL : encode_batch(j, entries, n);

	if (r)
		return r;
	if (j->broken || j->offset + j->frames.len > j->options.segment_bytes || is_poisoned(j))
		r = rotate(j);
	if (r == 0)
		r = write_frames(j);
	if (r)
		return r;
	*ret_first_seq = j->next_seq;
	j->next_seq += n;
	j->offset += j->frames.len;
	mark_written(j);
	return 0;
}

int audit_journal_health(struct audit_journal *j)
{
	pthread_mutex_lock(&j->lock);
	int r = j->make_error ? j->make_error : j->sync_failed;
	pthread_mutex_unlock(&j->lock);
	return r;
}

void audit_journal_head(const struct audit_journal *j, struct msg_audit_head *ret)
{
	*ret = (struct msg_audit_head){.segment = j->current.number, .offset = j->offset, .seq = j->next_seq - 1};
}

void audit_journal_sync(struct audit_journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->want_sync = true;
	pthread_cond_signal(&j->work);
	pthread_mutex_unlock(&j->lock);
}

uint64_t audit_journal_synced_seq(struct audit_journal *j)
{
	pthread_mutex_lock(&j->lock);
	uint64_t seq = j->synced_seq;
	pthread_mutex_unlock(&j->lock);
	return seq;
}

int audit_journal_sync_failed(struct audit_journal *j, uint64_t *ret_up_to_seq)
{
	pthread_mutex_lock(&j->lock);
	int r = j->sync_failed;
	*ret_up_to_seq = j->sync_failed_seq;
	j->sync_failed = 0;
	pthread_mutex_unlock(&j->lock);
	return r;
}

int audit_journal_fd(const struct audit_journal *j)
{
	return j->wake_fd;
}

void audit_journal_wakeup(struct audit_journal *j)
{
	eventfd_t n;

	eventfd_read(j->wake_fd, &n);
}
