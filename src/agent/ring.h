#pragma once
/* The last bytes that a process said on two outputs, in the order in which they came. Memory comes in chunks, as it is
 * needed, out of a pool that several rings share; the oldest chunk goes first. An offset counts all bytes that ever
 * came. */
#include "base/str.h"

#define RING_KEPT ((size_t)8 << 20)
#define RING_CHUNK ((size_t)64 << 10)

struct ring_pool {
	size_t used, max; /* chunks */
};

struct ring {
	struct ring_chunk *head, *tail;
	size_t chunks;
	uint64_t total; /* bytes that ever came */
	struct ring_pool *pool;
};

/* A place in a ring; {.offset = n} is any. It stays good while the ring changes. */
struct ring_reader {
	uint64_t offset;
	struct ring_chunk *chunk; /* where offset is; NULL: to be looked for */
	size_t at, into;          /* of the segment in the chunk; of the byte in the segment */
};

void ring_finish(struct ring *r);
/* The pool has no chunk for one more append of at most RING_CHUNK bytes to r: drop some of a ring's before. */
bool ring_is_short(const struct ring *r);
/* The oldest chunk goes. */
void ring_drop_oldest(struct ring *r);
/* Bytes of one output (`second`: the other one). What the pool has no room for is not kept. */
void ring_append(struct ring *r, bool second, struct str bytes);
/* The oldest offset that is kept. */
uint64_t ring_start(const struct ring *r);
/* A run of bytes at the reader, which is not before ring_start: true, unless it is at the end. They are borrowed. */
bool ring_peek(const struct ring *r, struct ring_reader *reader, bool *ret_second, struct str *ret);
void ring_advance(struct ring_reader *reader, size_t n);
