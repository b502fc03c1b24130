/* egress add, remove, list, mode; each for the workspace, or for one VM with --vm. */
#include <errno.h>
#include <string.h>

#include "cli/command.h"

/* "/egress" or "/vms/ID/egress", by --vm. */
static int base_path(struct context *c, char **ret)
{
	const char *vm = args_value(&c->args, "vm");
	char id[24];

	if (!vm) {
		*ret = xstrdup("/egress");
		return 0;
	}
	int r = resolve_vm(c, vm, id);
	if (r == 0)
		*ret = xasprintf("/vms/%s/egress", id);
	return r;
}

static void add_strings(struct context *c, json_t *body, const char *option, const char *field)
{
	json_t *list = json_array();
	const char *v;

	for (size_t i = 0; (v = args_nth(&c->args, option, i)); i++)
		json_array_append_new(list, json_string(v));
	if (json_array_size(list))
		json_object_set(body, field, list);
	json_decref(list);
}

static int add_ports(struct context *c, json_t *body)
{
	json_t *list = json_array();
	const char *v;
	uint64_t port;

	for (size_t i = 0; (v = args_nth(&c->args, "port", i)); i++) {
		if (str_parse_u64(str_of(v), 65535, &port) || port == 0) {
			json_decref(list);
			return error_set(&c->error, -EINVAL, "--port must be a number from 1 to 65535, not '%s'", v);
		}
		json_array_append_new(list, json_integer((json_int_t)port));
	}
	if (json_array_size(list))
		json_object_set(body, "ports", list);
	json_decref(list);
	return 0;
}

static int rule_body(struct context *c, json_t *body)
{
	static const char *const plain[] = {"host", "cidr", "name", "tls", "comment"};

	if (!args_value(&c->args, "host") == !args_value(&c->args, "cidr"))
		return error_set(&c->error, -EINVAL, "give one of --host and --cidr");
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		const char *v = args_value(&c->args, plain[i]);
		if (v && !*v)
			return error_set(&c->error, -EINVAL, "--%s is empty", plain[i]);
		if (v)
			json_object_set_new(body, plain[i], json_string(v));
	}
	if (args_has(&c->args, "deny"))
		json_object_set_new(body, "action", json_string("deny"));
	add_strings(c, body, "method", "methods");
	add_strings(c, body, "path", "paths");
	add_strings(c, body, "address", "addresses");
	return add_ports(c, body);
}

static const char *target_of(const json_t *rule)
{
	const char *host = get_string(rule, "host");
	return *host ? host : get_string(rule, "cidr");
}

static int run_add(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *base = NULL;
	json_t *body = json_object();

	int e = rule_body(c, body);
	if (e == 0)
		e = base_path(c, &base);
	if (e == 0) {
		_cleanup_free_ char *path = xasprintf("%s/rules", base);
		e = client_ask(c->client, "POST", path, body, &r, &c->error);
	}
	json_decref(body);
	if (e)
		return EXIT_FAILED;
	const json_t *rule = json_object_get(r.body, "data");
	if (c->json) {
		out_json(rule);
		return 0;
	}
	_cleanup_free_ char *joined = out_join(json_object_get(rule, "ports"), ",");
	_cleanup_free_ char *ports = out_escape(joined), *target = out_escape(target_of(rule));
	_cleanup_free_ char *id = out_escape(get_string(rule, "id"));
	if (c->quiet)
		out_line("%s", id);
	else
		out_line("%s %s%s%s (%s)", strcmp(get_string(rule, "action"), "deny") == 0 ? "deny" : "allow", target,
		         *ports ? " port " : "", ports, id);
	return 0;
}

