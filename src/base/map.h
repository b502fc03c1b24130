#pragma once
/* Hash maps from a 64-bit id, and from bytes, to a pointer. Keys of the byte map are copied. The hash is keyed with
 * process-random bytes (SipHash-like mixing is not needed: string keys come through a keyed FNV and the tables are
 * bounded by their owners). {0} is an empty map. Not to be changed while iterating, but for removing the current. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct map_slot {
	uint64_t key; /* the id, or the hash of the bytes */
	char *bytes;  /* byte map: the key's copy */
	size_t bytes_len;
	void *value; /* NULL: free slot */
};

struct map {
	struct map_slot *slots;
	size_t n, cap;
};

void map_finish(struct map *m); /* values stay the caller's */

void *map_get(const struct map *m, uint64_t key);
/* Replaces; returns the value that was there. value is not NULL. */
void *map_put(struct map *m, uint64_t key, void *value);
void *map_remove(struct map *m, uint64_t key);

void *map_get_str(const struct map *m, struct str key);
void *map_put_str(struct map *m, struct str key, void *value);
void *map_remove_str(struct map *m, struct str key);

/* size_t i = 0; while (map_next(&m, &i, &slot)) … */
bool map_next(const struct map *m, size_t *i, struct map_slot **ret);
