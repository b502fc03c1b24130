/* Egress rules. */
#include "store/store_sqlite.h"

#define PAGE_DEFAULT 50
#define RULE_COLUMNS                                                                                                   \
	"SELECT id, vm IS NULL, name, host, cidr, ports, methods, paths, tls, action, addresses, preset, comment,"     \
	" created_at FROM rules WHERE "

enum rule_sort { SORT_DEFAULT, SORT_CREATED, SORT_NAME }; /* msg_rule_list.sort */

/* The caller's VM is of the workspace: looked at again, since a foreign key knows only that it exists. */
static int vm_is_there(struct store *s, uint64_t workspace, uint64_t vm)
{
	_cleanup_(query_finish) struct query q = {0};

	if (!vm)
		return 0;
	int r = query_begin(s, "SELECT 1 FROM vms WHERE id = ? AND workspace = ?", NULL, &q);
	if (r)
		return r;
	bind_u64(&q, vm);
	bind_u64(&q, workspace);
	r = query_step(&q);
	return r < 0 ? r : r == 0 ? -ENOENT : 0;
}

int store_rule_create(struct store *s, uint64_t workspace, uint64_t vm, const struct rec_rule *rule)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = vm_is_there(s, workspace, vm);

	if (r == 0)
		r = query_begin_write(s,
				      "INSERT INTO rules (id, workspace, vm, name, host, cidr, ports, methods, paths, tls,"
				      " action, addresses, preset, comment, created_at)"
				      " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
				      &q);
	if (r)
		return r;
	bind_u64(&q, rule->id);
	bind_u64(&q, workspace);
	bind_ref(&q, vm);
	bind_str(&q, rule->name);
	bind_str(&q, rule->host);
	bind_str(&q, rule->cidr);
	bind_blob(&q, rule->ports);
	bind_blob(&q, rule->methods);
	bind_blob(&q, rule->paths);
	bind_i64(&q, rule->tls);
	bind_i64(&q, rule->action);
	bind_blob(&q, rule->addresses);
	bind_str(&q, rule->preset);
	bind_str(&q, rule->comment);
	bind_i64(&q, rule->created_at);
	return query_run(&q, NULL);
}

static int rule_columns(struct query *q, struct rec_rule *ret)
{
	struct rec_rule rule = {0};

	rule.id = column_u64(q);
	rule.workspace_wide = column_i64(q);
	rule.name = column_str(q);
	rule.host = column_str(q);
	rule.cidr = column_str(q);
	rule.ports = column_str(q);
	rule.methods = column_str(q);
	rule.paths = column_str(q);
	rule.tls = column_u8(q);
	rule.action = column_u8(q);
	rule.addresses = column_str(q);
	rule.preset = column_str(q);
	rule.comment = column_str(q);
	rule.created_at = column_i64(q);
	if (q->error)
		return q->error;
	*ret = rule;
	return 0;
}

/* The condition "of this workspace, and its own or of this VM". */
static void add_owner(struct select *sel, uint64_t workspace, uint64_t vm)
{
	select_i64(sel, "workspace = ?", (int64_t)workspace);
	if (vm)
		select_i64(sel, " AND vm = ?", (int64_t)vm);
	else
		select_add(sel, " AND vm IS NULL");
}

int store_rule_get(struct store *s, uint64_t workspace, uint64_t vm, uint64_t id, struct arena *a, struct rec_rule *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_add(&sel, RULE_COLUMNS);
	add_owner(&sel, workspace, vm);
	select_i64(&sel, " AND id = ?", (int64_t)id);
	int r = query_begin_select(s, &sel, a, &q);
	if (r == 0)
		r = query_step(&q);
	return r <= 0 ? (r ? r : -ENOENT) : rule_columns(&q, ret);
}

int store_rule_delete(struct store *s, uint64_t workspace, uint64_t vm, uint64_t id)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;

	if (!s->in_tx)
		return -ECANCELED;
	select_add(&sel, "DELETE FROM rules WHERE ");
	add_owner(&sel, workspace, vm);
	select_i64(&sel, " AND id = ?", (int64_t)id);
	int r = query_begin_select(s, &sel, NULL, &q);
	if (r == 0)
		r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_rules_delete_vm(struct store *s, uint64_t vm)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "DELETE FROM rules WHERE vm = ?", &q);

	if (r)
		return r;
	bind_u64(&q, vm);
	return query_run(&q, NULL);
}

