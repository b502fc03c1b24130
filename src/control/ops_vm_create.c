#include <errno.h>

#include "base/clock.h"
#include "base/id.h"
#include "control/compile.h"
#include "control/ops.h"
#include "model/name.h"
#include "policy/preset.h"

/* What is kept free on the state's file system: overlays grow as guests write, and the journal must go on. */
#define DISK_RESERVE_MIB 2048

#define ASKED_RULES_MAX 64

struct creation {
	struct arena arena;
	struct store_vm vm;
	struct vm_spec spec;
	struct rec_rule rules[ASKED_RULES_MAX + PRESETS_RULES_MAX]; /* those asked for, then the presets' */
	size_t nrules;
	struct buf encoded[ASKED_RULES_MAX]; /* the canonical rules' bytes */
	struct buf presets;
};

static void creation_finish(struct creation *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(c->encoded); i++)
		buf_finish(&c->encoded[i]);
	buf_finish(&c->presets);
	arena_finish(&c->arena);
}

int op_check_labels(struct str labels, struct error *reterr)
{
	struct str rest = labels, item, key, value, others, other, other_key;
	size_t n = 0;

	while (wire_list_next(&rest, &item)) {
		if (++n > LABELS_MAX)
			return error_set(reterr, -EINVAL, "labels must be at most %d", LABELS_MAX);
		int r = label_parse(item, &key, &value, reterr);
		if (r)
			return r;
		others = rest;
		while (wire_list_next(&others, &other))
			if (label_parse(other, &other_key, &value, NULL) == 0 && str_eq(key, other_key))
				return error_set(reterr, -EINVAL, "labels hold %.*s twice", STR_ARG(key));
	}
	return 0;
}

static int take_rules(struct creation *c, const struct msg_vm_create *m, struct error *reterr)
{
	struct str rules = m->rules, item;

	while (wire_list_next(&rules, &item)) {
		size_t i = c->nrules;
		if (i == ARRAY_SIZE(c->encoded))
			return error_set(reterr, -EINVAL, "egress.rules must be at most %zu", ARRAY_SIZE(c->encoded));
		int r = op_take_rule(item, m->rules_tls_given >> i & 1, &c->encoded[i], &c->rules[i], reterr);
		c->nrules++;
		if (r) {
			error_prefix(reterr, "egress.rules[%zu]", i);
			return r;
		}
		for (size_t k = 0; k < i; k++)
			if (c->rules[i].name.len && str_eq(c->rules[i].name, c->rules[k].name))
				return error_set(reterr, -EINVAL, "egress.rules: two are named %.*s",
				                 STR_ARG(c->rules[i].name));
	}
	return 0;
}

/* The presets' rules, each preset's once. -ENOENT: there is no such preset. */
static int take_presets(struct creation *c, const struct presets *all, struct str names, struct error *reterr)
{
	struct str rest = names, name, earlier, other, rules, item;
	int r = 0;

	while (r == 0 && wire_list_next(&rest, &name)) {
		const struct preset *p = preset_find(all, name);
		if (!p)
			return error_set(reterr, -ENOENT, "there is no preset %.*s; `iron egress preset list` shows which there are",
					 STR_ARG(name));
		for (earlier = names; wire_list_next(&earlier, &other) && other.p != name.p;)
			if (str_eq(other, name))
				return error_set(reterr, -EINVAL, "egress.presets hold %.*s twice", STR_ARG(name));
		r = preset_expand(p, &c->presets);
	}
	/* only now: the list moves as it grows */
	rules = buf_str(&c->presets);
	while (r == 0 && wire_list_next(&rules, &item)) {
		if (c->nrules == ARRAY_SIZE(c->rules))
			return error_set(reterr, -EINVAL, "egress.presets: too many rules");
		r = wire_decode(&rec_rule_wire, item, &c->rules[c->nrules++]);
	}
	return r ? error_set(reterr, r, "egress.presets: the rules cannot be read") : 0;
}

/* Its name, or its id. */
static int find_image(struct control *control, struct str text, struct arena *a, struct row_image *ret)
{
	uint64_t id;

	if (text.len == 0)
		text = str_of(control->settings.default_image);
	if (id_parse("img_", text, &id) == 0)
		return store_image_get(control->store, id, a, ret);
	return store_image_find(control->store, text, a, ret);
}

