/* The thread that waits for the disk: makes the next segment, syncs what was appended, seals what is full.
 *
 * A sync that failed is not tried again on the same file: the kernel reports an error of writing back once, and a second
 * fdatasync would succeed over pages that were dropped (see "PostgreSQL's fsync() surprise", lwn.net/Articles/752063). The
 * records of that sync count as lost, whoever waits for them is told, and appends go on in a new segment. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "audit/journal_internal.h"
#include "base/clock.h"

#define MAKE_AGAIN_MS 500
#define IDLE_MS 60000

/* For file systems without fallocate. */
static int fill_with_zeros(int fd, uint64_t bytes)
{
	static const uint8_t zeros[65536];

	for (uint64_t at = 0; at < bytes;) {
		ssize_t n = pwrite(fd, zeros, (size_t)MIN(bytes - at, sizeof zeros), (off_t)at);
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (uint64_t)n;
	}
	return 0;
}

/* What an earlier life made ready, or wrote without its header reaching the disk, is emptied first: no stale record may
 * ever stand where a new one ends. */
static int preallocate(int fd, uint64_t bytes)
{
	if (ftruncate(fd, 0) < 0)
		return -errno;
	int r = fallocate(fd, 0, 0, (off_t)bytes) < 0 ? -errno : 0;
	if (r == -EOPNOTSUPP)
		r = fill_with_zeros(fd, bytes);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r && ftruncate(fd, 0) < 0)
		return -errno; /* the room it took was to be given back */
	return r;
}

int segment_file_make(int dirfd, uint64_t number, uint64_t bytes, struct segment_file *ret)
{
	char name[SEGMENT_NAME_SIZE];
	uint8_t header[SEGMENT_HEADER_SIZE];
	struct segment_header h;

	segment_name_format(number, name);
	_cleanup_close_ int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (pread(fd, header, sizeof header, 0) == sizeof header && segment_header_decode(header, &h) != -ENODATA)
		return -EEXIST; /* written: never touched again */
	int r = preallocate(fd, bytes);
	if (r == 0 && fsync(dirfd) < 0)
		r = -errno;
	if (r)
		return r;
	*ret = (struct segment_file){.fd = take_fd(fd), .number = number};
	return 0;
}

static void notify(struct audit_journal *j)
{
	eventfd_write(j->wake_fd, 1);
}

/* With the lock, which is let go meanwhile. */
static void make_next(struct audit_journal *j)
{
	struct segment_file made = {.fd = -1};
	uint64_t number = j->next_number;

	pthread_mutex_unlock(&j->lock);
	int r = segment_file_make(j->dirfd, number, j->options.segment_bytes, &made);
	pthread_mutex_lock(&j->lock);
	if (r == 0)
		j->next = made;
	else
		j->make_again_ms = mono_ms() + MAKE_AGAIN_MS;
	if (r != j->make_error)
		notify(j);
	j->make_error = r;
	pthread_cond_broadcast(&j->made);
}

/* Full or given up: on the disk, and cut to what it holds. Cutting gives back room and removes what a failed write left; that
 * it fails harms nothing. */
static int seal(const struct segment_file *f)
{
	int r = fdatasync(f->fd) < 0 ? -errno : 0;

	if (ftruncate(f->fd, (off_t)f->length) < 0 && r == 0)
		r = errno == EIO ? -EIO : 0;
	close(f->fd);
	return r;
}

/* With the lock, which is let go meanwhile. */
static void sync_all(struct audit_journal *j)
{
	uint64_t seq = j->written_seq;
	struct segment_file file = j->appending;
	__typeof__(j->retired) retired = j->retired;
	int r = 0;

	j->retired.v = NULL;
	j->retired.n = j->retired.cap = 0;
	j->dirty = j->want_sync = false;
	pthread_mutex_unlock(&j->lock);
	for (size_t i = 0; i < retired.n; i++) {
		int k = seal(&retired.v[i]);
		r = r ? r : k;
	}
	VEC_FINISH(&retired);
	if (fdatasync(file.fd) < 0 && r == 0)
		r = -errno;
	pthread_mutex_lock(&j->lock);
	if (r == 0) {
		j->synced_seq = seq;
	} else {
		j->sync_failed = r;
		j->sync_failed_seq = seq;
		j->poisoned = j->poisoned || file.fd == j->appending.fd;
	}
	notify(j);
}

/* How long there is nothing to do, 0: something is due now. */
static uint64_t idle_ms(const struct audit_journal *j, bool *ret_make, bool *ret_sync)
{
	uint64_t now = mono_ms(), idle = IDLE_MS;
	uint64_t due = j->dirty_since_ms + j->options.sync_interval_ms;

	*ret_make = j->next.fd < 0 && !j->stop && (!j->make_error || now >= j->make_again_ms);
	*ret_sync = j->retired.n > 0 || (j->dirty && (j->stop || j->want_sync || now >= due)) || j->want_sync;
	if (j->next.fd < 0 && !*ret_make && j->make_again_ms > now)
		idle = MIN(idle, j->make_again_ms - now);
	if (j->dirty && !*ret_sync)
		idle = MIN(idle, due - now);
	return *ret_make || *ret_sync ? 0 : idle;
}

static void wait_for_work(struct audit_journal *j, uint64_t ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&j->work, &j->lock, &until);
}

static void *disk_main(void *arg)
{
	struct audit_journal *j = arg;
	bool make, sync;

	pthread_mutex_lock(&j->lock);
	for (;;) {
		uint64_t idle = idle_ms(j, &make, &sync);
		if (make)
			make_next(j);
		else if (sync)
			sync_all(j);
		else if (j->stop)
			break;
		else
			wait_for_work(j, idle);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

int disk_start(struct audit_journal *j)
{
	sigset_t all, before;

	/* signals are the loop's */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&j->thread, NULL, disk_main, j);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	j->running = r == 0;
	return -r;
}

void disk_stop(struct audit_journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->stop = true;
	pthread_cond_signal(&j->work);
	pthread_mutex_unlock(&j->lock);
	pthread_join(j->thread, NULL);
	close(j->current.fd);
	if (j->next.fd >= 0)
		close(j->next.fd);
}
