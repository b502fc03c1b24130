#pragma once
/* A VM's size: bounds, shapes, and what it costs the host. */
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* B(field, lowest, highest) */
#define SPEC_BOUNDS(B)                                                                                                 \
	B(vcpus, 1, 32)                                                                                                \
	B(memory_mib, 256, 262144)                                                                                     \
	B(disk_gib, 4, 2048)

#define SPEC_MEMBER(field, lo, hi) uint32_t field;
struct vm_spec {
	SPEC_BOUNDS(SPEC_MEMBER)
};

struct shape {
	char name[64];
	uint32_t vcpus, memory_mib;
};

#define SPEC_DISK_DEFAULT_GIB 10
/* On top of the guest's memory, in the cgroup's limit and in what the budget counts: QEMU itself (96) and its translation
 * cache (64), which only TCG fills; added on every host, so that a VM costs the same everywhere. */
#define SPEC_OVERHEAD_MIB (64 + 96)

/* What is 0 becomes the default: the first shape's (without one: 2 vCPU and 2 GiB), and 10 GiB. */
void spec_default(struct vm_spec *spec, const struct shape *shapes, size_t n);
/* -EINVAL with the field and its bounds. */
int spec_check(const struct vm_spec *spec, struct error *reterr);
uint64_t spec_limit_mib(const struct vm_spec *spec);
