#pragma once
/* What irond keeps of a VM: state_dir/vms/<id>/vm.json, written by rename and fsync. As long as the file exists the
 * VM's slot is taken; it is the first thing made and the last one removed. */
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vm_record {
	uint64_t vm, workspace, image;
	uint32_t slot; /* uids.h */
	uint32_t vcpus, memory_mib, disk_gib;
	bool prepared; /* false: its preparation was not finished, nobody was told that it exists */
};

/* dir: state_dir/vms/<id>, which exists. */
int vm_record_write(const char *dir, const struct vm_record *r, struct error *reterr);
/* -ENOENT: no file; -EINVAL: not one of ours. */
int vm_record_read(const char *dir, struct vm_record *ret, struct error *reterr);