static int check(struct creation *c, const struct control *control, const struct msg_vm_create *m, struct error *reterr)
{
	int r = vm_name_check("name", m->name, reterr);

	if (r == 0 && m->public_key.len)
		r = public_key_check("public_key", m->public_key, reterr);
	if (r == 0) {
		c->spec = (struct vm_spec){m->vcpus, m->memory_mib, m->disk_gib};
		spec_default(&c->spec, control->settings.shapes, control->settings.nshapes);
		r = spec_check(&c->spec, reterr);
	}
	if (r == 0)
		r = op_check_labels(m->labels, reterr);
	if (r == 0)
		r = take_rules(c, m, reterr);
	return r ? r : take_presets(c, &control->settings.presets, m->presets, reterr);
}

static bool has_room(struct request *r, const struct vm_spec *spec)
{
	const struct settings *s = &r->control->settings;
	struct store_usage all = {0}, own = {0};
	uint32_t there = ((1U << VM_STATE_END) - 1) & ~(uint32_t)VM_STATES_GONE;

	int code = store_vm_usage(r->control->store, 0, there, &all);
	if (code == 0)
		code = store_vm_usage(r->control->store, r->workspace, there, &own);
	if (code) {
		request_fail_store(r, code, "vm_usage");
		return false;
	}
	if (s->max_vms && all.vms >= s->max_vms) {
		request_fail(r, CODE_QUOTA_EXCEEDED, "limits.max_vms: the host has its %u VMs; destroy one first",
		             s->max_vms);
		return false;
	}
	if (s->max_vms_per_workspace && own.vms >= s->max_vms_per_workspace) {
		request_fail(r, CODE_QUOTA_EXCEEDED,
			     "limits.max_vms_per_workspace: the workspace has its %u VMs; destroy one first",
			     s->max_vms_per_workspace);
		return false;
	}
	if (r->control->disk_available_mib < DISK_RESERVE_MIB) {
		request_fail(r, CODE_NO_ROOM, "the host's disk has %llu MiB left; destroy VMs or make room",
			     (unsigned long long)r->control->disk_available_mib);
		return false;
	}
	return op_admit_vm(r, spec);
}

bool op_name_is_free(struct request *r, struct str name)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct msg_vm_list q = {.name = name, .limit = 20};
	struct store_vms vms;

	int code = store_vms_list(r->control->store, r->workspace, &q, &a, &vms);
	if (code) {
		request_fail_store(r, code, "vms_list");
		return false;
	}
	/* what is alive comes first */
	if (vms.n == 0 || VM_STATES_GONE & VM_STATE_BIT(vms.v[0].state))
		return true;
	request_fail(r, CODE_VM_NAME_TAKEN, "a VM named %.*s exists; destroy it or choose another name", STR_ARG(name));
	return false;
}

static void fill(struct creation *c, struct request *r, const struct row_image *image)
{
	const struct msg_vm_create *m = REQUEST_RECORD(r, msg_vm_create);
	int64_t now = real_ms();

	c->vm = (struct store_vm){
		.workspace = r->workspace,
		.state = VM_QUEUED,
		.public_key = m->public_key,
		.image = image->id,
		.egress_mode = m->egress_mode,
		.egress_inherit = m->egress_inherit,
		.row = {
			.id = r->new_id,
			.name = m->name,
			.status = str_of(vm_state_status(VM_QUEUED)),
			.status_detail = str_of(vm_state_detail(VM_QUEUED)),
			.image = image->name,
			.vcpus = c->spec.vcpus,
			.memory_mib = c->spec.memory_mib,
			.disk_gib = c->spec.disk_gib,
			.labels = m->labels,
			.created_at = now,
			.updated_at = now,
			.restart = m->restart,
		},
	};
}

/* The VM and its rules, or nothing. On the disk before it is answered: a power cut does not take back a 201. */
static int insert(struct creation *c, struct request *r)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;

	int code = store_begin(s, STORE_FULL, &tx);
	if (code == 0)
		code = store_vm_create(s, &c->vm);
	for (size_t i = 0; code == 0 && i < c->nrules; i++) {
		c->rules[i].id = id_random();
		c->rules[i].created_at = c->vm.row.created_at;
		code = store_rule_create(s, r->workspace, r->new_id, &c->rules[i]);
	}
	if (code == 0)
		code = request_keep(r);
	return code ? code : store_commit(&tx);
}

