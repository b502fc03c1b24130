/* keys, the host, and who one is. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "cli/command.h"

/* --- keys --- */

static int run_keys_list(struct context *c)
{
	static const struct column columns[] = {{"NAME", 8, 0, false},     {"SCOPES", 12, 1, false},
	                                        {"CREATED", 10, 4, false}, {"LAST USED", 10, 3, false},
	                                        {"EXPIRES", 10, 5, false}, {"ID", 17, 0, false}};
	json_t *data = NULL, *key;
	struct table t;
	size_t i;

	if (list_all(c, "/keys?limit=200", &data))
		return EXIT_FAILED;
	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, key)
	{
		_cleanup_free_ char *scopes = out_join(json_object_get(key, "scopes"), " "),
		                    *created = out_age(json_object_get(key, "created_at"));
		_cleanup_free_ char *used = out_age(json_object_get(key, "last_used_at")),
		                    *expires = out_age(json_object_get(key, "expires_at"));
		const char *cells[] = {get_string(key, "name"), scopes, created, used, expires, get_string(key, "id")};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	if (c->json)
		out_json(data);
	else if (c->quiet)
		out_each(data, "name");
	else
		table_print(&t);
	table_finish(&t);
	json_decref(data);
	return 0;
}

static int key_body(struct context *c, json_t *body)
{
	json_t *scopes = json_array();
	const char *v;
	long days = 0;
	char expires[RFC3339_SIZE];

	json_object_set_new(body, "name", json_string(c->args.words[0]));
	for (size_t i = 0; (v = args_nth(&c->args, "scope", i)); i++)
		json_array_append_new(scopes, json_string(v));
	json_object_set_new(body, "scopes", scopes);
	if (json_array_size(scopes) == 0)
		return error_set(&c->error, -EINVAL, "give at least one --scope, such as vm:read, vm:run or admin");
	int r = args_number(&c->args, "days", 1, 3650, &days, &c->error);
	if (r == 0 && days) {
		rfc3339_format(real_ms() + (int64_t)days * 86400000, expires);
		json_object_set_new(body, "expires_at", json_string(expires));
	}
	return r;
}

static int run_keys_create(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	json_t *body = json_object();

	int e = key_body(c, body);
	if (e == 0)
		e = client_ask(c->client, "POST", "/keys", body, &r, &c->error);
	json_decref(body);
	if (e)
		return e == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
	const json_t *key = json_object_get(r.body, "data");
	if (c->json) {
		out_json(key);
		return 0;
	}
	_cleanup_free_ char *text = out_escape(get_string(key, "key"));
	out_line("%s", text);
	if (!c->quiet)
		out_warn("this is shown once. %s is its id; `iron keys revoke %s` ends it", get_string(key, "id"),
		         get_string(key, "id"));
	return 0;
}

