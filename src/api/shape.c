#include "api/shape.h"

#include <errno.h>

#include "api/signals.h"
#include "api/starts.h"
#include "base/clock.h"
#include "base/text.h"
#include "model/name.h"
#include "model/spec.h"

#define AT(type, member) .offset = offsetof(struct type, member)
#define GIVEN(type, member) .given = 1 + offsetof(struct type, member)
#define SET(fields, ...) {.v = (fields), .n = ARRAY_SIZE(fields), ##__VA_ARGS__}

#define MODES "enforce|warn"
#define ORDERS "asc|desc"
#define SORTS "created_at|updated_at|name"
#define RESTARTS "never|always"
#define EXEC_SECONDS_MAX 86400
#define WAIT_SECONDS_MAX 25

static int check_comment(const char *field, struct str s, struct error *reterr)
{
	return text_check(field, s, 255, reterr);
}

static const struct field_set nothing = {0};

/* --- rules --- */

static int check_rule(const void *record, struct error *reterr)
{
	const struct rec_rule *rule = &((const struct rule_asked *)record)->rule;

	if (!rule->host.len == !rule->cidr.len)
		return error_set(reterr, -EINVAL, "host: give either host or cidr");
	return 0;
}

#define RULE_AT(member) .offset = offsetof(struct rule_asked, rule.member)
static const struct field rule_fields[] = {
	{"name", FIELD_TEXT, .hi = 63, .check = object_name_check, RULE_AT(name), .doc = "A name of its own"},
	{"host", FIELD_TEXT, .lo = 1, .hi = 255, .trim = true, RULE_AT(host), .doc = "A name, *.name, * or a literal address"},
	{"cidr", FIELD_TEXT, .lo = 1, .hi = 49, .trim = true, RULE_AT(cidr), .doc = "Instead of host"},
	{"ports", FIELD_PORTS, .items = 128, .total = 1536, RULE_AT(ports),
	 .doc = "Absent: 80 and 443 for a name, every port for an address"},
	{"methods", FIELD_TEXTS, .lo = 1, .hi = 32, .items = 32, .total = 1024, RULE_AT(methods), .doc = "Absent: all"},
	{"paths", FIELD_TEXTS, .lo = 1, .hi = 1024, .items = 64, .total = 32768, RULE_AT(paths), .doc = "Absent: all"},
	{"tls", FIELD_CHOICE, .choices = "intercept|passthrough", RULE_AT(tls), GIVEN(rule_asked, tls_given),
	 .doc = "Absent: intercept for a name, passthrough for an address"},
	{"action", FIELD_CHOICE, .choices = "allow|deny", RULE_AT(action), .doc = "Absent: allow"},
	{"addresses", FIELD_TEXTS, .lo = 1, .hi = 49, .items = 64, .total = 4096, RULE_AT(addresses),
	 .doc = "CIDRs that the name may resolve to although they are private"},
	{"comment", FIELD_TEXT, .hi = 255, .check = check_comment, RULE_AT(comment), .doc = "For people"},
};
static const struct field_set rule_item = SET(rule_fields, .check = check_rule, .either = {"host", "cidr"});

/* The same table for a body of its own: its record lies behind the message. */
static int finish_rule(union params *p, struct arena *a, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf b = BUF_MAX(49152);

	if (wire_encode(&rec_rule_wire, &p->rule_create.asked.rule, &b))
		return error_set(reterr, -EINVAL, "the rule is too large: fewer or shorter paths");
	p->rule_create.msg.tls_given = p->rule_create.asked.tls_given;
	p->rule_create.msg.rule = arena_str(a, buf_str(&b));
	return p->rule_create.msg.rule.p ? 0 : error_set(reterr, -EMSGSIZE, "the request is too large");
}

static const struct field rule_list_query[] = {
	{"host", FIELD_TEXT, .lo = 1, .hi = 255, AT(msg_rule_list, host), .doc = "Exactly this host"},
	{"cidr", FIELD_TEXT, .lo = 1, .hi = 49, AT(msg_rule_list, cidr), .doc = "Exactly this CIDR"},
	{"name", FIELD_TEXT, .lo = 1, .hi = 63, AT(msg_rule_list, name), .doc = "Exactly this name"},
	{"cursor", FIELD_TEXT, .plus = true, .lo = 1, .hi = 255, AT(msg_rule_list, cursor), .doc = "Of the page before"},
	{"limit", FIELD_U32, .lo = 1, .hi = 200, .absent = 50, AT(msg_rule_list, limit), .doc = "Items a page"},
	{"sort", FIELD_CHOICE, .base = 1, .choices = "created_at|name", AT(msg_rule_list, sort), .doc = "By what"},
	{"order", FIELD_CHOICE, .base = 1, .choices = ORDERS, AT(msg_rule_list, order), .doc = "Which way"},
};
static const struct field_set rule_list = SET(rule_list_query);

/* --- VMs --- */

