#include "audit/segment.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "audit/crc32c.h"

#define MAGIC "IRONSEG1"
#define VERSION 1
#define ALIGN 8
#define CRC_AT 4    /* in a frame */
#define SEALED_AT 8 /* where what a frame's CRC covers begins, after the length */

static void put32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof v);
}

static void put64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof v);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t v;
	memcpy(&v, at, sizeof v);
	return le32toh(v);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;
	memcpy(&v, at, sizeof v);
	return le64toh(v);
}

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n > 0 && *p == 0) {
		p++;
		n--;
	}
	return n == 0;
}

void segment_header_encode(const struct segment_header *h, uint8_t ret[SEGMENT_HEADER_SIZE])
{
	memset(ret, 0, SEGMENT_HEADER_SIZE);
	memcpy(ret, MAGIC, 8);
	put32(ret + 8, VERSION);
	put64(ret + 16, h->number);
	put64(ret + 24, h->first_seq);
	put64(ret + 32, (uint64_t)h->created_ns);
	memcpy(ret + 40, h->previous, SEGMENT_HASH_SIZE);
	put32(ret + SEGMENT_HEADER_SIZE - 4, crc32c(0, ret, SEGMENT_HEADER_SIZE - 4));
}

int segment_header_decode(const uint8_t bytes[SEGMENT_HEADER_SIZE], struct segment_header *ret)
{
	if (is_zero(bytes, SEGMENT_HEADER_SIZE))
		return -ENODATA;
	if (memcmp(bytes, MAGIC, 8) != 0 ||
	    get32(bytes + SEGMENT_HEADER_SIZE - 4) != crc32c(0, bytes, SEGMENT_HEADER_SIZE - 4))
		return -EBADMSG;
	if (get32(bytes + 8) != VERSION)
		return -EPROTONOSUPPORT;
	struct segment_header h = {
		.number = get64(bytes + 16),
		.first_seq = get64(bytes + 24),
		.created_ns = (int64_t)get64(bytes + 32),
	};
	memcpy(h.previous, bytes + 40, SEGMENT_HASH_SIZE);
	if (h.number == 0 || h.first_seq == 0)
		return -EBADMSG;
	*ret = h;
	return 0;
}

static size_t padded(size_t n)
{
	return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* size: frame, payload and padding. */
static uint32_t record_crc(const uint8_t *at, size_t size)
{
	return crc32c(crc32c(0, at, CRC_AT), at + SEALED_AT, size - SEALED_AT);
}

int segment_record_encode(const struct segment_record *r, struct buf *out)
{
	if (r->payload.len == 0)
		return -EINVAL;
	if (r->payload.len > SEGMENT_PAYLOAD_MAX)
		return -EMSGSIZE;
	size_t size = SEGMENT_FRAME_SIZE + padded(r->payload.len);
	uint8_t *at = buf_reserve(out, size);
	if (!at)
		return -EMSGSIZE;
	memset(at, 0, SEGMENT_FRAME_SIZE);
	put32(at, (uint32_t)r->payload.len);
	put64(at + 8, r->seq);
	put64(at + 16, (uint64_t)r->time_ns);
	at[24] = (uint8_t)r->type;
	at[25] = (uint8_t)(r->type >> 8);
	memcpy(at + 32, r->previous, SEGMENT_HASH_SIZE);
	memcpy(at + SEGMENT_FRAME_SIZE, r->payload.p, r->payload.len);
	memset(at + SEGMENT_FRAME_SIZE + r->payload.len, 0, padded(r->payload.len) - r->payload.len);
	put32(at + CRC_AT, record_crc(at, size));
	buf_commit(out, size);
	return 0;
}

int segment_record_decode(struct str in, struct segment_record *ret)
{
	const uint8_t *at = (const uint8_t *)in.p;

	if (in.len < SEGMENT_FRAME_SIZE)
		return in.len >= 4 && get32(at) == 0 ? 0 : -EAGAIN;
	size_t len = get32(at), size = SEGMENT_FRAME_SIZE + padded(len);
	if (len == 0)
		return is_zero(at, SEGMENT_FRAME_SIZE) ? 0 : -EBADMSG;
	if (len > SEGMENT_PAYLOAD_MAX)
		return -EBADMSG;
	if (in.len < size)
		return -EAGAIN;
	if (get32(at + CRC_AT) != record_crc(at, size) || !is_zero(at + 26, 6) ||
	    !is_zero(at + SEGMENT_FRAME_SIZE + len, padded(len) - len))
		return -EBADMSG;
	*ret = (struct segment_record){
		.seq = get64(at + 8),
		.time_ns = (int64_t)get64(at + 16),
		.type = (uint16_t)(at[24] | at[25] << 8),
		.payload = str_make(at + SEGMENT_FRAME_SIZE, len),
	};
	memcpy(ret->previous, at + 32, SEGMENT_HASH_SIZE);
	return (int)size;
}

void segment_name_format(uint64_t number, char ret[SEGMENT_NAME_SIZE])
{
	snprintf(ret, SEGMENT_NAME_SIZE, "%020llu.seg", (unsigned long long)number);
}

int segment_name_parse(struct str name, uint64_t *ret)
{
	char again[SEGMENT_NAME_SIZE];
	uint64_t v = 0;

	if (name.len != SEGMENT_NAME_SIZE - 1)
		return -EINVAL;
	for (unsigned i = 0; i < 20; i++) {
		if (name.p[i] < '0' || name.p[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(name.p[i] - '0'), &v))
			return -EINVAL;
	}
	segment_name_format(v, again);
	if (v == 0 || memcmp(again, name.p, name.len) != 0)
		return -EINVAL;
	*ret = v;
	return 0;
}
