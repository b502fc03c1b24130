/* VMs and their labels. */
#include "base/vec.h"
#include "store/store_sqlite.h"

#define VMS_DEFAULT 20
#define VM_COLUMNS                                                                                                     \
	"SELECT v.id, v.workspace, v.name, v.state, v.status_reason, v.image, v.image_name, v.snapshot, v.parent,"     \
	" v.generation, v.vcpus, v.memory_mib, v.disk_gib, v.public_key, v.egress_mode, v.egress_inherit, v.job,"      \
	" v.job_step, v.created_at, v.updated_at, v.started_at, v.stopped_at, v.restart FROM vms v WHERE "
/* 0: what is alive; 1: failed, destroying or destroyed. */
#define VM_RANK "(v.state IN (9, 10, 11))"

enum vm_sort { SORT_DEFAULT, SORT_CREATED, SORT_UPDATED, SORT_NAME };

static int labels_load(struct store *s, uint64_t vm, struct arena *a, struct str *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	_cleanup_(buf_finish) struct buf list = {0};
	int r = query_begin(s, "SELECT key || '=' || value FROM vm_labels WHERE vm = ? ORDER BY key", a, &q);

	if (r)
		return r;
	bind_u64(&q, vm);
	while ((r = query_step(&q)) > 0)
		wire_list_add(&list, column_str(&q));
	if (r < 0 || q.error || list.failed)
		return r < 0 ? r : q.error ? q.error : -EMSGSIZE;
	*ret = list.len ? arena_str(a, buf_str(&list)) : STR_NONE;
	return list.len && !ret->p ? -ENOMEM : 0;
}

static int labels_save(struct store *s, uint64_t vm, struct str labels)
{
	struct str label, key;
	int r = 0;

	while (r == 0 && wire_list_next(&labels, &label)) {
		_cleanup_(query_finish) struct query q = {0};
		if (str_chr(label, '=') <= 0)
			return -EINVAL;
		str_split(&label, '=', &key);
		r = query_begin_write(s, "INSERT OR REPLACE INTO vm_labels (vm, key, value) VALUES (?, ?, ?)", &q);
		if (r)
			return r;
		bind_u64(&q, vm);
		bind_str(&q, key);
		bind_str(&q, label);
		r = query_run(&q, NULL);
	}
	return r;
}

static int vm_columns(struct query *q, struct store_vm *ret)
{
	struct store_vm vm = {0};
	struct row_vm *row = &vm.row;

	row->id = column_u64(q);
	vm.workspace = column_u64(q);
	row->name = column_str(q);
	vm.state = (enum vm_state)column_i64(q);
	row->status_reason = column_str(q);
	vm.image = column_u64(q);
	row->image = column_str(q);
	row->snapshot = column_u64(q);
	row->parent = column_u64(q);
	row->generation = column_u64(q);
	row->vcpus = column_u32(q);
	row->memory_mib = column_u32(q);
	row->disk_gib = column_u32(q);
	vm.public_key = column_str(q);
	vm.egress_mode = column_u8(q);
	vm.egress_inherit = column_i64(q);
	vm.job = column_u32(q);
	vm.job_step = column_u32(q);
	row->created_at = column_i64(q);
	row->updated_at = column_i64(q);
	row->started_at = column_i64(q);
	row->stopped_at = column_i64(q);
	row->restart = column_u8(q);
	row->status = str_of(vm_state_status(vm.state));
	row->status_detail = str_of(vm_state_detail(vm.state));
	int r = q->error ? q->error : labels_load(q->s, row->id, q->a, &row->labels);
	if (r == 0)
		*ret = vm;
	return r;
}

static int vm_row(struct query *q, struct store_vm *ret)
{
	int r = query_step(q);

	return r <= 0 ? (r ? r : -ENOENT) : vm_columns(q, ret);
}

static void bind_vm(struct query *q, const struct store_vm *vm)
{
	const struct row_vm *row = &vm->row;

	bind_u64(q, row->id);
	bind_u64(q, vm->workspace);
	bind_str(q, row->name);
	bind_i64(q, vm->state);
	bind_str(q, row->status_reason);
	bind_u64(q, vm->image);
	bind_str(q, row->image);
	bind_u64(q, row->snapshot);
	bind_u64(q, row->parent);
	bind_u64(q, row->generation);
	bind_i64(q, row->vcpus);
	bind_i64(q, row->memory_mib);
	bind_i64(q, row->disk_gib);
	bind_str(q, vm->public_key);
	bind_i64(q, vm->egress_mode);
	bind_i64(q, vm->egress_inherit);
	bind_i64(q, vm->job);
	bind_i64(q, vm->job_step);
	bind_i64(q, row->created_at);
	bind_i64(q, row->updated_at);
	bind_i64(q, row->started_at);
	bind_i64(q, row->stopped_at);
	bind_i64(q, row->restart);
}

