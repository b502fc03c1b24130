#include "egress/inside.h"

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "egress/refuse.h"

#define RULES_SHOWN 500
#define RULES_BYTES 98304 /* shown of them: with the denials, what a connection holds for its guest takes the page */

bool inside_host_agrees(const struct http1_request *req)
{
	struct str name = str_of(req->host.name);
	return str_eq(name, STR(IRON_INTERNAL)) || (req->host.ip.family == 4 && ip_v4(&req->host.ip) == GUEST_GATEWAY);
}

static const char *mode_text(const struct door_vm *vm)
{
	if (!vm->policy)
		return "none";
	return policy_mode(vm->policy) == MODE_WARN ? "warn" : "enforce";
}

static size_t rule_count(const struct door_vm *vm)
{
	return vm->policy ? policy_rule_count(vm->policy) : 0;
}

/* As many as are shown; answers how many are not. */
static size_t append_rules(const struct door_vm *vm, void (*append)(struct buf *, const struct rec_rule *, bool first),
			   struct buf *out)
{
	size_t start = out->len, n = rule_count(vm);

	for (size_t i = 0; i < n; i++) {
		size_t before = out->len;
		if (i < RULES_SHOWN)
			append(out, policy_rule_at(vm->policy, i), i == 0);
		if (i < RULES_SHOWN && out->len - start <= RULES_BYTES)
			continue;
		out->len = before;
		return n - i;
	}
	return 0;
}

static struct str rule_target(const struct rec_rule *r)
{
	return r->host.len ? r->host : r->cidr;
}

static void append_list(struct buf *out, struct str list, const char *separator)
{
	struct str item;

	for (bool first = true; wire_list_next(&list, &item); first = false) {
		if (!first)
			buf_append_z(out, separator);
		escape_terminal(item, out);
	}
}

static void append_ports(struct buf *out, struct str list, const char *separator)
{
	uint64_t port;

	for (bool first = true; wire_list_next_u64(&list, &port); first = false)
		buf_printf(out, "%s%llu", first ? "" : separator, (unsigned long long)port);
}

static void rule_as_text(struct buf *out, const struct rec_rule *r, bool first)
{
	buf_append_z(out, r->action ? "  deny   " : "  allow  ");
	escape_terminal(rule_target(r), out);
	if (r->ports.len) {
		buf_append_z(out, "  ports ");
		append_ports(out, r->ports, ", ");
	}
	if (r->methods.len) {
		buf_append_z(out, "  methods ");
		append_list(out, r->methods, ", ");
	}
	if (r->paths.len) {
		buf_append_z(out, "  paths ");
		append_list(out, r->paths, ", ");
	}
	if (r->tls)
		buf_append_z(out, "  tls passthrough");
	buf_append_byte(out, '\n');
}

static const struct denial *denial_at(const struct door_vm *vm, unsigned back)
{
	return &vm->denials[(vm->ndenials - 1 - back) % DENIALS_KEPT];
}

static unsigned denials_shown(const struct door_vm *vm)
{
	return MIN(vm->ndenials, (unsigned)DENIALS_KEPT);
}

static void page_as_text(const struct door_vm *vm, struct buf *out)
{
	char when[RFC3339_SIZE];

	buf_append_z(out, "This machine's egress policy: what may leave it. Mode: ");
	buf_printf(out, "%s.\n\nRules%s:\n", mode_text(vm), rule_count(vm) ? "" : ": none, so nothing may leave");
	size_t more = append_rules(vm, rule_as_text, out);
	if (more)
		buf_printf(out, "  and %zu more that are not shown\n", more);
	buf_printf(out, "\nLatest denials%s\n", denials_shown(vm) ? ":" : ": none");
	for (unsigned i = 0; i < denials_shown(vm); i++) {
		const struct denial *d = denial_at(vm, i);
		rfc3339_format(d->at_ms, when);
		buf_printf(out, "  %s  ", when);
		escape_terminal(str_of(d->host), out);
		buf_printf(out, ":%u  ", d->port);
		escape_terminal(str_of(d->reason), out);
		buf_append_byte(out, '\n');
	}
}

