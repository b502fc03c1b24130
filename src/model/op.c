#include "model/op.h"

#include <stddef.h>

#define OP_INFO(id, method_, path_, scope_, summary_)                                                                  \
	{.name = #id, .method = method_, .path = path_, .summary = summary_, .scope = SCOPE_##scope_},
static const struct op_info infos[] = {OP_TABLE(OP_INFO)};

const struct op_info *op_info_get(unsigned op)
{
	return op < OP_COUNT ? &infos[op] : NULL;
}
