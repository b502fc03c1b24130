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

static char *join(const json_t *list)
{
	_cleanup_(buf_finish) struct buf b = {0};
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		if (i)
			buf_append_byte(&b, ',');
		if (json_is_integer(v))
			buf_printf(&b, "%lld", (long long)json_integer_value(v));
		else
			buf_append_z(&b, json_string_value(v) ? json_string_value(v) : "");
	}
	return buf_take_z(&b);
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
	_cleanup_free_ char *ports = join(json_object_get(rule, "ports")), *target = out_escape(target_of(rule));
	out_line("%s %s%s%s (%s)", get_string(rule, "action"), target, *ports ? " port " : "", ports, get_string(rule, "id"));
	return 0;
}

static int run_remove(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *base = NULL;
	const char *word = c->args.words[0];

	if (!*word) {
		error_set(&c->error, -EINVAL, "the rule's id or name is empty");
		return EXIT_FAILED;
	}
	if (base_path(c, &base))
		return EXIT_FAILED;
	_cleanup_free_ char *escaped = client_escape(c->client, word), *id = NULL;
	if (strncmp(word, "egr_", 4) == 0) {
		id = xstrdup(escaped);
	} else {
		json_t *data = NULL;
		_cleanup_free_ char *path = xasprintf("%s/rules?name=%s", base, escaped);
		if (list_all(c, path, &data))
			return EXIT_FAILED;
		id = xstrdup(get_string(json_array_get(data, 0), "id"));
		json_decref(data);
		if (!*id) {
			error_set(&c->error, -ENOENT, "there is no rule '%s'; `iron egress list` shows those there are", word);
			return EXIT_FAILED;
		}
	}
	_cleanup_free_ char *path = xasprintf("%s/rules/%s", base, id);
	if (client_ask(c->client, "DELETE", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	if (!c->json)
		out_line("%s removed", id);
	return 0;
}

static void print_rules(const json_t *data)
{
	static const char *const titles[] = {"ID", "ACTION", "TARGET", "PORTS", "METHODS", "PATHS", "TLS", "NAME", "COMMENT"};
	const json_t *rule;
	struct table t;
	size_t i;

	table_init(&t, ARRAY_SIZE(titles), titles);
	json_array_foreach(data, i, rule)
	{
		_cleanup_free_ char *ports = join(json_object_get(rule, "ports")), *methods = join(json_object_get(rule, "methods")),
				    *paths = join(json_object_get(rule, "paths"));
		const char *cells[] = {get_string(rule, "id"), get_string(rule, "action"), target_of(rule), ports, methods, paths,
				       get_string(rule, "tls"), get_string(rule, "name"), get_string(rule, "comment")};
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
	_cleanup_free_ char *path = xasprintf("%s/rules?limit=200", base);
	if (list_all(c, path, &data))
		return EXIT_FAILED;
	if (c->json)
		out_json(data);
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
	if (c->json && data)
		out_json(data);
	else
		out_line("%s", data ? get_string(data, "mode") : "the workspace's mode holds again");
	return 0;
}

static const struct arg_option add_options[] = {{"host", 0, true},    {"cidr", 0, true}, {"port", 'p', true}, {"method", 0, true},
						{"path", 0, true},    {"tls", 0, true},  {"deny", 0, false},  {"address", 0, true},
						{"comment", 0, true}, {"name", 0, true}, {"vm", 0, true},     {0}};
static const struct arg_option vm_options[] = {{"vm", 0, true}, {0}};

const struct command egress_commands[] = {
	{"egress add", "--host HOST | --cidr CIDR", "add a rule about what may leave",
	 "  --host HOST         a name, *.NAME (below it, and it), * or an address\n"
	 "  --cidr CIDR         or a range of addresses\n"
	 "  --port N            may be repeated (names: 80 and 443; addresses: every TCP port)\n"
	 "  --method M          only these HTTP methods; may be repeated\n"
	 "  --path P            only these paths (/x/* is /x and all below); may be repeated\n"
	 "  --tls T             intercept or passthrough\n"
	 "  --deny              refuse instead; a deny always wins\n"
	 "  --address CIDR      a private range this name may resolve to\n"
	 "  --name N, --comment C\n"
	 "  --vm VM             for this VM only\n\n"
	 "Examples:\n  iron egress add --host api.example.com\n  iron egress add --host '*.example.com' --vm demo\n"
	 "  iron egress add --host git.example.com --port 22 --tls passthrough\n",
	 add_options, 0, 0, false, run_add},
	{"egress remove", "RULE", "remove a rule, by id or name",
	 "  --vm VM             a rule of this VM\n\nExamples:\n  iron egress remove egr_0c3n9m5k2r7tq\n", vm_options, 1, 1, false, run_remove},
	{"egress list", "", "list rules",
	 "  --vm VM             this VM's own rules\n\nExamples:\n  iron egress list\n  iron egress list --vm demo --json\n", vm_options, 0, 0,
	 false, run_list},
	{"egress mode", "[enforce | warn | inherit]", "show or set what happens to what no rule allows",
	 "  --vm VM             for this VM; `inherit` follows the workspace again\n\n"
	 "Examples:\n  iron egress mode\n  iron egress mode warn --vm demo\n",
	 vm_options, 0, 1, false, run_mode},
	{0},
};