static int run_keys_revoke(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	const char *word = c->args.words[0];
	_cleanup_free_ char *escaped = client_escape(c->client, word), *id = NULL;
	_cleanup_free_ char *named = xasprintf("/keys?name=%s", escaped);

	if (resolve_named(c, named, "key_", "key", "iron keys list", word, &id))
		return EXIT_FAILED;
	_cleanup_free_ char *path = xasprintf("/keys/%s", id);
	if (client_ask(c->client, "DELETE", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	_cleanup_free_ char *safe = out_escape(word);
	if (c->json) {
		json_t *o = json_pack("{s:s}", "id", id);
		out_json(o);
		json_decref(o);
	} else {
		out_done("%s revoked", safe);
	}
	return 0;
}

/* --- the host --- */

static void print_roles(const json_t *roles)
{
	static const struct column columns[] = {{"ROLE", 12, 0, false},
	                                        {"STATE", 6, 0, false},
	                                        {"PID", 7, 2, true},
	                                        {"RESTARTS", 0, 1, true},
	                                        {"SINCE", 10, 3, false}};
	const json_t *role;
	struct table t;
	size_t i;

	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(roles, i, role)
	{
		_cleanup_free_ char *pid = xasprintf("%lld", get_integer(role, "pid")),
		                    *restarts = xasprintf("%lld", get_integer(role, "restarts")),
		                    *since = out_age(json_object_get(role, "started_at"));
		table_cell(&t, get_string(role, "name"));
		table_cell(&t, get_string(role, "state"));
		table_style(&t, out_state_style(get_string(role, "state")));
		const char *cells[] = {pid, restarts, since};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	out_line("%s", "");
	table_print(&t);
	table_finish(&t);
}

/* "12.0 GiB of 23.5 GiB", of members that count MiB. */
static void print_share(const json_t *host, const char *name, const char *part, const char *whole, const char *what)
{
	_cleanup_free_ char *a = out_size((double)get_integer(host, part) * 1048576),
	                    *b = out_size((double)get_integer(host, whole) * 1048576);
	_cleanup_free_ char *text = xasprintf("%s of %s %s", a, b, what);
	out_field(name, text);
}

static void print_host(const json_t *host)
{
	static const char *const plain[][2] = {
	        {"version", "version"},     {"accelerator", "accelerator"}, {"", "accelerator_reason"},
	        {"isolation", "isolation"}, {"sandbox", "sandbox"},         {"encryption", "encryption"},
	        {"QEMU", "qemu_version"},   {"kernel", "kernel"},           {"cgroup", "cgroup"}};

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		out_field(plain[i][0], get_string(host, plain[i][1]));
	_cleanup_free_ char *vms = xasprintf("%lld running, %lld in all", get_integer(host, "vms_running"),
	                                     get_integer(host, "vms_total"));
	const double load = (double)get_integer(host, "load_1m_percent") / 100;
	_cleanup_free_ char *cpus = xasprintf("%lld, load %.2f", get_integer(host, "cpus"), load);
	out_field("CPUs", cpus);
	print_share(host, "memory", "memory_available_mib", "memory_total_mib", "free");
	print_share(host, "for VMs", "memory_committed_mib", "memory_budget_mib", "given away");
	print_share(host, "disk", "disk_available_mib", "disk_total_mib", "free");
	out_field("VMs", vms);
}

static int run_host(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};

	if (client_ask(c->client, "GET", "/host", NULL, &r, &c->error))
		return EXIT_FAILED;
	const json_t *data = json_object_get(r.body, "data");
	if (c->json) {
		out_json(data);
		return 0;
	}
	print_host(data);
	print_roles(json_object_get(data, "roles"));
	return 0;
}

static int run_whoami(struct context *c)
{
	return print_one(c, "/me");
}

static const struct arg_option none[] = {{0}};
static const struct arg_option key_options[] = {
	{"scope", 0, "vm:read|vm:run|vm:admin|egress:read|egress:write|secrets:write|audit:read|snapshots|keys|admin",
	 "what it may do; may be repeated"},
	{"days", 0, "N", "it expires after this many days"},
	{0}};

const struct command admin_commands[] = {
	{"keys list", "", "list keys", NULL, "iron keys list\n", none, 0, 0, 0, run_keys_list},
	{"keys create", "NAME", "make a key; it is shown once", NULL,
	 "iron keys create ci --scope vm:read --scope vm:run --days 90\n", key_options, 1, 1, 0, run_keys_create},
	{"keys revoke", "KEY", "end a key, by its id or name", NULL,
	 "iron keys revoke ci\niron keys revoke key_0c3n9m5k2r7tq\n", none, 1, 1, 0, run_keys_revoke},
	{"host", "", "the host: accelerator, isolation, roles, room", NULL, "iron host\niron host --json\n", none, 0, 0,
	 0, run_host},
	{"whoami", "", "whose key this is, and what it may do", NULL, "iron whoami\n", none, 0, 0, 0, run_whoami},
	{0},
};