int store_vm_create(struct store *s, const struct store_vm *vm)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "INSERT INTO vms (id, workspace, name, state, status_reason, image, image_name, snapshot,"
				  " parent, generation, vcpus, memory_mib, disk_gib, public_key, egress_mode, egress_inherit,"
				  " job, job_step, created_at, updated_at, started_at, stopped_at,"
				  " restart) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
				  &q);

	if (r)
		return r;
	bind_vm(&q, vm);
	r = query_run(&q, NULL);
	return r ? r : labels_save(s, vm->row.id, vm->row.labels);
}

int store_vm_get(struct store *s, uint64_t workspace, uint64_t id, struct arena *a, struct store_vm *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, VM_COLUMNS "v.id = ? AND v.workspace = ?", a, &q);

	if (r)
		return r;
	bind_u64(&q, id);
	bind_u64(&q, workspace);
	return vm_row(&q, ret);
}

int store_vm_lookup(struct store *s, uint64_t id, struct arena *a, struct store_vm *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, VM_COLUMNS "v.id = ?", a, &q);

	if (r)
		return r;
	bind_u64(&q, id);
	return vm_row(&q, ret);
}

int store_vm_update(struct store *s, const struct store_vm *vm)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s,
				  "UPDATE vms SET name = ?, state = ?, status_reason = ?, generation = ?, egress_mode = ?,"
				  " egress_inherit = ?, job = ?, job_step = ?, updated_at = ?, started_at = ?, stopped_at = ?,"
				  " restart = ? WHERE id = ?",
				  &q);

	if (r)
		return r;
	bind_str(&q, vm->row.name);
	bind_i64(&q, vm->state);
	bind_str(&q, vm->row.status_reason);
	bind_u64(&q, vm->row.generation);
	bind_i64(&q, vm->egress_mode);
	bind_i64(&q, vm->egress_inherit);
	bind_i64(&q, vm->job);
	bind_i64(&q, vm->job_step);
	bind_i64(&q, vm->row.updated_at);
	bind_i64(&q, vm->row.started_at);
	bind_i64(&q, vm->row.stopped_at);
	bind_i64(&q, vm->row.restart);
	bind_u64(&q, vm->row.id);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_vm_set_job(struct store *s, uint64_t id, uint32_t job, uint32_t step)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s, "UPDATE vms SET job = ?, job_step = ? WHERE id = ?", &q);

	if (r)
		return r;
	bind_i64(&q, job);
	bind_i64(&q, step);
	bind_u64(&q, id);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_vm_set_labels(struct store *s, uint64_t id, struct str labels)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "DELETE FROM vm_labels WHERE vm = ?", &q);

	if (r)
		return r;
	bind_u64(&q, id);
	r = query_run(&q, NULL);
	return r ? r : labels_save(s, id, labels);
}

static void add_states(struct select *sel, uint32_t states)
{
	char number[16];
	const char *comma = "";

	select_add(sel, "v.state IN (");
	for (unsigned i = 1; i < VM_STATE_END; i++) {
		if (!(states & VM_STATE_BIT(i)))
			continue;
		snprintf(number, sizeof number, "%s%u", comma, i);
		select_add(sel, number);
		comma = ",";
	}
	select_add(sel, ")");
}

/* -EINVAL: no such status. */
static int states_asked(const struct msg_vm_list *list, uint32_t *ret)
{
	uint32_t status = vm_states_of_status(list->status), detail = vm_states_of_detail(list->status_detail);

	if (!status || !detail)
		return -EINVAL;
	*ret = status & detail;
	if (!list->status.len && !list->status_detail.len && !list->name.len)
		*ret &= ~(uint32_t)VM_STATES_GONE;
	return 0;
}

static bool descending(const struct msg_vm_list *list)
{
	return list->sort != SORT_DEFAULT && (list->order ? list->order == 2 : list->sort != SORT_NAME);
}

/* Where the last page ended, in the order of add_order. */
static void add_after(struct select *sel, const struct msg_vm_list *list, const struct cursor *c)
{
	const char *than = descending(list) ? ") < (" : ") > (";

	switch ((enum vm_sort)list->sort) {
	case SORT_DEFAULT:
		select_i64(sel, " AND (" VM_RANK ", -v.created_at, -v.id) > (?", c->rank);
		select_i64(sel, ", ?", -c->number);
		select_i64(sel, ", ?)", -(int64_t)c->id);
		return;
	case SORT_CREATED:
		select_add(sel, " AND (v.created_at, v.id");
		break;
	case SORT_UPDATED:
		select_add(sel, " AND (v.updated_at, v.id");
		break;
	case SORT_NAME:
		select_add(sel, " AND (v.name, v.id");
		select_add(sel, than);
		select_str(sel, "?", c->text);
		select_i64(sel, ", ?)", (int64_t)c->id);
		return;
	}
	select_add(sel, than);
	select_i64(sel, "?", c->number);
	select_i64(sel, ", ?)", (int64_t)c->id);
}

