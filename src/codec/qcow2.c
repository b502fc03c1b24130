#include "codec/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define MAGIC 0x514649fbU
#define CLUSTER_BITS 16
#define OFFSET_BITS 0x00fffffffffffe00ULL
#define COPIED (1ULL << 63)
#define COMPRESSED (1ULL << 62)
#define READS_AS_ZERO 1ULL

static uint32_t u32_at(struct str s, size_t at)
{
	uint32_t v;

	memcpy(&v, s.p + at, sizeof v);
	return be32toh(v);
}

static uint64_t u64_at(struct str s, size_t at)
{
	uint64_t v;

	memcpy(&v, s.p + at, sizeof v);
	return be64toh(v);
}

static int check_features(struct str head, struct error *reterr)
{
	if (u32_at(head, 0) != MAGIC)
		return error_set(reterr, -EBADMSG, "the disk's overlay is no qcow2");
	if (u32_at(head, 4) != 3 || u32_at(head, 20) != CLUSTER_BITS)
		return error_set(reterr, -EBADMSG, "the disk's overlay is of another version or cluster size");
	if (u64_at(head, 8) != 0 || u32_at(head, 16) != 0)
		return error_set(reterr, -EBADMSG, "the disk's overlay names a backing file");
	if (u32_at(head, 32) != 0)
		return error_set(reterr, -EBADMSG, "the disk's overlay is encrypted");
	if (u64_at(head, 72) != 0)
		return error_set(reterr, -EBADMSG, "the disk's overlay has incompatible features");
	return 0;
}

int qcow2_header_decode(struct str head, uint64_t file_bytes, struct qcow2 *ret, struct error *reterr)
{
	struct qcow2 q = {0};

	if (head.len < QCOW2_HEADER_BYTES || file_bytes < QCOW2_HEADER_BYTES)
		return error_set(reterr, -EBADMSG, "the disk's overlay is cut short");
	int r = check_features(head, reterr);
	if (r < 0)
		return r;
	q.size = u64_at(head, 24);
	q.l1_offset = u64_at(head, 40);
	if (q.size == 0 || q.size > QCOW2_MAX_BYTES || q.size % 512)
		return error_set(reterr, -EBADMSG, "the disk's overlay has an impossible size");
	q.l1_entries = (uint32_t)((q.size + QCOW2_TABLE_COVERS - 1) / QCOW2_TABLE_COVERS);
	if (u32_at(head, 36) < q.l1_entries || q.l1_offset == 0 || q.l1_offset % QCOW2_CLUSTER ||
	    q.l1_offset > file_bytes || (uint64_t)q.l1_entries * 8 > file_bytes - q.l1_offset)
		return error_set(reterr, -EBADMSG, "the disk's overlay has its table outside the file");
	*ret = q;
	return 0;
}

static int offset_check(uint64_t offset, uint64_t file_bytes)
{
	return offset % QCOW2_CLUSTER || offset >= file_bytes ? -EBADMSG : 0;
}

int qcow2_l1_decode(const uint8_t entry[static 8], uint64_t file_bytes, uint64_t *ret_offset)
{
	const uint64_t v = u64_at(str_make(entry, 8), 0), offset = v & OFFSET_BITS;

	if (v & ~(OFFSET_BITS | COPIED))
		return -EBADMSG;
	/* A table is whole. */
	if (offset && (offset_check(offset, file_bytes) < 0 || file_bytes - offset < QCOW2_CLUSTER))
		return -EBADMSG;
	*ret_offset = offset;
	return 0;
}

int qcow2_l2_decode(const uint8_t entry[static 8], uint64_t file_bytes, enum qcow2_kind *ret, uint64_t *ret_offset)
{
	const uint64_t v = u64_at(str_make(entry, 8), 0), offset = v & OFFSET_BITS;

	if (v & COMPRESSED || v & ~(OFFSET_BITS | COPIED | READS_AS_ZERO))
		return -EBADMSG;
	if (offset && offset_check(offset, file_bytes) < 0)
		return -EBADMSG;
	*ret = v & READS_AS_ZERO ? QCOW2_ZERO : offset ? QCOW2_DATA : QCOW2_BASE;
	*ret_offset = *ret == QCOW2_DATA ? offset : 0;
	return 0;
}