static void json_list(struct buf *out, const char *key, struct str list)
{
	struct str item;

	buf_printf(out, ", \"%s\": [", key);
	for (bool first = true; wire_list_next(&list, &item); first = false) {
		if (!first)
			buf_append_z(out, ", ");
		json_text(out, item);
	}
	buf_append_byte(out, ']');
}

static void rule_as_json(struct buf *out, const struct rec_rule *r, bool first)
{
	char id[ID_TEXT_SIZE];

	id_format("egr_", r->id, id);
	buf_printf(out, "%s{\"id\": \"%s\", \"host\": ", first ? "\n  " : ",\n  ", id);
	json_text(out, r->host);
	buf_append_z(out, ", \"cidr\": ");
	json_text(out, r->cidr);
	buf_append_z(out, ", \"ports\": [");
	append_ports(out, r->ports, ", ");
	buf_append_byte(out, ']');
	json_list(out, "methods", r->methods);
	json_list(out, "paths", r->paths);
	buf_printf(out, ", \"tls\": \"%s\", \"action\": \"%s\"}", r->tls ? "passthrough" : "intercept",
		   r->action ? "deny" : "allow");
}

static void denial_as_json(struct buf *out, const struct denial *d)
{
	char when[RFC3339_SIZE];

	rfc3339_format(d->at_ms, when);
	buf_printf(out, "{\"timestamp\": \"%s\", \"host\": ", when);
	json_text(out, str_of(d->host));
	buf_printf(out, ", \"port\": %u, \"reason\": ", d->port);
	json_text(out, str_of(d->reason));
	buf_append_byte(out, '}');
}

static void page_as_json(const struct door_vm *vm, struct buf *out)
{
	buf_printf(out, "{\"mode\": \"%s\", \"rules\": [", mode_text(vm));
	size_t more = append_rules(vm, rule_as_json, out);
	buf_printf(out, "], \"rules_not_shown\": %zu, \"denials\": [", more);
	for (unsigned i = 0; i < denials_shown(vm); i++) {
		buf_append_z(out, i ? ",\n  " : "\n  ");
		denial_as_json(out, denial_at(vm, i));
	}
	buf_append_z(out, "]}\n");
}

static void write_answer(struct buf *out, unsigned status, const char *type, const struct buf *body, bool close,
			 bool to_head)
{
	http1_write_status(out, status, NULL);
	http1_write_header(out, STR("Content-Type"), str_of(type));
	http1_write_header_u64(out, STR("Content-Length"), body->len);
	http1_write_header(out, STR("Cache-Control"), STR("no-store"));
	if (status == 405)
		http1_write_header(out, STR("Allow"), STR("GET, HEAD"));
	if (close)
		http1_write_header(out, STR("Connection"), STR("close"));
	http1_write_end(out);
	if (!to_head)
		buf_append_str(out, buf_str(body));
}

void inside_answer(const struct door_vm *vm, const struct http1_request *req, bool close, struct buf *out)
{
	_cleanup_(buf_finish) struct buf body = {0};
	bool json = http1_list_has(http1_header_value(&req->head, STR("Accept")), STR("application/json"));
	unsigned status = 200;

	if (req->method_id != HTTP1_GET && req->method_id != HTTP1_HEAD)
		status = 405;
	else if (!str_eq(req->path, STR("/")))
		status = 404;
	if (status != 200)
		buf_append_z(&body, "Only GET http://" IRON_INTERNAL "/ is here.\n");
	else if (json)
		page_as_json(vm, &body);
	else
		page_as_text(vm, &body);
	write_answer(out, status, status == 200 && json ? "application/json" : "text/plain; charset=utf-8", &body,
		     close, req->method_id == HTTP1_HEAD);
}
