#include "model/vm_state.h"

#include <stddef.h>

struct info {
	const char *status, *detail;
	uint8_t next[8]; /* zero-terminated */
};

#define VM_STATE_INFO(id, number, status_, detail_, ...)                                                               \
	[number] = {.status = (status_), .detail = (detail_), .next = {__VA_ARGS__}},
static const struct info infos[VM_STATE_END] = {VM_STATE_TABLE(VM_STATE_INFO)};

static const struct info *info_get(unsigned state)
{
	return state < VM_STATE_END && infos[state].status ? &infos[state] : NULL;
}

const char *vm_state_status(unsigned state)
{
	const struct info *i = info_get(state);
	return i ? i->status : "";
}

const char *vm_state_detail(unsigned state)
{
	const struct info *i = info_get(state);
	return i ? i->detail : "";
}

bool vm_state_may_follow(unsigned from, unsigned to)
{
	const struct info *i = info_get(from);

	for (size_t k = 0; i && i->next[k]; k++)
		if (i->next[k] == to)
			return true;
	return false;
}

static uint32_t states_of(struct str text, const char *(*field)(unsigned))
{
	uint32_t set = 0;

	for (unsigned s = 0; s < VM_STATE_END; s++)
		if (info_get(s) && (text.len == 0 || str_eq(text, str_of(field(s)))))
			set |= VM_STATE_BIT(s);
	return set;
}

uint32_t vm_states_of_status(struct str status)
{
	return states_of(status, vm_state_status);
}

uint32_t vm_states_of_detail(struct str detail)
{
	return states_of(detail, vm_state_detail);
}
