#pragma once
/* From a VM as the store has it to what irond and iron-vm are told of it. */
#include "base/arena.h"
#include "codec/msg.h"
#include "store/store.h"

/* -ENOENT with a reason: the VM, or its image, is not there. */
int vm_prepare_message(struct store *store, uint64_t vm, struct msg_vm_prepare *ret, struct error *reterr);

struct contract {
	struct msg_contract message;
	struct arena arena;
	char machine_id[33];
};
void contract_finish(struct contract *c);
/* All but deadline and trust. */
int vm_contract_message(struct store *store, uint64_t vm, uint64_t generation, struct contract *ret);