static void answer_created(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm vm;

	if (!op_find_vm(r, r->new_id, &a, &vm))
		return;
	if ((VM_STATES_PENDING & VM_STATE_BIT(vm.state)) && !r->expired) {
		request_wait_vm(r, r->new_id, HOLD_MS);
		return;
	}
	op_vm_row(r, &vm);
	request_done(r, 201);
}

void op_detail_of_rules(struct detail *d, const struct rec_rule *v, size_t n)
{
	_cleanup_(buf_finish) struct buf list = {0}, item = {0};

	for (size_t i = 0; i < n; i++) {
		buf_clear(&item);
		buf_append_z(&item, v[i].action ? "deny " : "allow ");
		buf_append_str(&item, v[i].cidr.len ? v[i].cidr : v[i].host);
		if (i + 1 < n)
			buf_append_byte(&item, ',');
		wire_list_add(&list, buf_str(&item));
	}
	detail_add_list(d, "rules", buf_str(&list));
}

static bool on_record(struct request *r, const struct creation *c, const struct row_image *image)
{
	const struct msg_vm_create *m = REQUEST_RECORD(r, msg_vm_create);
	_cleanup_(detail_finish) struct detail d = {0};

	detail_add(&d, "name", m->name);
	detail_add(&d, "image", image->name);
	detail_add_u64(&d, "vcpus", c->spec.vcpus);
	detail_add_u64(&d, "memory_mib", c->spec.memory_mib);
	detail_add_u64(&d, "disk_gib", c->spec.disk_gib);
	detail_add(&d, "egress_mode",
	           m->egress_mode == 2 ? STR("inherit")
	           : m->egress_mode    ? STR("warn")
	                               : STR("enforce"));
	detail_add(&d, "egress_inherit", m->egress_inherit ? STR("true") : STR("false"));
	detail_add(&d, "restart", m->restart ? STR("always") : STR("never"));
	op_detail_of_rules(&d, c->rules, c->nrules);
	return request_on_record(r, EVENT_VM, "create", r->new_id, &d);
}

static void create(struct request *r, struct creation *c)
{
	const struct msg_vm_create *m = REQUEST_RECORD(r, msg_vm_create);
	struct row_image image;
	struct error e = {0};

	int code = check(c, r->control, m, &e);
	if (code) {
		request_fail(r, code == -ENOENT ? CODE_PRESET_NOT_FOUND : CODE_VALIDATION_ERROR, "%s", e.text);
		return;
	}
	if (find_image(r->control, m->image, &c->arena, &image)) {
		request_fail(r, CODE_IMAGE_NOT_FOUND, "there is no image %.*s; `iron image list` shows which there are",
			     STR_ARG(m->image.len ? m->image : str_of(r->control->settings.default_image)));
		return;
	}
	/* a scope that may not loosen egress may not do it at a VM's creation either */
	if ((c->nrules || m->egress_mode != 2 || !m->egress_inherit) && !scope_covers(r->scopes, SCOPE_EGRESS_WRITE)) {
		request_fail(r, CODE_SCOPE_MISSING,
		             "egress needs the scope egress:write; leave egress out, or use another key");
		return;
	}
	if (!op_name_is_free(r, m->name) || !has_room(r, &c->spec) || !on_record(r, c, &image))
		return;
	fill(c, r, &image);
	code = insert(c, r);
	if (code == -EEXIST)
		request_fail(r, CODE_VM_NAME_TAKEN, "a VM named %.*s exists", STR_ARG(m->name));
	else if (code || (code = life_start(r->control->lives, r->new_id)) != 0)
		request_fail_store(r, code, "vm_create");
	else {
		r->applied = true;
		answer_created(r);
	}
}

void op_vm_create(struct request *r)
{
	_cleanup_(creation_finish) struct creation c = {0};

	if (r->applied)
		answer_created(r);
	else
		create(r, &c);
}
