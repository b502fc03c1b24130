/* A chunk holds segments: a word (length, and in its lowest bit which output), and the bytes. The last segment of the
 * last chunk grows while the same output goes on. A chunk that is not the last never changes, and is dropped as a
 * whole: hence a reader's chunk is there as long as its offset is not before ring_start. */
#include "agent/ring.h"

#include <sys/mman.h>

#include "base/cleanup.h"

#define WORD sizeof(uint32_t)

struct ring_chunk {
	struct ring_chunk *next;
	uint64_t start;    /* offset of its first byte */
	size_t used, last; /* bytes of `bytes`; where its last segment begins */
	uint8_t bytes[];
};

#define ROOM (RING_CHUNK - sizeof(struct ring_chunk))

static uint32_t word_at(const struct ring_chunk *c, size_t at)
{
	uint32_t w;
	memcpy(&w, c->bytes + at, WORD);
	return w;
}

static void word_set(struct ring_chunk *c, size_t at, size_t len, bool second)
{
	uint32_t w = (uint32_t)len << 1 | second;
	memcpy(c->bytes + at, &w, WORD);
}

uint64_t ring_start(const struct ring *r)
{
	return r->head ? r->head->start : r->total;
}

void ring_drop_oldest(struct ring *r)
{
	struct ring_chunk *c = r->head;

	if (!c)
		return;
	r->head = c->next;
	if (!r->head)
		r->tail = NULL;
	r->chunks--;
	r->pool->used--;
	munmap(c, RING_CHUNK);
}

void ring_finish(struct ring *r)
{
	while (r->head)
		ring_drop_oldest(r);
}

static bool is_full(const struct ring *r)
{
	return r->chunks * RING_CHUNK >= RING_KEPT;
}

bool ring_is_short(const struct ring *r)
{
	return r->pool->used + 2 > r->pool->max && !is_full(r);
}

/* Memory of its own, so that it goes back to the system when it is dropped. */
static bool add_chunk(struct ring *r)
{
	if (is_full(r))
		ring_drop_oldest(r);
	if (r->pool->used >= r->pool->max)
		return false;
	struct ring_chunk *c =
		mmap(NULL, RING_CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c == MAP_FAILED)
		return false;
	c->start = r->total;
	if (r->tail)
		r->tail->next = c;
	else
		r->head = c;
	r->tail = c;
	r->chunks++;
	r->pool->used++;
	return true;
}

/* How many bytes of this output the last chunk takes. */
static size_t room_for(const struct ring_chunk *c, bool second)
{
	bool grows = c->used && (word_at(c, c->last) & 1) == second;
	size_t need = grows ? 0 : WORD;

	return c->used + need < ROOM ? ROOM - c->used - need : 0;
}

static void add(struct ring_chunk *c, bool second, const char *p, size_t n)
{
	if (c->used == 0 || (word_at(c, c->last) & 1) != second) {
		c->last = c->used;
		c->used += WORD;
		word_set(c, c->last, 0, second);
	}
	memcpy(c->bytes + c->used, p, n);
	c->used += n;
	word_set(c, c->last, (word_at(c, c->last) >> 1) + n, second);
}

/* Nothing is kept: what was before is not contiguous with what comes. */
static void lose(struct ring *r, size_t n)
{
	ring_finish(r);
	r->total += n;
}

void ring_append(struct ring *r, bool second, struct str bytes)
{
	while (bytes.len) {
		size_t n = r->tail ? MIN(room_for(r->tail, second), bytes.len) : 0;
		if (n == 0 && !add_chunk(r)) {
			lose(r, bytes.len);
			return;
		}
		if (n == 0)
			continue;
		add(r->tail, second, bytes.p, n);
		r->total += n;
		bytes = str_make(bytes.p + n, bytes.len - n);
	}
}

static void seek(const struct ring *r, struct ring_reader *reader)
{
	struct ring_chunk *c = r->head;

	while (c->next && c->next->start <= reader->offset)
		c = c->next;
	reader->chunk = c;
	reader->at = 0;
	uint64_t left = reader->offset - c->start;
	for (size_t len; left > (len = word_at(c, reader->at) >> 1); left -= len)
		reader->at += WORD + len;
	reader->into = (size_t)left;
}

bool ring_peek(const struct ring *r, struct ring_reader *reader, bool *ret_second, struct str *ret)
{
	if (reader->offset >= r->total)
		return false;
	/* At the start, a reader that had come to the end of the chunk before has lost that one. */
	if (!reader->chunk || reader->offset == ring_start(r))
		seek(r, reader);
	struct ring_chunk *c = reader->chunk;
	size_t len = word_at(c, reader->at) >> 1;
	/* At a segment's end, which may have been the ring's when it was read. */
	if (reader->into == len) {
		reader->at += WORD + len;
		reader->into = 0;
		if (reader->at == c->used) {
			reader->chunk = c = c->next;
			reader->at = 0;
		}
		len = word_at(c, reader->at) >> 1;
	}
	*ret_second = word_at(c, reader->at) & 1;
	*ret = str_make(c->bytes + reader->at + WORD + reader->into, len - reader->into);
	return true;
}

void ring_advance(struct ring_reader *reader, size_t n)
{
	reader->offset += n;
	reader->into += n;
}
