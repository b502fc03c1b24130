#include "audit/budget.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct bucket {
	uint64_t left, held, filled_ms;
};

void budget_finish(struct budget *b)
{
	struct map_slot *slot;

	for (size_t i = 0; map_next(&b->buckets, &i, &slot);)
		free(slot->value);
	map_finish(&b->buckets);
}

static void fill(const struct budget *b, struct bucket *k, uint64_t now_ms)
{
	uint64_t ms = now_ms - k->filled_ms, full_ms = b->burst_bytes / b->bytes_per_s * 1000 + 1000;

	if (now_ms <= k->filled_ms)
		return;
	k->filled_ms = now_ms;
	k->left = MIN(b->burst_bytes, k->left + MIN(ms, full_ms) * b->bytes_per_s / 1000);
}

/* VMs that wrote nothing for long are forgotten. */
static void forget_full(struct budget *b, uint64_t now_ms)
{
	struct map_slot *slot;

	for (size_t i = 0; map_next(&b->buckets, &i, &slot);) {
		struct bucket *k = slot->value;
		fill(b, k, now_ms);
		if (k->held == 0 && k->left == b->burst_bytes)
			free(map_remove(&b->buckets, slot->key));
	}
}

static struct bucket *bucket_of(struct budget *b, uint64_t vm, uint64_t now_ms)
{
	struct bucket *k = map_get(&b->buckets, vm);

	if (k)
		return k;
	if (b->buckets.n >= BUDGET_VMS && vm)
		forget_full(b, now_ms);
	if (b->buckets.n >= BUDGET_VMS && vm)
		return bucket_of(b, 0, now_ms);
	k = xcalloc(1, sizeof *k);
	*k = (struct bucket){.left = b->burst_bytes, .filled_ms = now_ms};
	map_put(&b->buckets, vm, k);
	return k;
}

int budget_hold(struct budget *b, uint64_t vm, uint64_t bytes, uint64_t now_ms)
{
	struct bucket *k = bucket_of(b, vm, now_ms);

	fill(b, k, now_ms);
	if (k->left < k->held + bytes)
		return -EDQUOT;
	k->held += bytes;
	return 0;
}

void budget_settle(struct budget *b, int written)
{
	struct map_slot *slot;

	for (size_t i = 0; map_next(&b->buckets, &i, &slot);) {
		struct bucket *k = slot->value;
		if (written)
			k->left -= k->held;
		k->held = 0;
	}
}