static const struct field vm_egress_fields[] = {
	{"mode", FIELD_CHOICE, .choices = MODES, .absent = 2, AT(msg_vm_create, egress_mode), .doc = "Absent: the workspace's"},
	{"inherit", FIELD_FLAG, .absent = 1, AT(msg_vm_create, egress_inherit), .doc = "The workspace's rules hold too"},
	{"rules", FIELD_RULES, .items = 64, .total = 98304, .sub = &rule_item, AT(msg_vm_create, rules),
	 GIVEN(msg_vm_create, rules_tls_given), .doc = "Rules of this VM alone"},
	{"presets", FIELD_TEXTS, .lo = 1, .hi = 63, .items = 16, .total = 1088, AT(msg_vm_create, presets),
	 .doc = "Names of presets, whose rules the VM gets as its own"},
};
static const struct field_set vm_egress = SET(vm_egress_fields);

#define BOUNDS(field, low, high) {#field, FIELD_U32, .lo = (low), .hi = (high), AT(msg_vm_create, field), .doc = "Absent: the default's"},
static const struct field vm_create_fields[] = {
	{"name", FIELD_TEXT, .required = true, .hi = 63, .check = vm_name_check, .pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", AT(msg_vm_create, name),
	 .doc = "Unique among VMs that are not destroyed"},
	{"public_key", FIELD_TEXT, .trim = true, .hi = 16384, .check = public_key_check, AT(msg_vm_create, public_key),
	 .doc = "One OpenSSH public key"},
	{"image", FIELD_TEXT, .lo = 1, .hi = 63, AT(msg_vm_create, image), .doc = "Absent: the default image"},
	SPEC_BOUNDS(BOUNDS)
	{"labels", FIELD_LABELS, .items = LABELS_MAX, .total = 8192, AT(msg_vm_create, labels), .doc = "Texts by key"},
	{"egress", FIELD_OBJECT, .sub = &vm_egress, .doc = "What the VM may reach"},
	{"restart", FIELD_CHOICE, .choices = RESTARTS, AT(msg_vm_create, restart),
	 .doc = "What follows an end that the API was not asked for; absent: never"},
};
static const struct field_set vm_create = SET(vm_create_fields);

static const struct field vm_list_query[] = {
	{"status", FIELD_TEXT, .hi = 31, .choices = "pending|running|stopped|destroyed|failed", AT(msg_vm_list, status),
	 .doc = "Exactly this status"},
	{"status_detail", FIELD_TEXT, .hi = 31,
	 .choices = "queued|creating|starting|running|ready|stopping|stopped|suspended|destroying|destroyed|failed",
	 AT(msg_vm_list, status_detail), .doc = "Exactly this detail"},
	{"name", FIELD_TEXT, .lo = 1, .hi = 63, AT(msg_vm_list, name), .doc = "Exactly this name"},
	{"label", FIELD_LABEL, AT(msg_vm_list, label_key), .doc = "key=value"},
	{"cursor", FIELD_TEXT, .plus = true, .lo = 1, .hi = 255, AT(msg_vm_list, cursor), .doc = "Of the page before"},
	{"limit", FIELD_U32, .lo = 1, .hi = 100, .absent = 20, AT(msg_vm_list, limit), .doc = "Items a page"},
	{"sort", FIELD_CHOICE, .base = 1, .choices = SORTS, AT(msg_vm_list, sort), .doc = "By what"},
	{"order", FIELD_CHOICE, .base = 1, .choices = ORDERS, AT(msg_vm_list, order), .doc = "Which way"},
};
static const struct field_set vm_list = SET(vm_list_query);

static const struct field vm_get_query[] = {
	{"wait", FIELD_CHOICE, .base = 1, .choices = "ready", AT(vm_wait, wait), .doc = "Hold the answer until it is"},
	{"timeout_s", FIELD_U32, .lo = 1, .hi = WAIT_SECONDS_MAX, .scale = 1000, AT(vm_wait, timeout_ms),
	 .doc = "How long, 25 at most"},
};
static int check_wait(const void *record, struct error *reterr)
{
	const struct vm_wait *w = record;

	return w->timeout_ms && !w->wait ? error_set(reterr, -EINVAL, "timeout_s: only with wait=ready") : 0;
}
static const struct field_set vm_get = SET(vm_get_query, .check = check_wait);

static int finish_wait(union params *p, struct arena *a, struct error *reterr)
{
	if (p->vm_wait.wait)
		p->vm_wait.msg.wait_ms = p->vm_wait.timeout_ms ? p->vm_wait.timeout_ms : WAIT_SECONDS_MAX * 1000;
	return 0;
}

static const struct field vm_patch_fields[] = {
	{"name", FIELD_TEXT, .hi = 63, .check = vm_name_check, AT(msg_vm_patch, name),
	 .doc = "Unique among VMs that are not destroyed; the guest has it from its next start"},
	{"labels", FIELD_LABELS, .items = LABELS_MAX, .total = 8192, AT(msg_vm_patch, labels), GIVEN(msg_vm_patch, labels_given),
	 .doc = "Instead of all it has"},
	{"restart", FIELD_CHOICE, .base = 1, .choices = RESTARTS, AT(msg_vm_patch, restart),
	 .doc = "What follows an end that the API was not asked for"},
};
static const struct field_set vm_patch = SET(vm_patch_fields);

