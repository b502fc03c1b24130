#pragma once
/* The bytes of a journal segment: a header, then records, each with a frame. Bytes in, values out.
 *
 * All integers little-endian. A segment's header, 128 bytes:
 *     0 magic "IRONSEG1"    8 u32 version (1)    12 u32 zero    16 u64 number of the segment    24 u64 first sequence
 *    32 i64 created, ns    40 32 bytes: hash of the last record of the segment before (zero: not chained)
 *    72 zero              124 u32 CRC-32C of the bytes before it
 * A record's frame, 64 bytes, then the payload, then zeros up to a multiple of 8:
 *     0 u32 payload length  4 u32 CRC-32C of the frame from byte 8 and the payload, begun with that of the length
 *     8 u64 sequence       16 i64 time, ns since 1970
 *    24 u16 type (codec/record.h)    26 u16 zero    28 u32 zero
 *    32 32 bytes: hash of the record before (zero: not chained)
 * A length of 0 ends the segment: what was preallocated and not written is zero, and no record has an empty payload. A
 * record of a segment whose sequence is at or past the first of the next segment does not count: it is what a failed
 * write left behind. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

#define SEGMENT_HEADER_SIZE 128
#define SEGMENT_FRAME_SIZE 64
#define SEGMENT_PAYLOAD_MAX 32768
#define SEGMENT_HASH_SIZE 32
#define SEGMENT_RECORD_MAX (SEGMENT_FRAME_SIZE + SEGMENT_PAYLOAD_MAX) /* a multiple of 8 */

struct segment_header {
	uint64_t number, first_seq;
	int64_t created_ns;
	uint8_t previous[SEGMENT_HASH_SIZE];
};

struct segment_record {
	uint64_t seq;
	int64_t time_ns;
	uint16_t type;
	uint8_t previous[SEGMENT_HASH_SIZE];
	struct str payload;
};

void segment_header_encode(const struct segment_header *h, uint8_t ret[SEGMENT_HEADER_SIZE]);
/* -ENODATA: all zero, a segment that was not begun. -EBADMSG. -EPROTONOSUPPORT: a version of a newer iron. */
int segment_header_decode(const uint8_t bytes[SEGMENT_HEADER_SIZE], struct segment_header *ret);

/* -EMSGSIZE, -EINVAL (an empty payload). */
int segment_record_encode(const struct segment_record *r, struct buf *out);
/* The record at the start of `in`: its size, and *ret (the payload borrows from in). 0: the segment ends here. -EAGAIN: in
 * is too short to tell. -EBADMSG. */
int segment_record_decode(struct str in, struct segment_record *ret);

/* "00000000000000000001.seg". */
#define SEGMENT_NAME_SIZE 25
void segment_name_format(uint64_t number, char ret[SEGMENT_NAME_SIZE]);
/* -EINVAL for every other text. */
int segment_name_parse(struct str name, uint64_t *ret);
