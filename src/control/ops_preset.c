/* Presets of the workspace: groups of rules that come and go together. What is added are rules like any other, which carry
 * the preset's name; whether a preset is there is read off them. */
#include <errno.h>

#include "base/clock.h"
#include "base/id.h"
#include "control/ops.h"
#include "policy/preset.h"

/* Rules of one preset. */
struct group {
	struct buf bytes; /* the list of all of its rules */
	struct rec_rule v[PRESET_RULES_MAX]; /* some of them */
	size_t n;
};

static void group_finish(struct group *g)
{
	buf_finish(&g->bytes);
}

/* Alike in what they let pass. */
static bool is_alike(const struct rec_rule *a, const struct rec_rule *b)
{
	return str_eq(a->preset, b->preset) && str_eq(a->host, b->host) && str_eq(a->cidr, b->cidr) &&
	       str_eq(a->ports, b->ports) && str_eq(a->methods, b->methods) && str_eq(a->paths, b->paths) && a->tls == b->tls &&
	       a->action == b->action && str_eq(a->addresses, b->addresses);
}

static bool has_rule(const struct store_rules *rules, const struct rec_rule *rule)
{
	for (size_t i = 0; i < rules->n; i++)
		if (is_alike(&rules->v[i], rule))
			return true;
	return false;
}

/* What of the preset's rules the workspace does not have. */
static int find_missing(const struct preset *p, const struct store_rules *there, struct group *ret)
{
	struct str list, item;
	struct rec_rule rule;

	int r = preset_expand(p, &ret->bytes);
	list = buf_str(&ret->bytes);
	while (r == 0 && wire_list_next(&list, &item)) {
		r = wire_decode(&rec_rule_wire, item, &rule);
		if (r == 0 && !has_rule(there, &rule))
			ret->v[ret->n++] = rule;
	}
	return r;
}

/* --- list --- */

static int preset_row(struct request *r, const struct preset *p, const struct store_rules *there)
{
	_cleanup_(group_finish) struct group missing = {0};

	int code = find_missing(p, there, &missing);
	if (code)
		return code;
	struct row_preset row = {.name = str_of(p->name),
				 .description = str_of(p->summary),
				 .added = missing.n == 0,
				 .rules = buf_str(&missing.bytes)};
	request_row(r, MSG_TYPE_row_preset, &row);
	return 0;
}

/* False: answered. */
static bool load_rules(struct request *r, struct arena *a, struct store_rules *ret)
{
	a->max = (size_t)32 << 20;
	int code = store_rules_all(r->control->store, r->workspace, 0, a, ret);
	if (code)
		request_fail_store(r, code, "rules_all");
	return code == 0;
}

void op_preset_list(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_rules rules;
	int code = 0;

	if (!load_rules(r, &a, &rules))
		return;
	for (size_t i = 0; code == 0 && i < r->control->settings.presets.v.n; i++)
		code = preset_row(r, &r->control->settings.presets.v.v[i], &rules);
	if (code)
		request_fail_store(r, code, "presets");
	else
		request_done_page(r, false, STR_NONE);
}

/* --- add, remove --- */

static bool on_record(struct request *r, const char *action, struct str name, const struct rec_rule *v, size_t n)
{
	_cleanup_(detail_finish) struct detail d = {0};

	detail_add(&d, "preset", name);
	op_detail_of_rules(&d, v, n);
	return request_on_record(r, EVENT_RULE, action, 0, &d);
}

static int insert(struct request *r, struct group *g)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;
	int64_t now = real_ms();

	int code = store_begin(s, STORE_FULL, &tx);
	for (size_t i = 0; code == 0 && i < g->n; i++) {
		g->v[i].id = id_random();
		g->v[i].created_at = now;
		g->v[i].workspace_wide = true;
		code = store_rule_create(s, r->workspace, 0, &g->v[i]);
	}
	return code ? code : store_commit(&tx);
}

static void add(struct request *r, const struct preset *p, const struct store_rules *rules)
{
	_cleanup_(group_finish) struct group missing = {0};

	int code = find_missing(p, rules, &missing);
	if (code == 0 && missing.n) {
		if (!op_rules_have_room(r, 0, missing.v, missing.n) ||
		    !on_record(r, "create", str_of(p->name), missing.v, missing.n))
			return;
		code = insert(r, &missing);
	}
	if (code) {
		request_fail_store(r, code, "preset_add");
		return;
	}
	/* also where nothing is new: a call before this one may have stored it and died */
	r->applied = true;
	request_wait_policy(r, 0);
}

void op_preset_add(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_preset *m = REQUEST_RECORD(r, msg_preset);
	const struct preset *p = preset_find(&r->control->settings.presets, m->name);
	struct store_rules rules;

	if (!p) {
		request_fail(r, CODE_PRESET_NOT_FOUND, "there is no preset %.*s; `iron egress preset list` shows which there are",
			     STR_ARG(m->name));
		return;
	}
	if (!load_rules(r, &a, &rules))
		return;
	if (!r->applied)
		add(r, p, &rules);
	else if (preset_row(r, p, &rules))
		request_fail_store(r, -EINVAL, "presets");
	else
		request_done(r, 200);
}

static int remove_rules(struct request *r, const struct rec_rule *v, size_t n)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;

	int code = store_begin(s, STORE_FULL, &tx);
	for (size_t i = 0; code == 0 && i < n; i++)
		code = store_rule_delete(s, r->workspace, 0, v[i].id);
	return code ? code : store_commit(&tx);
}

void op_preset_remove(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_preset *m = REQUEST_RECORD(r, msg_preset);
	struct store_rules rules;
	size_t n = 0;

	if (r->applied) {
		request_done(r, 204);
		return;
	}
	if (!load_rules(r, &a, &rules))
		return;
	/* by what the rules carry, not by the table: also what an earlier version's preset left */
	for (size_t i = 0; i < rules.n; i++)
		if (str_eq(rules.v[i].preset, m->name))
			rules.v[n++] = rules.v[i];
	if (n == 0) {
		request_fail(r, CODE_PRESET_NOT_FOUND,
			     preset_find(&r->control->settings.presets, m->name) ? "the workspace has no rules of the preset %.*s"
						  : "there is no preset %.*s; `iron egress preset list` shows which there are",
			     STR_ARG(m->name));
		return;
	}
	if (!on_record(r, "delete", m->name, rules.v, n))
		return;
	int code = remove_rules(r, rules.v, n);
	if (code) {
		request_fail_store(r, code, "preset_remove");
		return;
	}
	r->applied = true;
	request_wait_policy(r, 0);
}