static void add_order(struct select *sel, const struct msg_vm_list *list)
{
	static const char *const by[] = {
		[SORT_DEFAULT] = VM_RANK ", -v.created_at, -v.id",
		[SORT_CREATED] = "v.created_at",
		[SORT_UPDATED] = "v.updated_at",
		[SORT_NAME] = "v.name",
	};

	select_add(sel, " ORDER BY ");
	select_add(sel, by[list->sort]);
	if (list->sort != SORT_DEFAULT)
		select_add(sel, descending(list) ? " DESC, v.id DESC" : ", v.id");
}

static struct cursor cursor_at(const struct msg_vm_list *list, const struct store_vm *vm)
{
	bool by_name = list->sort == SORT_NAME;

	return (struct cursor){
		.list = CURSOR_VMS,
		.sort = list->sort,
		.order = list->order,
		.rank = vm->state == VM_DESTROYING || vm->state == VM_DESTROYED || vm->state == VM_FAILED,
		.number = by_name ? 0 : list->sort == SORT_UPDATED ? vm->row.updated_at : vm->row.created_at,
		.text = by_name ? vm->row.name : STR_NONE,
		.id = vm->row.id,
	};
}

/* limit 0: all. */
static int vms_read(struct query *q, size_t limit, struct store_vms *ret)
{
	struct store_vms vms = {0};
	size_t cap = 0;
	int r = 0;

	while (r == 0 && (r = query_step(q)) > 0) {
		vms.page.has_more = limit && vms.n == limit;
		if (vms.page.has_more)
			break;
		struct store_vm *vm = rows_push(q->a, (void **)&vms.v, &vms.n, &cap, sizeof *vm);
		r = vm ? vm_columns(q, vm) : -ENOMEM;
	}
	if (r < 0)
		return r;
	*ret = vms;
	return 0;
}

int store_vms_list(struct store *s, uint64_t workspace, const struct msg_vm_list *list, struct arena *a,
		   struct store_vms *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	size_t limit = list->limit ? list->limit : VMS_DEFAULT;
	struct store_vms vms;
	struct cursor c;
	uint32_t states = 0;
	bool given = false;

	int r = list->sort > SORT_NAME || list->order > 2 ? -EINVAL : states_asked(list, &states);
	if (r == 0)
		r = cursor_parse(list->cursor, CURSOR_VMS, list->sort, list->order, a, &c, &given);
	if (r)
		return r;
	select_i64(&sel, VM_COLUMNS "v.workspace = ? AND ", (int64_t)workspace);
	add_states(&sel, states);
	if (list->name.len)
		select_str(&sel, " AND v.name = ?", list->name);
	if (list->label_key.len) {
		select_str(&sel, " AND EXISTS (SELECT 1 FROM vm_labels l WHERE l.vm = v.id AND l.key = ?", list->label_key);
		select_str(&sel, " AND l.value = ?)", list->label_value);
	}
	if (given)
		add_after(&sel, list, &c);
	add_order(&sel, list);
	select_i64(&sel, " LIMIT ?", (int64_t)limit + 1);
	r = query_begin_select(s, &sel, a, &q);
	if (r == 0)
		r = vms_read(&q, limit, &vms);
	if (r == 0 && vms.page.has_more) {
		c = cursor_at(list, &vms.v[vms.n - 1]);
		r = cursor_format(&c, a, &vms.page.cursor);
	}
	if (r == 0)
		*ret = vms;
	return r;
}

int store_vms_in_states(struct store *s, uint32_t states, struct arena *a, struct store_vms *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_add(&sel, VM_COLUMNS);
	add_states(&sel, states);
	select_add(&sel, " ORDER BY v.id");
	int r = query_begin_select(s, &sel, a, &q);
	return r ? r : vms_read(&q, 0, ret);
}

int store_vm_usage(struct store *s, uint64_t workspace, uint32_t states, struct store_usage *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_add(&sel, "SELECT count(*), coalesce(sum(v.vcpus), 0), coalesce(sum(v.memory_mib), 0) FROM vms v WHERE ");
	add_states(&sel, states);
	if (workspace)
		select_i64(&sel, " AND v.workspace = ?", (int64_t)workspace);
	int r = query_begin_select(s, &sel, NULL, &q);
	if (r == 0)
		r = query_step(&q);
	if (r <= 0)
		return r ? r : -EUCLEAN;
	uint64_t n = column_u64(&q), vcpus = column_u64(&q);
	*ret = (struct store_usage){.vms = n, .vcpus = vcpus, .memory_mib = column_u64(&q)};
	return 0;
}
