#include "prog/iron-worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "codec/qcow2.h"
#include "prog/sandboxes.h"

enum { OVERLAY_FD = 4, DISK_FD = 5 };

struct flatten {
	struct qcow2 head;
	uint64_t file_bytes;
	uint8_t *table, *cluster; /* a cluster each */
};

/* n bytes; what is beyond the end of the file is zeros. */
static int read_at(uint8_t *p, size_t n, uint64_t offset)
{
	size_t done = 0;

	while (done < n) {
		ssize_t k = pread(OVERLAY_FD, p + done, n - done, (off_t)(offset + done));
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			break;
		done += (size_t)k;
	}
	memset(p + done, 0, n - done);
	return 0;
}

static int write_at(const uint8_t *p, size_t n, uint64_t offset)
{
	for (size_t done = 0; done < n;) {
		ssize_t k = pwrite(DISK_FD, p + done, n - done, (off_t)(offset + done));
		if (k < 0 && errno != EINTR)
			return -errno;
		done += k > 0 ? (size_t)k : 0;
	}
	return 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int zero_at(uint64_t offset, size_t n)
{
	return fallocate(DISK_FD, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)n) < 0 ? -errno : 0;
}

static int cluster_write(struct flatten *f, const uint8_t *entry, uint64_t at)
{
	const size_t n = (size_t)MIN(QCOW2_CLUSTER, f->head.size - at);
	enum qcow2_kind kind;
	uint64_t offset;

	int r = qcow2_l2_decode(entry, f->file_bytes, &kind, &offset);
	if (r < 0 || kind == QCOW2_BASE)
		return r;
	if (kind == QCOW2_ZERO)
		return zero_at(at, n);
	if ((r = read_at(f->cluster, n, offset)) < 0)
		return r;
	return is_zero(f->cluster, n) ? zero_at(at, n) : write_at(f->cluster, n, at);
}

static int table_write(struct flatten *f, uint32_t i)
{
	const uint64_t start = i * QCOW2_TABLE_COVERS;
	uint8_t entry[8];
	uint64_t offset;

	int r = read_at(entry, sizeof entry, f->head.l1_offset + i * sizeof entry);
	if (r == 0)
		r = qcow2_l1_decode(entry, f->file_bytes, &offset);
	if (r < 0 || offset == 0)
		return r;
	r = read_at(f->table, QCOW2_CLUSTER, offset);
	for (uint64_t k = 0; r == 0 && k < QCOW2_TABLE_ENTRIES && start + k * QCOW2_CLUSTER < f->head.size; k++)
		r = cluster_write(f, f->table + k * 8, start + k * QCOW2_CLUSTER);
	return r;
}

static int flatten(struct flatten *f, uint64_t bytes, struct error *reterr)
{
	uint8_t head[QCOW2_HEADER_BYTES];
	const off_t end = lseek(OVERLAY_FD, 0, SEEK_END);

	if (end < 0)
		return error_set(reterr, -errno, "the disk's overlay: %s", strerror(errno));
	f->file_bytes = (uint64_t)end;
	int r = read_at(head, sizeof head, 0);
	if (r == 0)
		r = qcow2_header_decode(str_make(head, sizeof head), f->file_bytes, &f->head, reterr);
	if (r == 0 && f->head.size != bytes)
		r = error_set(reterr, -EBADMSG, "the disk's overlay is of another size than was asked for");
	if (r == 0 && ftruncate(DISK_FD, (off_t)bytes) < 0)
		r = -errno;
	for (uint32_t i = 0; r == 0 && i < f->head.l1_entries; i++)
		r = table_write(f, i);
	return r < 0 ? error_set(reterr, r, "the disk's overlay cannot be read: %s", strerror(-r)) : 0;
}

int flatten_run(uid_t uid, gid_t gid, uint64_t bytes)
{
	struct flatten f = {.table = xmalloc(QCOW2_CLUSTER), .cluster = xmalloc(QCOW2_CLUSTER)};
	struct error e = {0};

	int r = sandbox_enter(&sandbox_flatten.walls, uid, gid, sandbox_flatten.paths, false, NULL, &e);
	if (r == 0)
		r = flatten(&f, bytes, &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.text);
	free(f.table);
	free(f.cluster);
	return r < 0 ? 1 : 0;
}