static const struct field vm_page_query[] = {
	{"cursor", FIELD_TEXT, .plus = true, .lo = 1, .hi = 255, AT(msg_vm_page, cursor), .doc = "Of the page before"},
	{"limit", FIELD_U32, .lo = 1, .hi = 200, .absent = 50, AT(msg_vm_page, limit), .doc = "Items a page"},
};
static const struct field_set vm_page = SET(vm_page_query);

static const struct field vm_delete_query[] = {
	{"force", FIELD_FLAG, AT(msg_object, force), .doc = "Also while it runs"},
};
static const struct field_set vm_delete = SET(vm_delete_query);

/* --- exec: the same body, as a POST's and as a WebSocket's first frame --- */

#define EXEC_AT(member) .offset = offsetof(struct exec_asked, exec.member)
static const struct field exec_fields[] = {
	{"argv", FIELD_ARGS, .hi = 65536, .items = 1024, .total = 65536, EXEC_AT(argv), .doc = "The command and its arguments"},
	{"command", FIELD_BYTES, .hi = 65536, EXEC_AT(command), .doc = "Instead of argv: run by the user's shell with -c"},
	{"cwd", FIELD_BYTES, .hi = 4096, EXEC_AT(cwd), .doc = "Absent: the user's home"},
	{"env", FIELD_ENV, .items = 1024, .total = 65536, EXEC_AT(environment), .doc = "Over the login environment"},
	{"user", FIELD_TEXT, .lo = 1, .hi = 63, EXEC_AT(user), .doc = "Absent: agent"},
	{"tty", FIELD_FLAG, EXEC_AT(tty), .doc = "On a terminal of its own"},
	{"rows", FIELD_U16, .lo = 1, .hi = 65535, EXEC_AT(rows), .doc = "The terminal's"},
	{"cols", FIELD_U16, .lo = 1, .hi = 65535, EXEC_AT(cols), .doc = "The terminal's"},
	{"stdin", FIELD_BASE64, .hi = EXEC_STDIN_MAX, AT(exec_asked, stdin_bytes), .doc = "Base64"},
	{"timeout_s", FIELD_U32, .lo = 1, .hi = EXEC_SECONDS_MAX, .scale = 1000, EXEC_AT(timeout_ms),
	 .doc = "After that the process is ended"},
	{"detach", FIELD_FLAG, EXEC_AT(detach), .doc = "It runs on by itself; the answer is its exec_id"},
};
static int check_exec(const void *record, struct error *reterr)
{
	const struct stream_exec *x = &((const struct exec_asked *)record)->exec;
	struct str list = x->argv, first = STR_NONE;

	if (!x->argv.len == !x->command.len)
		return error_set(reterr, -EINVAL, "argv: give either argv or command");
	if (x->argv.len && wire_list_next(&list, &first) && first.len == 0)
		return error_set(reterr, -EINVAL, "argv[0] must not be empty");
	if ((x->rows || x->cols) && !x->tty)
		return error_set(reterr, -EINVAL, "%s: only with tty", x->rows ? "rows" : "cols");
	if (x->detach && ((const struct exec_asked *)record)->stdin_bytes.len)
		return error_set(reterr, -EINVAL, "stdin: not with detach; attach to the command with input instead");
	return 0;
}
static const struct field_set exec_body = SET(exec_fields, .check = check_exec, .either = {"argv", "command"});

/* argv as far as it fits goes into the record of the call. */
static int finish_exec(union params *p, struct arena *a, struct error *reterr)
{
	const struct stream_exec *x = &p->exec.asked.exec;
	_cleanup_(buf_finish) struct buf list = BUF_MAX(4096);
	_cleanup_(buf_finish) struct buf whole = BUF_MAX(STREAM_DATAGRAM_MAX - 1);
	struct str rest = x->argv, item;

	if (wire_encode(&stream_exec_wire, x, &whole))
		return error_set(reterr, -EINVAL, "argv: command, argv and env are together at most %zu bytes; use stdin",
				 STREAM_DATAGRAM_MAX);
	if (x->command.len)
		wire_list_add(&list, str_make(x->command.p, MIN(x->command.len, (size_t)4000)));
	while (wire_list_next(&rest, &item)) {
		if (wire_list_add(&list, item))
			break;
	}
	p->exec.msg.argv = arena_str(a, buf_str(&list));
	p->exec.msg.user = x->user;
	p->exec.msg.tty = x->tty;
	p->exec.msg.detach = x->detach;
	return 0;
}

/* --- what runs or ran --- */

static const struct field exec_get_query[] = {
	{"offset", FIELD_U64, .hi = INT64_MAX, .offset = offsetof(struct exec_get, asked.offset),
	 .given = 1 + offsetof(struct exec_get, asked.offset_given), .doc = "From this byte of its output; absent: the oldest kept"},
};
static const struct field_set exec_get = SET(exec_get_query);

static int check_signal(const char *field, struct str s, struct error *reterr)
{
	return signal_parse(s) ? 0 : error_set(reterr, -EINVAL, "%s must be a signal, as TERM, SIGTERM or 15", field);
}

