#include "model/spec.h"

#include <errno.h>

static const struct shape built_in = {"default", 2, 2048};

void spec_default(struct vm_spec *spec, const struct shape *shapes, size_t n)
{
	const struct shape *shape = n ? &shapes[0] : &built_in;

	if (spec->vcpus == 0)
		spec->vcpus = shape->vcpus;
	if (spec->memory_mib == 0)
		spec->memory_mib = shape->memory_mib;
	if (spec->disk_gib == 0)
		spec->disk_gib = SPEC_DISK_DEFAULT_GIB;
}

#define SPEC_CHECK(field, lo, hi)                                                                                      \
	if (spec->field < (lo) || spec->field > (hi))                                                                  \
		return error_set(reterr, -EINVAL, #field " must be %d to %d, not %u", (lo), (hi), spec->field);

int spec_check(const struct vm_spec *spec, struct error *reterr)
{
	SPEC_BOUNDS(SPEC_CHECK)
	return 0;
}

uint64_t spec_limit_mib(const struct vm_spec *spec)
{
	return (uint64_t)spec->memory_mib + SPEC_OVERHEAD_MIB;
}
