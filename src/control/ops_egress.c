#include <errno.h>

#include "base/clock.h"
#include "base/id.h"
#include "control/compile.h"
#include "control/ops.h"
#include "model/name.h"
#include "policy/rule.h"

/* The owner of a policy or of rules: the workspace (vm 0), or a VM of it that is there. False: answered. */
static bool owner_found(struct request *r, uint64_t vm, struct arena *a, struct store_vm *ret)
{
	*ret = (struct store_vm){0};
	if (vm == 0)
		return true;
	if (!op_find_vm(r, vm, a, ret))
		return false;
	if (!(VM_STATES_GONE & VM_STATE_BIT(ret->state)))
		return true;
	request_fail(r, CODE_VM_NOT_FOUND, "the VM is destroyed");
	return false;
}

/* --- mode --- */

static void answer_policy(struct request *r, const struct store_vm *vm, uint16_t status)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_workspace w;
	struct row_policy row = {.mode = vm->egress_mode};

	int code = store_workspace_get(r->control->store, r->workspace, &a, &w);
	if (code) {
		request_fail_store(r, code, "workspace_get");
		return;
	}
	row.inherited = vm->row.id && vm->egress_mode == 2;
	if (!vm->row.id || row.inherited)
		row.mode = w.mode;
	request_row(r, MSG_TYPE_row_policy, &row);
	request_done(r, status);
}

void op_policy_get(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm vm;

	if (owner_found(r, REQUEST_RECORD(r, msg_object)->vm, &a, &vm))
		answer_policy(r, &vm, 200);
}

static int store_mode(struct request *r, const struct store_vm *vm, uint8_t mode)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;
	struct store_vm changed = *vm;

	changed.egress_mode = mode;
	changed.row.updated_at = real_ms();
	int code = store_begin(s, STORE_FULL, &tx);
	if (code == 0)
		code = vm->row.id ? store_vm_update(s, &changed) : store_workspace_set_mode(s, r->workspace, mode);
	return code ? code : store_commit(&tx);
}

/* True once the mode is stored and the workers have it. */
static bool set_mode(struct request *r, const struct store_vm *vm, uint8_t mode)
{
	static const char *const names[] = {"enforce", "warn", "inherit"};
	_cleanup_(detail_finish) struct detail d = {0};

	if (r->applied)
		return true;
	detail_add(&d, "mode", str_of(names[mode]));
	if (!request_on_record(r, EVENT_POLICY, "set_mode", vm->row.id, &d))
		return false;
	int code = store_mode(r, vm, mode);
	if (code) {
		request_fail_store(r, code, "set_mode");
		return false;
	}
	r->applied = true;
	request_wait_policy(r, vm->row.id);
	return false;
}

void op_policy_put(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_policy_put *m = REQUEST_RECORD(r, msg_policy_put);
	struct store_vm vm;

	if (!owner_found(r, m->vm, &a, &vm))
		return;
	if (m->mode > MODE_WARN) {
		request_fail(r, CODE_VALIDATION_ERROR, "mode must be enforce or warn");
		return;
	}
	if (set_mode(r, &vm, m->mode))
		answer_policy(r, &vm, 200);
}

void op_policy_delete(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_object *m = REQUEST_RECORD(r, msg_object);
	struct store_vm vm;

	if (owner_found(r, m->vm, &a, &vm) && set_mode(r, &vm, 2))
		request_done(r, 204);
}

/* --- rules --- */

static int rule_row(struct request *r, const struct rec_rule *rule)
{
	_cleanup_(buf_finish) struct buf b = {0};
	int code = wire_encode(&rec_rule_wire, rule, &b);

	if (code == 0)
		request_row(r, MSG_TYPE_row_rule, &(struct row_rule){.rule = buf_str(&b)});
	return code;
}

struct str op_canonical_host(struct str asked, char ret[HOST_PATTERN_SIZE])
{
	struct host_pattern pattern;
	struct error e = {0};

	if (!asked.len || host_pattern_parse(asked, hostname_parse_idn, &pattern, &e))
		return asked;
	host_pattern_format(&pattern, ret);
	return str_of(ret);
}