static const struct field exec_signal_fields[] = {
	{"signal", FIELD_TEXT, .required = true, .lo = 1, .hi = 15, .or_number = SIGNAL_MAX, .check = check_signal,
	 .pattern = "^((SIG)?(" SIGNAL_NAMES ")|[1-9]|[1-5][0-9]|6[0-4])$",
	 .offset = offsetof(struct exec_signal, signal), .doc = "TERM, SIGTERM or 15"},
};
static const struct field_set exec_signal = SET(exec_signal_fields);

static int finish_signal(union params *p, struct arena *a, struct error *reterr)
{
	p->exec_signal.number = (uint8_t)signal_parse(p->exec_signal.signal);
	return 0;
}

/* --- files --- */

#define FILE_AT(member) .offset = offsetof(struct file_get, asked.member)
#define FILE_PATH(name_, member) {name_, FIELD_BYTES, .required = true, .hi = 4096, FILE_AT(file.member), .doc = "Absolute, or below the user's home"}
#define FILE_USER {"user", FIELD_TEXT, .lo = 1, .hi = 63, FILE_AT(file.user), .doc = "In whose name, with whose rights; absent: agent"}
#define FILE_MODE {"mode", FIELD_TEXT, .lo = 1, .hi = 5, .check = check_mode, .pattern = "^([0-7]{1,4}|0[0-7]{4})$", FILE_AT(mode), .doc = "Octal, as 0644"}
#define FILE_OWNER {"owner", FIELD_TEXT, .lo = 1, .hi = 127, FILE_AT(file.owner), .doc = "user or user:group; only root may give it away"}

static int check_mode(const char *field, struct str s, struct error *reterr)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] < '0' || s.p[i] > '7')
			return error_set(reterr, -EINVAL, "%s must be octal, as 0644", field);
	return s.len == 5 && s.p[0] != '0' ? error_set(reterr, -EINVAL, "%s must be at most 7777", field) : 0;
}

static const struct field file_path_query[] = {FILE_PATH("path", path), FILE_USER};
static const struct field_set file_path = SET(file_path_query);

static const struct field file_put_query[] = {
	FILE_PATH("path", path), FILE_USER, FILE_MODE, FILE_OWNER,
	{"parents", FIELD_FLAG, FILE_AT(file.recursive), .doc = "Directories that are missing are made"},
};
static const struct field_set file_put = SET(file_put_query);

static const struct field file_delete_query[] = {
	FILE_PATH("path", path), FILE_USER,
	{"recursive", FIELD_FLAG, FILE_AT(file.recursive), .doc = "A directory with all that is in it"},
};
static const struct field_set file_delete = SET(file_delete_query);

static const struct field file_list_query[] = {
	FILE_PATH("path", path), FILE_USER,
	{"limit", FIELD_U32, .lo = 1, .hi = 1000, .absent = 100, FILE_AT(file.limit), .doc = "Items a page"},
	{"cursor", FIELD_TEXT, .lo = 2, .hi = 510, .pattern = "^([0-9a-f]{2})+$", FILE_AT(cursor), .doc = "Of the page before"},
};
static const struct field_set file_list = SET(file_list_query);

static const struct field file_mkdir_fields[] = {
	FILE_PATH("path", path), FILE_USER, FILE_MODE, FILE_OWNER,
	{"parents", FIELD_FLAG, .absent = 1, FILE_AT(file.recursive), .doc = "Directories that are missing are made"},
};
static const struct field_set file_mkdir = SET(file_mkdir_fields);

static const struct field file_move_fields[] = {
	FILE_PATH("from", path), FILE_PATH("to", to), FILE_USER,
	{"overwrite", FIELD_FLAG, FILE_AT(file.overwrite), .doc = "It may replace a file"},
};
static const struct field_set file_move = SET(file_move_fields);

/* What the tables leave as text, and what the record shows. A cursor is the last name in hexadecimal: names hold any byte. */
static int finish_file(union params *p, struct arena *a, struct error *reterr)
{
	struct file_asked *asked = &p->file.asked;
	uint32_t mode = 0;

	for (size_t i = 0; i < asked->mode.len; i++)
		mode = mode << 3 | (uint32_t)(asked->mode.p[i] - '0');
	asked->file.mode = asked->mode.len ? mode : FILE_MODE_NONE;
	if (asked->cursor.len) {
		uint8_t *name = arena_alloc(a, asked->cursor.len / 2 + 1);
		if (!name || hex_decode(asked->cursor, name, asked->cursor.len / 2))
			return error_set(reterr, -EINVAL, "cursor is not one of this list's");
		asked->file.to = str_make(name, asked->cursor.len / 2);
	}
	p->file.msg.path = asked->file.path;
	p->file.msg.user = asked->file.user;
	p->file.msg.to = asked->cursor.len ? STR_NONE : asked->file.to;
	return 0;
}

/* --- egress, audit, keys, images --- */