static int rules_read(struct query *q, size_t limit, struct store_rules *ret)
{
	struct store_rules rules = {0};
	size_t cap = 0;
	int r = 0;

	while (r == 0 && (r = query_step(q)) > 0) {
		rules.page.has_more = limit && rules.n == limit;
		if (rules.page.has_more)
			break;
		struct rec_rule *rule = rows_push(q->a, (void **)&rules.v, &rules.n, &cap, sizeof *rule);
		r = rule ? rule_columns(q, rule) : -ENOMEM;
	}
	if (r < 0)
		return r;
	*ret = rules;
	return 0;
}

static void add_rule_filters(struct select *sel, const struct msg_rule_list *list)
{
	if (list->host.len)
		select_str(sel, " AND host = ?", list->host);
	if (list->cidr.len)
		select_str(sel, " AND cidr = ?", list->cidr);
	if (list->name.len)
		select_str(sel, " AND name = ?", list->name);
}

static void add_rule_place(struct select *sel, bool by_name, bool desc, const struct cursor *c)
{
	if (c) {
		select_add(sel, by_name ? " AND (name, id) " : " AND (created_at, id) ");
		select_add(sel, desc ? "< (" : "> (");
		if (by_name)
			select_str(sel, "?", c->text);
		else
			select_i64(sel, "?", c->number);
		select_i64(sel, ", ?)", (int64_t)c->id);
	}
	select_add(sel, by_name ? " ORDER BY name" : " ORDER BY created_at");
	select_add(sel, desc ? " DESC, id DESC" : ", id");
}

int store_rules_list(struct store *s, uint64_t workspace, const struct msg_rule_list *list, struct arena *a,
		     struct store_rules *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	size_t limit = list->limit ? list->limit : PAGE_DEFAULT;
	bool by_name = list->sort == SORT_NAME, desc = list->order ? list->order == 2 : !by_name, given = false;
	struct store_rules rules;
	struct cursor c;

	int r = cursor_parse(list->cursor, CURSOR_RULES, list->sort, list->order, a, &c, &given);
	if (r)
		return r;
	select_add(&sel, RULE_COLUMNS);
	add_owner(&sel, workspace, list->vm);
	add_rule_filters(&sel, list);
	add_rule_place(&sel, by_name, desc, given ? &c : NULL);
	select_i64(&sel, " LIMIT ?", (int64_t)limit + 1);
	r = query_begin_select(s, &sel, a, &q);
	if (r == 0)
		r = rules_read(&q, limit, &rules);
	if (r == 0 && rules.page.has_more) {
		const struct rec_rule *last = &rules.v[rules.n - 1];
		c = (struct cursor){.list = CURSOR_RULES, .sort = list->sort, .order = list->order, .id = last->id};
		c.number = by_name ? 0 : last->created_at;
		c.text = by_name ? last->name : STR_NONE;
		r = cursor_format(&c, a, &rules.page.cursor);
	}
	if (r == 0)
		*ret = rules;
	return r;
}

int store_rules_all(struct store *s, uint64_t workspace, uint64_t vm, struct arena *a, struct store_rules *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_add(&sel, RULE_COLUMNS);
	add_owner(&sel, workspace, vm);
	select_add(&sel, " ORDER BY id");
	int r = query_begin_select(s, &sel, a, &q);
	return r ? r : rules_read(&q, 0, ret);
}

int store_rule_count(struct store *s, uint64_t workspace, uint64_t vm, uint64_t *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_add(&sel, "SELECT count(*) FROM rules WHERE ");
	add_owner(&sel, workspace, vm);
	int r = query_begin_select(s, &sel, NULL, &q);
	if (r == 0)
		r = query_step(&q);
	if (r <= 0)
		return r ? r : -EUCLEAN;
	*ret = column_u64(&q);
	return 0;
}
