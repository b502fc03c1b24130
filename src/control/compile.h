#pragma once
/* From the store to one VM's whole policy: its mode (its own or the workspace's), its own rules, and those of the
 * workspace that hold for it (policy_includes). */
#include "base/buf.h"
#include "codec/record.h"
#include "store/store.h"

/* A bound on what is sent to a worker in one go, below the channel's queue; rules past it are refused when they are
 * made. */
#define COMPILED_MAX ((size_t)12 << 20)
/* A workspace, and each VM, may hold so many rules and bytes of them: both together stay below that. */
#define OWNER_RULES_MAX 2000
#define OWNER_RULES_BYTES_MAX ((size_t)5 << 20)

struct compiled {
	enum egress_mode mode;
	uint32_t count;
	struct buf rules; /* list of encoded rec_rule */
};

void compiled_finish(struct compiled *c);
/* -ENOENT: no such VM. */
int policy_compile(struct store *store, uint64_t vm, struct compiled *ret);