static const struct field policy_fields[] = {
	{"mode", FIELD_CHOICE, .choices = MODES, .absent = 255, AT(msg_policy_put, mode), .doc = "What a request that no rule allows gets"},
};
static const struct field_set policy_body = SET(policy_fields);

static const struct field events_query[] = {
	{"vm_id", FIELD_ID, .choices = "vm_", AT(msg_events_list, vm), .doc = "Of this VM"},
	{"verdict", FIELD_CHOICE, .base = 1, .choices = "allowed|denied|warn|blocked", AT(msg_events_list, verdict),
	 .doc = "denied finds denied and warn; blocked what did not pass"},
	{"allowed", FIELD_FLAG3, AT(msg_events_list, allowed), .doc = "Whether it passed"},
	{"mode", FIELD_CHOICE, .base = 1, .choices = MODES, AT(msg_events_list, mode), .doc = "In force then"},
	{"host", FIELD_TEXT, .lo = 1, .hi = 255, AT(msg_events_list, host), .doc = "Exactly this host"},
	{"cidr", FIELD_TEXT, .lo = 1, .hi = 49, AT(msg_events_list, cidr), .doc = "Of the deciding rule"},
	{"protocol", FIELD_CHOICE, .base = 1, .choices = "http|tls|tcp|udp|dns|icmp|other", AT(msg_events_list, protocol),
	 .doc = "dns is listed only when asked for"},
	{"since", FIELD_TIME, AT(msg_events_list, since), .doc = "From here on; makes the order asc"},
	{"until", FIELD_TIME, AT(msg_events_list, until), .doc = "Up to this"},
	{"cursor", FIELD_TEXT, .plus = true, .lo = 1, .hi = 255, AT(msg_events_list, cursor), .doc = "Of the page before"},
	{"limit", FIELD_U32, .lo = 1, .hi = 500, .absent = 50, AT(msg_events_list, limit), .doc = "Items a page"},
	{"order", FIELD_CHOICE, .base = 1, .choices = ORDERS, AT(msg_events_list, order), .doc = "desc, or asc with since"},
};
static const struct field_set events = SET(events_query);

static const struct field summary_query[] = {
	{"vm_id", FIELD_ID, .choices = "vm_", AT(msg_summary_get, vm), .doc = "Of this VM"},
	{"since", FIELD_TIME, AT(msg_summary_get, since), .doc = "From here on"},
	{"until", FIELD_TIME, AT(msg_summary_get, until), .doc = "Up to this"},
};
static const struct field_set summary = SET(summary_query);

static const struct field generals_query[] = {
	{"kind", FIELD_TEXT, .hi = 31, .choices = EVENT_KINDS, AT(msg_generals_list, kind), .doc = "Exactly this kind"},
	{"vm_id", FIELD_ID, .choices = "vm_", AT(msg_generals_list, vm), .doc = "About this VM"},
	{"key_id", FIELD_ID, .choices = "key_", AT(msg_generals_list, key), .doc = "Done with this key"},
	{"since", FIELD_TIME, AT(msg_generals_list, since), .doc = "From here on; makes the order asc"},
	{"until", FIELD_TIME, AT(msg_generals_list, until), .doc = "Up to this"},
	{"cursor", FIELD_TEXT, .plus = true, .lo = 1, .hi = 255, AT(msg_generals_list, cursor), .doc = "Of the page before"},
	{"limit", FIELD_U32, .lo = 1, .hi = 500, .absent = 50, AT(msg_generals_list, limit), .doc = "Items a page"},
	{"order", FIELD_CHOICE, .base = 1, .choices = ORDERS, AT(msg_generals_list, order), .doc = "desc, or asc with since"},
};
static const struct field_set generals = SET(generals_query);

static int check_explain(const void *record, struct error *reterr)
{
	const struct msg_explain *m = record;

	if (m->path.len && m->path.p[0] != '/')
		return error_set(reterr, -EINVAL, "path must begin with /");
	if (str_chr(m->path, ' ') >= 0 || str_chr(m->method, ' ') >= 0)
		return error_set(reterr, -EINVAL, "%s must hold no space", str_chr(m->path, ' ') >= 0 ? "path" : "method");
	return 0;
}
static const struct field explain_fields[] = {
	{"vm_id", FIELD_ID, .required = true, .choices = "vm_", AT(msg_explain, vm), .doc = "Which VM asks"},
	{"host", FIELD_TEXT, .required = true, .lo = 1, .hi = 255, .trim = true, AT(msg_explain, host), .doc = "A name or a literal address"},
	{"port", FIELD_U16, .lo = 1, .hi = 65535, AT(msg_explain, port), .doc = "Absent: 443, or 80 for protocol http"},
	{"protocol", FIELD_CHOICE, .base = 1, .choices = "http|tls|tcp", AT(msg_explain, protocol),
	 .doc = "Absent: http on port 80 and with a method or path, else tls, or tcp where a rule passes anything"},
	{"method", FIELD_TEXT, .lo = 1, .hi = 32, AT(msg_explain, method), .doc = "Absent: GET"},
	{"path", FIELD_TEXT, .lo = 1, .hi = 1024, AT(msg_explain, path), .doc = "Absent: /"},
};
static const struct field_set explain = SET(explain_fields, .check = check_explain);

