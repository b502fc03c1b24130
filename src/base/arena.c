#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE ((size_t)16 << 10)

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	_Alignas(16) char data[];
};

void arena_finish(struct arena *a)
{
	struct arena_block *b = a->blocks;
	while (b) {
		struct arena_block *next = b->next;
		free(b);
		b = next;
	}
	*a = (struct arena){.max = a->max};
}

void *arena_alloc(struct arena *a, size_t n)
{
	size_t max = a->max ? a->max : (size_t)16 << 20;

	if (n > max || a->used > max - n)
		return NULL;
	n = (n + 15) & ~(size_t)15;
	struct arena_block *b = a->blocks;
	if (!b || b->size - b->used < n) {
		size_t size = MAX(n, BLOCK_SIZE);
		b = xcalloc(1, sizeof *b + size);
		b->size = size;
		b->next = a->blocks;
		a->blocks = b;
	}
	void *p = b->data + b->used;
	b->used += n;
	a->used += n;
	return p;
}

char *arena_strdup(struct arena *a, struct str s)
{
	char *z = arena_alloc(a, s.len + 1);
	if (z && s.len)
		memcpy(z, s.p, s.len);
	return z;
}

struct str arena_str(struct arena *a, struct str s)
{
	return str_make(arena_strdup(a, s), s.len);
}
