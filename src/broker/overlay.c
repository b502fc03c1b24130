/* A qcow2 image of version 3 as its specification (QEMU's docs/interop/qcow2.txt) describes one, written out: header,
 * refcount table, one refcount block, empty L1 table. No program has to be run as the VM's uid for it, and the header
 * names no backing file because there is no code here that could write one. `qemu-img check` is the test's judge. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "broker/vmhost.h"

#define CLUSTER_BITS 16
#define CLUSTER (1U << CLUSTER_BITS)
#define GIB ((uint64_t)1 << 30)
#define L2_COVERS ((uint64_t)CLUSTER / 8 * CLUSTER) /* bytes of disk that one L1 entry stands for: 512 MiB */
#define MAX_GIB 2048

struct header {
	uint32_t magic, version;
	uint64_t backing_file_offset;
	uint32_t backing_file_size, cluster_bits;
	uint64_t size;
	uint32_t crypt_method, l1_size;
	uint64_t l1_table_offset, refcount_table_offset;
	uint32_t refcount_table_clusters, nb_snapshots;
	uint64_t snapshots_offset;
	uint64_t incompatible_features, compatible_features, autoclear_features;
	uint32_t refcount_order, header_length;
	uint32_t extension_type, extension_length;
} __attribute__((packed));

/* Clusters: 0 header, 1 refcount table, 2 refcount block, 3… L1 table. */
enum { REFCOUNT_TABLE = 1, REFCOUNT_BLOCK = 2, L1_TABLE = 3 };

static int write_at(int fd, const void *p, size_t n, uint64_t offset)
{
	ssize_t done = pwrite(fd, p, n, (off_t)offset);
	return done < 0 ? -errno : (size_t)done != n ? -EIO : 0;
}

static int qcow2_write(int fd, uint64_t size)
{
	const uint32_t l1_entries = (uint32_t)((size + L2_COVERS - 1) / L2_COVERS);
	const uint32_t l1_clusters = (uint32_t)(((uint64_t)l1_entries * 8 + CLUSTER - 1) / CLUSTER);
	const struct header h = {
		.magic = htobe32(0x514649fb),
		.version = htobe32(3),
		.cluster_bits = htobe32(CLUSTER_BITS),
		.size = htobe64(size),
		.l1_size = htobe32(l1_entries),
		.l1_table_offset = htobe64((uint64_t)L1_TABLE * CLUSTER),
		.refcount_table_offset = htobe64((uint64_t)REFCOUNT_TABLE * CLUSTER),
		.refcount_table_clusters = htobe32(1),
		.refcount_order = htobe32(4),
		.header_length = htobe32(offsetof(struct header, extension_type)),
	};
	const uint64_t block = htobe64((uint64_t)REFCOUNT_BLOCK * CLUSTER);
	const uint16_t used = htobe16(1);
	int r;

	if ((r = write_at(fd, &h, sizeof h, 0)) < 0 ||
	    (r = write_at(fd, &block, sizeof block, (uint64_t)REFCOUNT_TABLE * CLUSTER)) < 0)
		return r;
	for (uint32_t i = 0; i < L1_TABLE + l1_clusters; i++)
		if ((r = write_at(fd, &used, sizeof used, (uint64_t)REFCOUNT_BLOCK * CLUSTER + i * sizeof used)) < 0)
			return r;
	return ftruncate(fd, (off_t)((uint64_t)(L1_TABLE + l1_clusters) * CLUSTER)) < 0 ? -errno : 0;
}

int overlay_create(const char *path, int base_fd, uint32_t disk_gib, uid_t uid, gid_t gid, struct error *reterr)
{
	struct stat base = {0};
	uint64_t size = (uint64_t)disk_gib * GIB;

	if (disk_gib == 0 || disk_gib > MAX_GIB)
		return error_set(reterr, -EINVAL, "disk_gib must be 1 to %u, not %u", MAX_GIB, disk_gib);
	if (base_fd >= 0 && fstat(base_fd, &base) < 0)
		return error_set(reterr, -errno, "the image's disk: %s", strerror(errno));
	size = MAX(size, ((uint64_t)base.st_size + CLUSTER - 1) / CLUSTER * CLUSTER);

	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	int r = qcow2_write(fd, size);
	if (r == 0 && fchown(fd, uid, gid) < 0)
		r = -errno;
	if (r < 0) {
		unlink(path);
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	}
	return 0;
}
