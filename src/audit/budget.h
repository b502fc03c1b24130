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
	uint64_t burst_bytes, bytes_per_s;
	struct map buckets; /* VM → struct bucket */
};
#define BUDGET_DEFAULT ((struct budget){.burst_bytes = BUDGET_BURST_BYTES, .bytes_per_s = BUDGET_BYTES_PER_S})

void budget_finish(struct budget *b);
/* Sets `bytes` of the VM's aside for a batch, beside what was set aside before. -EDQUOT: there are not so many. */
int budget_hold(struct budget *b, uint64_t vm, uint64_t bytes, uint64_t now_ms);
/* The batch was written: what was held is spent. Or it was not: it is given back. */
void budget_settle(struct budget *b, int written);
