#include <errno.h>

#include "control/compile.h"
#include "control/links.h"
#include "control/ops.h"
#include "policy/explain.h"

#define LOCAL_TIMEOUT_MS 5000

static void destroyp(struct policy **p)
{
	policy_destroy(*p);
}

/* The VM's policy as its worker has it, or would have it. */
static int load_policy(struct store *s, uint64_t vm, struct policy **ret)
{
	_cleanup_(compiled_finish) struct compiled c = {0};
	_cleanup_(destroyp) struct policy *p = NULL;
	struct str rules, rule;

	int r = policy_compile(s, vm, &c);
	if (r)
		return r;
	p = policy_create(c.mode);
	rules = buf_str(&c.rules);
	while (r == 0 && wire_list_next(&rules, &rule))
		r = policy_add_encoded(p, rule);
	if (r)
		return r;
	policy_seal(p);
	*ret = take_ptr(p);
	return 0;
}

/* As a person writes it: any case, IDNA, a final dot. */
static int parse_host(struct str asked, struct host *ret, struct error *reterr)
{
	struct host_pattern p;

	int r = host_pattern_parse(asked, hostname_parse_idn, &p, reterr);
	if (r)
		return r;
	if (p.kind == HOST_ANY || p.kind == HOST_SUFFIX)
		return error_set(reterr, -EINVAL, "takes one name or address, not a pattern");
	*ret = p.host;
	return 0;
}

/* What irond was asked about the address: kept between the handler's two runs. */
struct asked_irond {
	bool local;
};

static bool on_local(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct request *r = arg;
	struct asked_irond *asked = r->work;

	r->waiting = false;
	if (r->dropped) {
		request_discard(r);
	} else if (!m || m->info->type != MSG_TYPE_msg_result) {
		request_fail(r, CODE_UNAVAILABLE, "irond does not answer: try again");
	} else {
		asked->local = IPC_RECORD(m, msg_result)->value;
		r->entry->handle(r);
	}
	return true;
}

/* The kernel's word on a literal, which the worker asks for at each connect. False: it is being asked, or that failed. */
static bool judge_local(struct request *r, const struct explain_request *asked, struct explanation *x)
{
	const struct asked_irond *known = r->work;

	if (asked->host.ip.family != 4 || x->verdict == VERDICT_DENIED)
		return true;
	if (known) {
		if (known->local)
			explain_refuse(x, "%s is an address of the host itself", asked->host.name);
		return true;
	}
	r->work = xcalloc(1, sizeof *known);
	r->work_free = free;
	r->waiting = true;
	if (ipc_call(links_irond(r->control->links), MSG_TYPE_msg_local_get,
		     &(struct msg_local_get){.address = ip_v4(&asked->host.ip)}, NULL, 0, LOCAL_TIMEOUT_MS, on_local, r)) {
		r->waiting = false;
		request_fail(r, CODE_UNAVAILABLE, "irond does not answer: try again");
	}
	return false;
}

static int answer(struct request *r, const struct policy *p, const struct explanation *x)
{
	_cleanup_(buf_finish) struct buf rule = {0};
	int code = x->rule ? wire_encode(&rec_rule_wire, x->rule, &rule) : 0;

	if (code)
		return code;
	struct row_explain row = {
		.verdict = (uint8_t)x->verdict,
		.mode = (uint8_t)policy_mode(p),
		.protocol = (uint8_t)x->protocol,
		.reason = str_make(x->reason, MIN(strlen(x->reason), (size_t)512)),
		.rule = buf_str(&rule),
	};
	request_row(r, MSG_TYPE_row_explain, &row);
	for (size_t i = 0; i < x->nmatched; i++) {
		_cleanup_(buf_finish) struct buf b = {0};
		code = wire_encode(&rec_rule_wire, x->matched[i], &b);
		if (code)
			return code;
		request_row(r, MSG_TYPE_row_rule, &(struct row_rule){.rule = buf_str(&b)});
	}
	request_done(r, 200);
	return 0;
}

void op_egress_explain(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(destroyp) struct policy *p = NULL;
	const struct msg_explain *m = REQUEST_RECORD(r, msg_explain);
	const struct explain_world world = {.limits = r->control->settings.limits,
					    .synthetic = r->control->settings.synthetic};
	struct explain_request asked = {
		.port = m->port, .protocol = m->protocol, .method = m->method, .path = m->path};
	struct error e = {0};
	struct explanation x;
	struct store_vm vm;

	if (!op_find_vm(r, m->vm, &a, &vm))
		return;
	if (VM_STATES_GONE & VM_STATE_BIT(vm.state)) {
		request_fail(r, CODE_VM_NOT_FOUND, "the VM is destroyed");
		return;
	}
	if (parse_host(m->host, &asked.host, &e)) {
		request_fail(r, CODE_VALIDATION_ERROR, "host %s", e.text);
		return;
	}
	int code = load_policy(r->control->store, m->vm, &p);
	if (code == 0) {
		explain_request(p, &world, &asked, &x);
		if (!judge_local(r, &asked, &x))
			return;
		code = answer(r, p, &x);
	}
	if (code)
		request_fail_store(r, code, "explain");
}
