#pragma once
/* Reading the qcow2 images that this project makes (broker/overlay.c) after a QEMU has written to them: QEMU's
 * docs/interop/qcow2.txt, version 3, clusters of 64 KiB, and nothing that overlay.c does not ask for. What the file says is
 * hostile: a backing file, an external data file, compression, encryption or any incompatible feature is refused, and an
 * offset is inside the file and aligned, or an error. Bytes in, values out. */
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

#define QCOW2_CLUSTER ((uint64_t)65536)
#define QCOW2_TABLE_ENTRIES (QCOW2_CLUSTER / 8)                     /* of an L2 table, a cluster of big-endian numbers */
#define QCOW2_TABLE_COVERS (QCOW2_TABLE_ENTRIES * QCOW2_CLUSTER)    /* bytes of disk that one L1 entry stands for */
#define QCOW2_HEADER_BYTES 104
#define QCOW2_MAX_BYTES ((uint64_t)2048 << 30)

struct qcow2 {
	uint64_t size;      /* of the disk, in bytes: a multiple of 512 */
	uint64_t l1_offset; /* of its table of big-endian numbers in the file, aligned */
	uint32_t l1_entries; /* those that the disk needs; all of them lie within the file */
};

/* head: the file's first bytes, QCOW2_HEADER_BYTES of them at least; file_bytes: its length. -EBADMSG with the reason. */
int qcow2_header_decode(struct str head, uint64_t file_bytes, struct qcow2 *ret, struct error *reterr);

/* One entry of the L1 table, 8 bytes as they stand. *ret_offset: of its L2 table, 0: none, all is the base's. -EBADMSG */
int qcow2_l1_decode(const uint8_t entry[static 8], uint64_t file_bytes, uint64_t *ret_offset);

enum qcow2_kind { QCOW2_BASE, QCOW2_ZERO, QCOW2_DATA };
/* One entry of an L2 table: what a cluster is, and for QCOW2_DATA where it begins; it may be cut short by the file's end,
 * zeros follow. -EBADMSG */
int qcow2_l2_decode(const uint8_t entry[static 8], uint64_t file_bytes, enum qcow2_kind *ret, uint64_t *ret_offset);
