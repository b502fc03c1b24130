#include "base/map.h"

#include <stdlib.h>
#include <sys/random.h>

static uint64_t seed(void)
{
	static uint64_t s;
	while (s == 0)
		if (getrandom(&s, sizeof s, 0) < 0)
			s = (uint64_t)(uintptr_t)&s | 1;
	return s;
}

static uint64_t mix(uint64_t x)
{
	x ^= seed();
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ (x >> 33);
}

static uint64_t hash_bytes(struct str s)
{
	uint64_t h = seed() ^ 0xcbf29ce484222325ULL;
	for (size_t i = 0; i < s.len; i++)
		h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3ULL;
	return mix(h);
}

static bool same(const struct map_slot *slot, uint64_t key, const struct str *bytes)
{
	if (slot->key != key)
		return false;
	return bytes ? str_eq(str_make(slot->bytes, slot->bytes_len), *bytes) : true;
}

/* The slot of the key, or the free one where it would go. cap > n always. */
static struct map_slot *find(const struct map *m, uint64_t key, const struct str *bytes)
{
	size_t i = (size_t)mix(key) & (m->cap - 1);
	while (m->slots[i].value && !same(&m->slots[i], key, bytes))
		i = (i + 1) & (m->cap - 1);
	return &m->slots[i];
}

static void grow(struct map *m)
{
	struct map bigger = {.cap = m->cap ? m->cap * 2 : 16, .n = m->n};

	bigger.slots = xcalloc(bigger.cap, sizeof *bigger.slots);
	for (size_t i = 0; i < m->cap; i++) {
		struct map_slot *old = &m->slots[i];
		if (!old->value)
			continue;
		struct str b = str_make(old->bytes, old->bytes_len);
		*find(&bigger, old->key, old->bytes ? &b : NULL) = *old;
	}
	free(m->slots);
	*m = bigger;
}

static void *put(struct map *m, uint64_t key, const struct str *bytes, void *value)
{
	if ((m->n + 1) * 4 > m->cap * 3)
		grow(m);

	struct map_slot *slot = find(m, key, bytes);
	void *old = slot->value;
	if (!old) {
		m->n++;
		slot->key = key;
		if (bytes) {
			slot->bytes = str_dup(*bytes);
			slot->bytes_len = bytes->len;
		}
	}
	slot->value = value;
	return old;
}

/* Linear probing: what follows in the cluster is put again. */
static void *remove_slot(struct map *m, struct map_slot *slot)
{
	void *value = slot->value;
	size_t i = (size_t)(slot - m->slots);

	free(slot->bytes);
	*slot = (struct map_slot){0};
	m->n--;
	for (i = (i + 1) & (m->cap - 1); m->slots[i].value; i = (i + 1) & (m->cap - 1)) {
		struct map_slot moved = m->slots[i];
		struct str b = str_make(moved.bytes, moved.bytes_len);
		m->slots[i] = (struct map_slot){0};
		*find(m, moved.key, moved.bytes ? &b : NULL) = moved;
	}
	return value;
}

void map_finish(struct map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		free(m->slots[i].bytes);
	free(m->slots);
	*m = (struct map){0};
}

void *map_get(const struct map *m, uint64_t key)
{
	return m->cap ? find(m, key, NULL)->value : NULL;
}

void *map_put(struct map *m, uint64_t key, void *value)
{
	return put(m, key, NULL, value);
}

void *map_remove(struct map *m, uint64_t key)
{
	struct map_slot *slot = m->cap ? find(m, key, NULL) : NULL;
	return slot && slot->value ? remove_slot(m, slot) : NULL;
}

void *map_get_str(const struct map *m, struct str key)
{
	return m->cap ? find(m, hash_bytes(key), &key)->value : NULL;
}

void *map_put_str(struct map *m, struct str key, void *value)
{
	return put(m, hash_bytes(key), &key, value);
}

void *map_remove_str(struct map *m, struct str key)
{
	struct map_slot *slot = m->cap ? find(m, hash_bytes(key), &key) : NULL;
	return slot && slot->value ? remove_slot(m, slot) : NULL;
}

bool map_next(const struct map *m, size_t *i, struct map_slot **ret)
{
	for (; *i < m->cap; (*i)++) {
		if (m->slots[*i].value) {
			*ret = &m->slots[(*i)++];
			return true;
		}
	}
	return false;
}