static const struct field key_fields[] = {
	{"name", FIELD_TEXT, .required = true, .hi = 63, .check = object_name_check, AT(msg_key_create, name), .doc = "For people"},
	{"scopes", FIELD_SCOPES, .required = true, .items = SCOPE_COUNT, AT(msg_key_create, scopes), .doc = "What it may do"},
	{"expires_at", FIELD_TIME, AT(msg_key_create, expires_at), .doc = "Absent: never"},
};
static const struct field_set key_body = SET(key_fields);

static int finish_key(union params *p, struct arena *a, struct error *reterr)
{
	if (p->key_create.expires_at && p->key_create.expires_at <= real_ms())
		return error_set(reterr, -EINVAL, "expires_at must lie in the future");
	return 0;
}

static const struct field page_query[] = {
	{"name", FIELD_TEXT, .lo = 1, .hi = 63, AT(msg_page, name), .doc = "Exactly this name"},
	{"cursor", FIELD_TEXT, .plus = true, .lo = 1, .hi = 255, AT(msg_page, cursor), .doc = "Of the page before"},
	{"limit", FIELD_U32, .lo = 1, .hi = 200, .absent = 50, AT(msg_page, limit), .doc = "Items a page"},
};
static const struct field_set page = SET(page_query);

/* --- answers that are no rows --- */

static const struct op_answer exec_result[] = {
	{"application/json", &exec_shape, NULL},
	{"application/json", &exec_started_shape, NULL}, /* with detach */
	{"text/event-stream", NULL, "With Accept: text/event-stream. Events stdout and stderr (base64), exit {exit_code, timed_out}, "
				    "error {code, message}; a comment after 15 s of silence"},
	{0}};
static const struct op_answer exec_output[] = {
	{"application/json", &exec_output_shape, NULL},
	{"text/event-stream", NULL, "With Accept: text/event-stream. First event exec, which says where the output begins; then as "
				    "POST exec's, each with the next offset as its id, and live until the exit"},
	{"application/octet-stream", NULL, "With Upgrade: websocket. The client's first text frame is {offset?, input?}; then as "
					   "GET exec, after a control message {type: attached} with what the command is", 101},
	{0}};
static const struct op_answer file_bytes[] = {
	{"application/octet-stream", NULL, "The bytes, with Iron-File-Mode, Iron-File-Owner and Last-Modified; an answer that ends "
					   "before its length, or without its last chunk, is cut"},
	{0}};
static const struct op_answer archive_bytes[] = {{"application/x-tar", NULL, "Names are relative to the path"}, {0}};
static const struct op_answer console_text[] = {{"text/plain", NULL, "The last 64 KiB, as the guest wrote them"}, {0}};
static const struct op_answer exec_frames[] = {
	{"application/octet-stream", NULL,
	 "A WebSocket. The client's first text frame is the body that POST takes (without stdin); then both sides send binary "
	 "frames: one byte of channel, then bytes. Channels: 0 stdin, 1 stdout, 2 stderr, 3 control, as JSON: resize {rows, "
	 "cols}, signal {signal}, eof from the client; exit {exit_code, timed_out}, error {code, message} from the server."},
	{0}};
static const struct op_answer this_document[] = {{"application/json", NULL, "OpenAPI 3.1"}, {0}};
static const struct op_answer up[] = {{"application/json", &health_shape, NULL}, {0}};

/* --- the operations --- */

#define REC(name) .record = MSG_TYPE_##name
#define ROW(name) .row = MSG_TYPE_##name
#define VM_AT(name) .vm_at = 1 + offsetof(struct name, vm)
#define ID_AT .id_at = 1 + offsetof(struct msg_object, id)
#define PRESET_AT .name_at = 1 + offsetof(struct msg_preset, name)
#define EXEC_ID_AT .id_at = 1 + offsetof(struct msg_vm_open, exec)
#define ROW_AT(number) .row = (number)
#define BYTES .answer = ANSWER_BYTES, .status = 200
#define LIST .answer = ANSWER_LIST, .status = 200
#define OBJECT(code) .answer = ANSWER_OBJECT, .status = (code)
#define NO_CONTENT .answer = ANSWER_NONE, .status = 204
#define BODY_AT(member) .body_at = offsetof(union params, member)
#define RULE_ERRORS ERR(RULE_NAME_TAKEN) | ERR(RULE_NOT_FOUND) | ERR(QUOTA_EXCEEDED)
#define PLAIN .query = &nothing, .body = &nothing