struct str op_canonical_cidr(struct str asked, char ret[CIDR_TEXT_SIZE])
{
	struct cidr cidr;

	if (!asked.len || cidr_parse(asked, &cidr))
		return asked;
	cidr_format(&cidr, ret);
	return str_of(ret);
}

void op_rule_list(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)32 << 20};
	struct msg_rule_list q = *REQUEST_RECORD(r, msg_rule_list);
	char host[HOST_PATTERN_SIZE], cidr[CIDR_TEXT_SIZE];
	struct store_rules rules;
	struct store_vm vm;

	if (q.vm && !op_find_vm(r, q.vm, &a, &vm))
		return;
	q.host = op_canonical_host(q.host, host);
	q.cidr = op_canonical_cidr(q.cidr, cidr);
	int code = store_rules_list(r->control->store, r->workspace, &q, &a, &rules);
	if (code) {
		request_fail_list(r, code, "rules_list");
		return;
	}
	for (size_t i = 0; code == 0 && i < rules.n; i++)
		code = rule_row(r, &rules.v[i]);
	if (code)
		request_fail_store(r, code, "rules_list");
	else
		request_done_page(r, rules.page.has_more, rules.page.cursor);
}

static size_t rule_size(const struct rec_rule *rule)
{
	return 256 + rule->host.len + rule->ports.len + rule->methods.len + rule->paths.len + rule->addresses.len +
	       rule->comment.len;
}

bool op_rules_have_room(struct request *r, uint64_t vm, const struct rec_rule *more, size_t n)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)64 << 20};
	struct store_rules rules;
	size_t bytes = 0;

	int code = store_rules_all(r->control->store, r->workspace, vm, &a, &rules);
	if (code) {
		request_fail_store(r, code, "rules_all");
		return false;
	}
	for (size_t i = 0; i < rules.n; i++)
		bytes += rule_size(&rules.v[i]);
	for (size_t i = 0; i < n; i++)
		bytes += rule_size(&more[i]);
	if (rules.n + n <= OWNER_RULES_MAX && bytes <= OWNER_RULES_BYTES_MAX)
		return true;
	request_fail(r, CODE_QUOTA_EXCEEDED, "rules: at most %d, of %zu KiB together; remove some first",
	             OWNER_RULES_MAX, OWNER_RULES_BYTES_MAX >> 10);
	return false;
}

static void detail_of_ports(struct detail *d, struct str ports)
{
	_cleanup_(buf_finish) struct buf text = {0};
	uint64_t port;

	while (wire_list_next_u64(&ports, &port))
		buf_printf(&text, "%s%llu", text.len ? " " : "", (unsigned long long)port);
	if (text.len)
		detail_add(d, "ports", buf_str(&text));
}

static bool rule_on_record(struct request *r, const char *action, uint64_t vm, const struct rec_rule *rule)
{
	_cleanup_(detail_finish) struct detail d = {0};

	detail_add_id(&d, "rule", "egr_", rule->id);
	detail_add(&d, "name", rule->name);
	detail_add(&d, rule->cidr.len ? "cidr" : "host", rule->cidr.len ? rule->cidr : rule->host);
	detail_add(&d, "action", rule->action ? STR("deny") : STR("allow"));
	detail_add(&d, "tls", rule->tls ? STR("passthrough") : STR("intercept"));
	detail_of_ports(&d, rule->ports);
	detail_add_list(&d, "methods", rule->methods);
	detail_add_list(&d, "paths", rule->paths);
	detail_add_list(&d, "addresses", rule->addresses);
	return request_on_record(r, EVENT_RULE, action, vm, &d);
}

int op_take_rule(struct str encoded, bool tls_given, struct buf *out, struct rec_rule *ret, struct error *reterr)
{
	struct rec_rule asked;

	int code = wire_decode(&rec_rule_wire, encoded, &asked);
	if (code)
		return error_set(reterr, code, "the rule is malformed");
	if (name_is_like_id(asked.name))
		return error_set(reterr, -EINVAL, "name must not begin like an id (vm_, egr_, key_ ...)");
	code = rule_canonicalise(&asked, tls_given, out, reterr);
	return code ? code : wire_decode(&rec_rule_wire, buf_str(out), ret);
}

