#include "control/vms.h"

#include <errno.h>

int vm_prepare_message(struct store *store, uint64_t id, struct msg_vm_prepare *ret, struct error *reterr)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm vm;
	struct row_image image;

	int r = store_vm_lookup(store, id, &a, &vm);
	if (r)
		return error_set(reterr, r, "the database does not have the VM (%d)", r);
	r = store_image_get(store, vm.image, &a, &image);
	if (r)
		return error_set(reterr, r, "its image %.*s is no longer on this host", STR_ARG(vm.row.image));
	*ret = (struct msg_vm_prepare){
		.vm = id,
		.workspace = vm.workspace,
		.image = vm.image,
		.vcpus = vm.row.vcpus,
		.memory_mib = vm.row.memory_mib,
		.disk_gib = vm.row.disk_gib,
	};
	return 0;
}

/* Mixes id and generation-free constants (splitmix64), so that a machine-id does not show the VM's id. */
static uint64_t mix(uint64_t v)
{
	v += 0x9e3779b97f4a7c15ULL;
	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ULL;
	v = (v ^ v >> 27) * 0x94d049bb133111ebULL;
	return v ^ v >> 31;
}

int vm_contract_message(struct store *store, uint64_t id, uint64_t generation, struct contract *ret)
{
	struct store_vm vm;

	int r = store_vm_lookup(store, id, &ret->arena, &vm);
	if (r)
		return r;
	/* the same in each start of one VM, and of no other */
	snprintf(ret->machine_id, sizeof ret->machine_id, "%016llx%016llx", (unsigned long long)mix(id),
		 (unsigned long long)mix(~id));
	ret->message = (struct msg_contract){
		.vm = id,
		.generation = generation,
		.hostname = vm.row.name,
		.machine_id = str_make(ret->machine_id, 32),
	};
	return 0;
}

void contract_finish(struct contract *c)
{
	arena_finish(&c->arena);
}