static const struct op_shape shapes[OP_COUNT] = {
	[OP_VM_CREATE] = {REC(msg_vm_create), &nothing, &vm_create, OBJECT(201), ROW(row_vm),
			  .errors = ERR(IMAGE_NOT_FOUND) | ERR(PRESET_NOT_FOUND) | ERR(VM_NAME_TAKEN) | ERR(QUOTA_EXCEEDED) |
				    ERR(NO_ROOM)},
	[OP_VM_LIST] = {REC(msg_vm_list), &vm_list, &nothing, LIST, ROW(row_vm)},
	[OP_VM_GET] = {REC(msg_object), &vm_get, &nothing, OBJECT(200), ROW(row_vm), VM_AT(msg_object), .finish = finish_wait},
	[OP_VM_DELETE] = {REC(msg_object), &vm_delete, &nothing, NO_CONTENT, VM_AT(msg_object), .errors = ERR(VM_NOT_STOPPED)},
	[OP_VM_PATCH] = {REC(msg_vm_patch), &nothing, &vm_patch, OBJECT(200), ROW(row_vm), VM_AT(msg_vm_patch), .errors = ERR(VM_NAME_TAKEN)},
	[OP_VM_SESSIONS] = {REC(msg_vm_page), &vm_page, &nothing, LIST, ROW(row_session), VM_AT(msg_vm_page)},
	[OP_VM_STATS] = {REC(msg_object), PLAIN, OBJECT(200), ROW(row_stats), VM_AT(msg_object)},
	[OP_VM_START] = {REC(msg_object), PLAIN, OBJECT(200), ROW(row_vm), VM_AT(msg_object), .errors = ERR(VM_ALREADY_RUNNING) | ERR(QUOTA_EXCEEDED)},
	[OP_VM_STOP] = {REC(msg_vm_stop), PLAIN, OBJECT(200), ROW(row_vm), VM_AT(msg_vm_stop), .errors = ERR(VM_NOT_RUNNING)},
	[OP_VM_EXEC] = {REC(msg_vm_open), &nothing, &exec_body, .answer = ANSWER_EXEC, .status = 200, VM_AT(msg_vm_open), .answers = exec_result,
			.doc = "With detach the answer is {data: {exec_id}} as soon as the command runs.",
			.errors = ERR(VM_NOT_RUNNING),
			BODY_AT(exec.asked), .finish = finish_exec, .start = exec_start},
	[OP_VM_EXEC_WS] = {REC(msg_vm_open), PLAIN, .answer = ANSWER_EXEC, .status = 101, VM_AT(msg_vm_open),
			   BODY_AT(exec.asked), .answers = exec_frames, .upgrades = true, .errors = ERR(VM_NOT_RUNNING)},
	[OP_VM_EXEC_LIST] = {REC(msg_vm_open), PLAIN, LIST, ROW_AT(ROW_EXEC), VM_AT(msg_vm_open), .start = execs_list,
			.errors = ERR(VM_NOT_RUNNING)},
	[OP_VM_EXEC_GET] = {REC(msg_vm_open), &exec_get, &nothing, .answer = ANSWER_EXEC, .status = 200, VM_AT(msg_vm_open), EXEC_ID_AT,
			    .start = execs_get, .upgrades = true, .answers = exec_output,
			.errors = ERR(VM_NOT_RUNNING)},
	[OP_VM_EXEC_SIGNAL] = {REC(msg_vm_open), &nothing, &exec_signal, NO_CONTENT, VM_AT(msg_vm_open), EXEC_ID_AT,
			       .finish = finish_signal, .start = execs_signal,
			.errors = ERR(VM_NOT_RUNNING)},
	[OP_VM_EXEC_DELETE] = {REC(msg_vm_open), PLAIN, NO_CONTENT, VM_AT(msg_vm_open), EXEC_ID_AT, .start = execs_remove,
			.errors = ERR(VM_NOT_RUNNING)},
	[OP_VM_FILE_GET] = {REC(msg_vm_open), &file_path, &nothing, BYTES, VM_AT(msg_vm_open), .finish = finish_file, .start = download_start, .answers = file_bytes,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_FILE_PUT] = {REC(msg_vm_open), &file_put, &nothing, OBJECT(200), ROW_AT(ROW_FILE), VM_AT(msg_vm_open),
			    .finish = finish_file, .start = upload_start, .body_media = "application/octet-stream",
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_FILE_DELETE] = {REC(msg_vm_open), &file_delete, &nothing, NO_CONTENT, VM_AT(msg_vm_open), .finish = finish_file,
			       .start = files_ask,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_FILE_LIST] = {REC(msg_vm_open), &file_list, &nothing, LIST, ROW_AT(ROW_FILE), VM_AT(msg_vm_open),
			     .finish = finish_file, .start = files_ask,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_FILE_STAT] = {REC(msg_vm_open), &file_path, &nothing, OBJECT(200), ROW_AT(ROW_FILE), VM_AT(msg_vm_open),
			     .finish = finish_file, .start = files_ask,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_FILE_MKDIR] = {REC(msg_vm_open), &nothing, &file_mkdir, OBJECT(201), ROW_AT(ROW_FILE), VM_AT(msg_vm_open),
			      BODY_AT(file), .finish = finish_file, .start = files_ask,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_FILE_MOVE] = {REC(msg_vm_open), &nothing, &file_move, OBJECT(200), ROW_AT(ROW_FILE), VM_AT(msg_vm_open),
			     BODY_AT(file), .finish = finish_file, .start = files_ask,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_ARCHIVE_GET] = {REC(msg_vm_open), &file_path, &nothing, BYTES, VM_AT(msg_vm_open), .finish = finish_file,
			       .start = download_start, .answers = archive_bytes,
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_ARCHIVE_PUT] = {REC(msg_vm_open), &file_path, &nothing, OBJECT(200), ROW_AT(ROW_FILE), VM_AT(msg_vm_open),
			       .finish = finish_file, .start = upload_start, .body_media = "application/octet-stream",
			.errors = ERR(VM_NOT_RUNNING) | ERR(FILE_NOT_FOUND)},
	[OP_VM_CONSOLE] = {REC(msg_vm_open), PLAIN, BYTES, VM_AT(msg_vm_open), .start = console_start, .answers = console_text,
			.errors = ERR(VM_NOT_RUNNING)},
	[OP_POLICY_GET] = {REC(msg_object), PLAIN, OBJECT(200), ROW(row_policy)},
	[OP_POLICY_PUT] = {REC(msg_policy_put), &nothing, &policy_body, OBJECT(200), ROW(row_policy)},
	[OP_VM_POLICY_GET] = {REC(msg_object), PLAIN, OBJECT(200), ROW(row_policy), VM_AT(msg_object)},
	[OP_VM_POLICY_PUT] = {REC(msg_policy_put), &nothing, &policy_body, OBJECT(200), ROW(row_policy), VM_AT(msg_policy_put)},
	[OP_VM_POLICY_DELETE] = {REC(msg_object), PLAIN, NO_CONTENT, VM_AT(msg_object)},
	[OP_RULE_LIST] = {REC(msg_rule_list), &rule_list, &nothing, LIST, ROW(row_rule)},
	[OP_RULE_CREATE] = {REC(msg_rule_create), &nothing, &rule_item, OBJECT(201), ROW(row_rule), BODY_AT(rule_create.asked),
			    .finish = finish_rule, .errors = RULE_ERRORS},
	[OP_RULE_DELETE] = {REC(msg_object), PLAIN, NO_CONTENT, ID_AT},
	[OP_VM_RULE_LIST] = {REC(msg_rule_list), &rule_list, &nothing, LIST, ROW(row_rule), VM_AT(msg_rule_list)},
	[OP_VM_RULE_CREATE] = {REC(msg_rule_create), &nothing, &rule_item, OBJECT(201), ROW(row_rule), VM_AT(msg_rule_create),
			       BODY_AT(rule_create.asked), .finish = finish_rule, .errors = RULE_ERRORS},
	[OP_VM_RULE_DELETE] = {REC(msg_object), PLAIN, NO_CONTENT, VM_AT(msg_object), ID_AT},
	[OP_PRESET_LIST] = {REC(msg_page), PLAIN, LIST, ROW(row_preset)},
	[OP_PRESET_ADD] = {REC(msg_preset), PLAIN, OBJECT(200), ROW(row_preset), PRESET_AT, .errors = ERR(QUOTA_EXCEEDED)},
	[OP_PRESET_REMOVE] = {REC(msg_preset), PLAIN, NO_CONTENT, PRESET_AT},
	[OP_AUDIT_EGRESS] = {REC(msg_events_list), &events, &nothing, LIST, ROW(row_event)},
	[OP_AUDIT_SUMMARY] = {REC(msg_summary_get), &summary, &nothing, LIST, ROW(row_summary)},
	[OP_AUDIT_EVENTS] = {REC(msg_generals_list), &generals, &nothing, LIST, ROW(row_general)},
	[OP_EGRESS_EXPLAIN] = {REC(msg_explain), &nothing, &explain, .answer = ANSWER_EXPLAIN, .status = 200, ROW(row_explain),
			       .errors = ERR(VM_NOT_FOUND)},
	[OP_IMAGE_LIST] = {REC(msg_page), &page, &nothing, LIST, ROW(row_image)},
	[OP_IMAGE_GET] = {REC(msg_object), PLAIN, OBJECT(200), ROW(row_image), ID_AT},
	[OP_KEY_LIST] = {REC(msg_page), &page, &nothing, LIST, ROW(row_key)},
	[OP_KEY_CREATE] = {REC(msg_key_create), &nothing, &key_body, OBJECT(201), ROW(row_key), .finish = finish_key},
	[OP_KEY_DELETE] = {REC(msg_object), PLAIN, NO_CONTENT, ID_AT},
	[OP_ME] = {REC(msg_page), PLAIN, OBJECT(200), ROW(row_me)},
	[OP_HOST] = {REC(msg_page), PLAIN, .answer = ANSWER_ROLES, .status = 200, ROW(row_host)},
	[OP_HEALTHZ] = {REC(msg_page), PLAIN, .answer = ANSWER_LOCAL, .status = 200, .open = true, .answers = up},
	[OP_READYZ] = {REC(msg_page), PLAIN, .answer = ANSWER_ROLES, .status = 200, .open = true},
	[OP_OPENAPI] = {REC(msg_page), PLAIN, .answer = ANSWER_LOCAL, .status = 200, .open = true, .answers = this_document},
};

const struct op_shape *op_shape_get(enum api_op op)
{
	return &shapes[op];
}
