#include "control/compile.h"

#include <errno.h>

#include "policy/policy.h"

void compiled_finish(struct compiled *c)
{
	buf_finish(&c->rules);
}

static int add(struct compiled *c, const struct rec_rule *rule, bool workspace_wide)
{
	struct rec_rule r = *rule;

	r.workspace_wide = workspace_wide;
	c->count++;
	return wire_list_add_record(&c->rules, &rec_rule_wire, &r);
}

int policy_compile(struct store *store, uint64_t id, struct compiled *ret)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)64 << 20};
	_cleanup_(compiled_finish) struct compiled c = {.rules = {.max = COMPILED_MAX}};
	struct store_workspace workspace;
	struct store_rules own, wide;
	struct store_vm vm;

	int r = store_vm_lookup(store, id, &a, &vm);
	if (r == 0)
		r = store_workspace_get(store, vm.workspace, &a, &workspace);
	if (r == 0)
		r = store_rules_all(store, vm.workspace, id, &a, &own);
	if (r == 0)
		r = store_rules_all(store, vm.workspace, 0, &a, &wide);
	if (r)
		return r;
	c.mode = vm.egress_mode == 2 ? workspace.mode : vm.egress_mode;
	for (size_t i = 0; r == 0 && i < own.n; i++)
		r = add(&c, &own.v[i], false);
	for (size_t i = 0; r == 0 && i < wide.n; i++)
		if (policy_includes(&wide.v[i], vm.egress_inherit))
			r = add(&c, &wide.v[i], true);
	if (r)
		return r;
	*ret = c;
	c.rules = (struct buf){0};
	return 0;
}
