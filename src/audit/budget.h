#pragma once
/* How much of the journal one writer may fill, VM by VM: a bucket of bytes each, filled at a steady rate. A busy proxy is far
 * below it; a guest that opens connections for the sake of the record is not. Bounded: past BUDGET_VMS a writer's
 * further VMs share one bucket, as does what belongs to no VM. */
#include <stdint.h>

#include "base/map.h"

#define BUDGET_BURST_BYTES ((uint64_t)1 << 30)
#define BUDGET_BYTES_PER_S ((uint64_t)1 << 20)
#define BUDGET_VMS 1024

struct budget {
	struct map buckets; /* VM → struct bucket */
};

void budget_finish(struct budget *b);
/* Whether `bytes` for the VM fit now, counting `*pending` (bytes of the same batch that were asked for before, kept by the
 * caller in the bucket through budget_hold). */
int budget_hold(struct budget *b, uint64_t vm, uint64_t bytes, uint64_t now_ms); /* -EDQUOT: nothing is held for it */
/* The batch was written: what was held is spent. Or it was not: it is given back. */
void budget_settle(struct budget *b, int written);