static int insert_rule(struct request *r, uint64_t vm, const struct rec_rule *rule)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;

	int code = store_begin(s, STORE_FULL, &tx);
	if (code == 0)
		code = store_rule_create(s, r->workspace, vm, rule);
	if (code == 0)
		code = request_keep(r);
	return code ? code : store_commit(&tx);
}

static void answer_rule(struct request *r, uint64_t vm)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct rec_rule rule;

	int code = store_rule_get(r->control->store, r->workspace, vm, r->new_id, &a, &rule);
	if (code == 0)
		code = rule_row(r, &rule);
	if (code == -ENOENT)
		request_fail(r, CODE_RULE_NOT_FOUND, "the rule was removed meanwhile");
	else if (code)
		request_fail_store(r, code, "rule_get");
	else
		request_done(r, 201);
}

static bool rule_name_is_free(struct request *r, uint64_t vm, struct str name)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct msg_rule_list q = {.vm = vm, .name = name, .limit = 1};
	struct store_rules rules;

	int code = name.len ? store_rules_list(r->control->store, r->workspace, &q, &a, &rules) : -ENOENT;
	if (code == -ENOENT || (code == 0 && rules.n == 0))
		return true;
	if (code)
		request_fail_store(r, code, "rules_list");
	else
		request_fail(r, CODE_RULE_NAME_TAKEN, "a rule named %.*s exists; remove it or choose another name",
			     STR_ARG(name));
	return false;
}

void op_rule_create(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(buf_finish) struct buf bytes = {0};
	const struct msg_rule_create *m = REQUEST_RECORD(r, msg_rule_create);
	struct error e = {0};
	struct rec_rule rule;
	struct store_vm vm;

	if (r->applied) {
		answer_rule(r, m->vm);
		return;
	}
	if (!owner_found(r, m->vm, &a, &vm))
		return;
	if (op_take_rule(m->rule, m->tls_given, &bytes, &rule, &e)) {
		request_fail(r, CODE_VALIDATION_ERROR, "%s", e.text);
		return;
	}
	rule.id = r->new_id;
	rule.created_at = real_ms();
	rule.workspace_wide = m->vm == 0;
	if (!rule_name_is_free(r, m->vm, rule.name) || !op_rules_have_room(r, m->vm, &rule, 1) ||
	    !rule_on_record(r, "create", m->vm, &rule))
		return;
	int code = insert_rule(r, m->vm, &rule);
	if (code == -EEXIST) {
		request_fail(r, CODE_RULE_NAME_TAKEN, "a rule named %.*s exists", STR_ARG(rule.name));
	} else if (code) {
		request_fail_store(r, code, "rule_create");
	} else {
		r->applied = true;
		request_wait_policy(r, m->vm);
	}
}

static int remove_rule(struct request *r, uint64_t vm, uint64_t id)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;

	int code = store_begin(s, STORE_FULL, &tx);
	if (code == 0)
		code = store_rule_delete(s, r->workspace, vm, id);
	return code ? code : store_commit(&tx);
}

void op_rule_delete(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	const struct msg_object *m = REQUEST_RECORD(r, msg_object);
	struct rec_rule rule;
	struct store_vm vm;

	if (r->applied) {
		request_done(r, 204);
		return;
	}
	if (!owner_found(r, m->vm, &a, &vm))
		return;
	int code = store_rule_get(r->control->store, r->workspace, m->vm, m->id, &a, &rule);
	if (code == 0 && !rule_on_record(r, "delete", m->vm, &rule))
		return;
	if (code == 0)
		code = remove_rule(r, m->vm, m->id);
	if (code == -ENOENT) {
		request_fail(r, CODE_RULE_NOT_FOUND, "there is no such rule; `iron egress list` shows which there are");
	} else if (code) {
		request_fail_store(r, code, "rule_delete");
	} else {
		r->applied = true;
		request_wait_policy(r, m->vm);
	}
}
