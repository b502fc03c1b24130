#pragma once
/* Memory of one request: allocated piecewise, freed at once. Small pieces abort on failure; `max` bounds the whole,
 * so that what a peer makes us keep has a ceiling. */
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

struct arena {
	struct arena_block *blocks;
	size_t used, max; /* max 0: 16 MiB */
};

void arena_finish(struct arena *a);
void *arena_alloc(struct arena *a, size_t n);   /* zeroed, 16-byte aligned; NULL past max */
char *arena_strdup(struct arena *a, struct str s); /* NUL-terminated; NULL past max */
struct str arena_str(struct arena *a, struct str s); /* copy; p is NULL past max */
