#include "broker/run_record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "os/fdutil.h"
#include "os/pidfd.h"
#include "os/proc.h"

#define FILE_MAX 1024
#define FNV_START 0xcbf29ce484222325U
#define FNV_PRIME 0x100000001b3U

/* Every number of the file, in order, after "boot UUID". */
static const struct {
	const char *key;
	size_t offset;
	uint64_t max;
} numbers[] = {
	{"start", offsetof(struct run_record, start), UINT64_MAX},
	{"id", offsetof(struct run_record, id), UINT64_MAX},
	{"generation", offsetof(struct run_record, generation), UINT64_MAX},
	{"config", offsetof(struct run_record, config), UINT64_MAX},
};

static uint64_t *number_of(struct run_record *r, size_t i)
{
	return (uint64_t *)(void *)((char *)r + numbers[i].offset);
}

int run_record_write(const char *dir, const char *name, struct run_record *r)
{
	_cleanup_(buf_finish) struct buf b = {0};
	char boot[BOOT_ID_SIZE];
	int k = proc_start_time(r->pid, &r->start);

	if (k < 0 || (k = proc_boot_id(boot)) < 0)
		return k;
	buf_printf(&b, "boot %s\npid %d\nstarted_at %" PRId64 "\n", boot, r->pid, r->started_at);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		buf_printf(&b, "%s %" PRIu64 "\n", numbers[i].key, *number_of(r, i));
	return file_replace(dir, name, buf_str(&b), 0600);
}

/* The value of the next line, whose key must be this one. */
static bool next_value(struct str *text, const char *key, struct str *ret)
{
	struct str word;

	return str_split(text, '\n', ret) && str_split(ret, ' ', &word) && str_eq(word, str_of(key));
}

static bool next_number(struct str *text, const char *key, uint64_t max, uint64_t *ret)
{
	struct str value;

	return next_value(text, key, &value) && str_parse_u64(value, max, ret) == 0;
}

int run_record_read(const char *dir, const char *name, struct run_record *ret)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_(buf_finish) struct buf b = {0};
	struct run_record record = {0};
	struct str text, boot;
	uint64_t pid = 0, at = 0;
	char now[BOOT_ID_SIZE];
	int r = file_read(path, FILE_MAX, &b);

	if (r < 0 || (r = proc_boot_id(now)) < 0)
		return r == -EFBIG ? -EINVAL : r;
	text = buf_str(&b);
	if (!next_value(&text, "boot", &boot) || !next_number(&text, "pid", INT32_MAX, &pid) || pid == 0 ||
	    !next_number(&text, "started_at", INT64_MAX, &at))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!next_number(&text, numbers[i].key, numbers[i].max, number_of(&record, i)))
			return -EINVAL;
	if (!str_eq(boot, str_of(now)))
		return -ESTALE;
	record.pid = (pid_t)pid;
	record.started_at = (int64_t)at;
	*ret = record;
	return 0;
}

/* The descriptor first: from then on the number cannot become another process's unnoticed. */
int run_record_open(const struct run_record *r, int *ret_pidfd)
{
	_cleanup_close_ int fd = -1;
	uint64_t start;

	if (pidfd_get(r->pid, &fd) < 0 || proc_start_time(r->pid, &start) < 0 || start != r->start)
		return -ESRCH;
	if (fd_wait(fd, POLLIN, 0) == 0) /* a zombie */
		return -ESRCH;
	*ret_pidfd = take_fd(fd);
	return 0;
}

static uint64_t mark_more(uint64_t mark, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		mark = (mark ^ p[i]) * FNV_PRIME;
	return mark;
}

uint64_t run_mark(const void *data, size_t n)
{
	return mark_more(FNV_START, data, n);
}

int run_mark_file(const char *path, uint64_t *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	static uint8_t block[65536];
	uint64_t mark = FNV_START;
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, block, sizeof block)) > 0)
		mark = mark_more(mark, block, (size_t)n);
	if (n < 0)
		return -errno;
	*ret = mark;
	return 0;
}