static int remove_one(struct context *c, const char *base, const char *word, json_t *done)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *escaped = client_escape(c->client, word), *id = NULL;
	_cleanup_free_ char *named = xasprintf("%s/rules?name=%s", base, escaped);

	if (resolve_named(c, named, "egr_", "rule", "iron egress list", word, &id))
		return EXIT_FAILED;
	_cleanup_free_ char *path = xasprintf("%s/rules/%s", base, id);
	if (client_ask(c->client, "DELETE", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	json_array_append_new(done, json_pack("{s:s}", "id", id));
	_cleanup_free_ char *safe = out_escape(word);
	if (!c->json)
		out_done("%s removed", safe);
	return 0;
}

static int run_remove(struct context *c)
{
	_cleanup_free_ char *base = NULL;
	int e = 0;

	if (base_path(c, &base))
		return EXIT_FAILED;
	json_t *done = json_array();
	for (size_t i = 0; e == 0 && i < c->args.n_words; i++)
		e = remove_one(c, base, c->args.words[i], done);
	if (c->json)
		out_json(done);
	json_decref(done);
	return e;
}

static void print_rules(const json_t *data)
{
	static const struct column columns[] = {
	        {"ID", 17, 1, false},   {"ACTION", 0, 0, false},  {"TARGET", 12, 0, false},
	        {"PORTS", 6, 2, false}, {"METHODS", 0, 5, false}, {"PATHS", 6, 5, false},
	        {"TLS", 9, 4, false},   {"NAME", 6, 3, false},    {"COMMENT", 8, 6, false}};
	const json_t *rule;
	struct table t;
	size_t i;

	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, rule)
	{
		_cleanup_free_ char *ports = out_join(json_object_get(rule, "ports"), ","),
		                    *methods = out_join(json_object_get(rule, "methods"), ","),
		                    *paths = out_join(json_object_get(rule, "paths"), ",");
		table_cell(&t, get_string(rule, "id"));
		table_cell(&t, get_string(rule, "action"));
		table_style(&t, out_state_style(get_string(rule, "action")));
		const char *cells[] = {target_of(rule),
		                       ports,
		                       methods,
		                       paths,
		                       get_string(rule, "tls"),
		                       get_string(rule, "name"),
		                       get_string(rule, "comment")};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	table_print(&t);
	table_finish(&t);
}

static int run_list(struct context *c)
{
	_cleanup_free_ char *base = NULL;
	json_t *data = NULL;

	if (base_path(c, &base))
		return EXIT_FAILED;
	_cleanup_(buf_finish) struct buf b = {0};
	buf_printf(&b, "%s/rules?limit=200", base);
	add_filter(c, &b, "host", "host");
	add_filter(c, &b, "cidr", "cidr");
	add_filter(c, &b, "name", "name");
	_cleanup_free_ char *path = buf_take_z(&b);
	if (list_all(c, path, &data))
		return EXIT_FAILED;
	if (c->json)
		out_json(data);
	else if (c->quiet)
		out_each(data, "id");
	else if (json_array_size(data))
		print_rules(data);
	else
		out_line("no rules: nothing leaves; `iron egress add --host NAME` allows a name");
	json_decref(data);
	return 0;
}

static int run_mode(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *base = NULL;
	json_t *body = NULL;

	if (base_path(c, &base))
		return EXIT_FAILED;
	_cleanup_free_ char *path = xasprintf("%s/policy", base);
	bool inherit = c->args.n_words == 1 && strcmp(c->args.words[0], "inherit") == 0;
	const char *method = c->args.n_words == 0 ? "GET" : inherit ? "DELETE" : "PUT";
	if (c->args.n_words == 1 && !inherit)
		body = json_pack("{s:s}", "mode", c->args.words[0]);
	int e = client_ask(c->client, method, path, body, &r, &c->error);
	json_decref(body);
	if (e)
		return EXIT_FAILED;
	const json_t *data = json_object_get(r.body, "data");
	if (c->json && data) {
		out_json(data);
		return 0;
	}
	if (c->json)
		return print_one(c, path);
	_cleanup_free_ char *mode = out_escape(get_string(data, "mode"));
	if (!data)
		out_done("the workspace's mode holds again");
	else
		out_line("%s%s", mode, json_is_true(json_object_get(data, "inherited")) ? " (the workspace's)" : "");
	return 0;
}

/* --- explain --- */

/* "https://host:port/path", "host:port", "[2001:db8::1]:443", "2001:db8::1" or "host" into a request. */
static int take_target(struct context *c, const char *target, json_t *body)
{
	struct str rest = str_of(target), host;
	uint64_t port = 0;

	const char *scheme = str_has_prefix(rest, STR("https://"))  ? "tls"
	                     : str_has_prefix(rest, STR("http://")) ? "http"
	                                                            : NULL;
	if (scheme) {
		size_t n = strlen(scheme[0] == 't' ? "https://" : "http://");
		rest = str_make(rest.p + n, rest.len - n);
		json_object_set_new(body, "protocol", json_string("http"));
		port = scheme[0] == 't' ? 443 : 80;
		size_t authority = strcspn(rest.p, "/?#");
		size_t end = strcspn(rest.p, "?#");
		json_object_set_new(body, "path",
		                    end > authority ? json_stringn(rest.p + authority, end - authority)
		                                    : json_string("/"));
		rest.len = authority;
	}
	host = rest;
	const char *colon = memrchr(rest.p, ':', rest.len), *bracket = memchr(rest.p, ']', rest.len);
	bool bare_v6 = colon && !bracket && memchr(rest.p, ':', (size_t)(colon - rest.p));
	if (colon && !bare_v6 && (!bracket || colon == bracket + 1)) {
		struct str number = str_make(colon + 1, (size_t)(rest.p + rest.len - colon - 1));
		if (str_parse_u64(number, 65535, &port) || port == 0)
			return error_set(&c->error, -EINVAL, "the port of '%s' must be a number from 1 to 65535",
			                 target);
		host.len = (size_t)(colon - rest.p);
	}
	host = str_trim(host, "[]");
	if (host.len == 0)
		return error_set(&c->error, -EINVAL, "'%s' names no host", target);
	json_object_set_new(body, "host", json_stringn(host.p, host.len));
	if (port)
		json_object_set_new(body, "port", json_integer((json_int_t)port));
	return 0;
}

static int explain_body(struct context *c, json_t *body)
{
	static const char *const plain[] = {"method", "path", "protocol"};
	const char *vm = args_value(&c->args, "vm");
	long port = 0;
	char id[24];

	if (!vm)
		return error_set(&c->error, -EINVAL, "say whose request it would be: --vm VM");
	if (take_target(c, c->args.words[0], body) || args_number(&c->args, "port", 1, 65535, &port, &c->error))
		return -EINVAL;
	if (port)
		json_object_set_new(body, "port", json_integer(port));
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (args_value(&c->args, plain[i]))
			json_object_set_new(body, plain[i], json_string(args_value(&c->args, plain[i])));
	int r = resolve_vm(c, vm, id);
	if (r == 0)
		json_object_set_new(body, "vm_id", json_string(id));
	return r;
}

static int run_explain(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	json_t *body = json_object();

	int e = explain_body(c, body);
	bool usage = e == -EINVAL;
	if (e == 0)
		e = client_ask(c->client, "POST", "/egress/explain", body, &r, &c->error);
	json_decref(body);
	if (e)
		return usage ? EXIT_USAGE : EXIT_FAILED;
	const json_t *data = json_object_get(r.body, "data"), *matched = json_object_get(data, "matched"),
	             *rule = json_object_get(data, "rule");
	if (c->json) {
		out_json(data);
		return 0;
	}
	const char *verdict = get_string(data, "verdict"), *style = out_color() ? out_state_style(verdict) : "";
	_cleanup_free_ char *shown = out_escape(verdict);
	out_line("%s%s%s%s%s", *style ? "\033[" : "", style, *style ? "m" : "", shown, *style ? "\033[0m" : "");
	out_field("because", get_string(data, "reason"));
	out_field("mode", get_string(data, "mode"));
	out_field("decided by", get_string(rule, "id"));
	if (json_array_size(matched)) {
		out_line("%s", "");
		print_rules(matched);
	}
	return 0;
}

#define VM_OPTION(about)                                                                                               \
	{                                                                                                              \
		"vm", 0, "VM", about                                                                                   \
	}
static const struct arg_option add_options[] = {
	{"host", 0, "HOST", "a name, *.NAME (what is below it, and it), * or an address"},
	{"cidr", 0, "CIDR", "or a range of addresses"},
	{"port", 'p', "N", "may be repeated (names: 80 and 443; addresses: every TCP port)"},
	{"method", 0, "METHOD", "only this HTTP method; may be repeated"},
	{"path", 0, "GLOB", "only this path (/x/* is /x and all below it); may be repeated"},
	{"tls", 0, "intercept|passthrough", "look inside (names), or let bytes through as they are (addresses)"},
	{"deny", 0, NULL, "refuse instead; a deny always wins"},
	{"address", 0, "CIDR", "a private range that this name may resolve to; may be repeated"},
	{"name", 0, "NAME", "what to call the rule"},
	{"comment", 0, "TEXT", "why it is there"},
	VM_OPTION("for this VM only"),
	{0}};
static const struct arg_option remove_options[] = {VM_OPTION("a rule of this VM's own"), {0}};
static const struct arg_option list_options[] = {VM_OPTION("this VM's own rules"),
						 {"host", 0, "HOST", "only rules for this"},
						 {"cidr", 0, "CIDR", "only rules for this"},
						 {"name", 0, "NAME", "only the one of this name"},
						 {0}};
static const struct arg_option mode_options[] = {VM_OPTION("for this VM; inherit follows the workspace again"), {0}};
static const struct arg_option explain_options[] = {VM_OPTION("whose request it would be"),
						    {"port", 'p', "N", "443, or 80 for http://"},
						    {"method", 0, "METHOD", "GET"},
						    {"path", 0, "PATH", "/"},
						    {"protocol", 0, "http|tls|tcp", "as what it is judged"},
						    {0}};

static const struct arg_option no_options[] = {{0}};

const struct command egress_commands[] = {
	{"egress add", "--host HOST | --cidr CIDR", "add a rule about what may leave", NULL,
	 "iron egress add --host api.example.com\niron egress add --host '*.example.com' --vm demo\n"
	 "iron egress add --host git.example.com --port 22 --tls passthrough\niron egress add --cidr 192.0.2.0/24 "
	 "--deny --comment 'not ours'\n",
	 add_options, 0, 0, 0, run_add},
	{"egress remove", "RULE…", "remove rules, by id or name", NULL,
	 "iron egress remove egr_0c3n9m5k2r7tq\niron egress remove npm --vm demo\n", remove_options, 1, WORDS_MAX, 0,
	 run_remove},
	{"egress list", "", "list rules", NULL, "iron egress list\niron egress list --vm demo --json\n", list_options,
	 0, 0, 0, run_list},
	{"egress mode", "[enforce | warn | inherit]", "show or set what happens to what no rule allows",
	 "enforce stops it; warn lets it pass and puts it on record.\n",
	 "iron egress mode\niron egress mode warn --vm demo\n", mode_options, 0, 1, 0, run_mode},
	{"egress explain", "TARGET", "what a VM's request would meet, and which rule decides; nothing is sent",
	 "TARGET is a URL, a host, or HOST:PORT.\n",
	 "iron egress explain --vm demo https://api.example.com/v1/models\niron egress explain --vm demo "
	 "git.example.com:22\n"
	 "iron egress explain --vm demo api.example.com --method DELETE --path /v1/files/1\n",
	 explain_options, 1, 1, 0, run_explain},
	{"egress preset", "list | show | add | remove [PRESET…]", "named groups of rules: npm, pypi, github and more",
	 "add gives the workspace each rule of the preset that it does not have;\nremove takes away those that carry its "
	 "name.\n",
	 "iron egress preset list\niron egress preset show npm\niron egress preset add npm pypi\n"
	 "iron egress preset remove npm\niron create demo --preset github\n",
	 no_options, 1, WORDS_MAX, 0, run_preset},
	{0},
};
