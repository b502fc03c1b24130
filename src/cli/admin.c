/* keys, images, the host, and who one is. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "cli/command.h"

static char *join_scopes(const json_t *list)
{
	_cleanup_(buf_finish) struct buf b = {0};
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		if (i)
			buf_append_byte(&b, ' ');
		buf_append_z(&b, json_string_value(v) ? json_string_value(v) : "");
	}
	return buf_take_z(&b);
}

/* A list as a table: titles, and the members that hold its cells ("@" before one: a time; "#": bytes; "[": scopes). */
static int print_list(struct context *c, const char *path, size_t n, const char *const *titles, const char *const *members)
{
	json_t *data = NULL, *item;
	struct table t;
	size_t i;

	if (list_all(c, path, &data))
		return EXIT_FAILED;
	if (c->json) {
		out_json(data);
		json_decref(data);
		return 0;
	}
	table_init(&t, n, titles);
	json_array_foreach(data, i, item)
	{
		for (size_t k = 0; k < n; k++) {
			const char *m = members[k];
			const json_t *value = json_object_get(item, m + (*m == '@' || *m == '#' || *m == '['));
			_cleanup_free_ char *text = *m == '@'   ? out_age(value)
						    : *m == '#' ? out_bytes(value)
						    : *m == '[' ? join_scopes(value)
								: xstrdup(get_string(item, m));
			table_cell(&t, text);
		}
	}
	table_print(&t);
	table_finish(&t);
	json_decref(data);
	return 0;
}

static int run_keys_list(struct context *c)
{
	static const char *const titles[] = {"NAME", "ID", "SCOPES", "CREATED", "LAST USED", "EXPIRES"};
	static const char *const members[] = {"name", "id", "[scopes", "@created_at", "@last_used_at", "@expires_at"};
	return print_list(c, "/keys?limit=200", ARRAY_SIZE(titles), titles, members);
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
		return EXIT_FAILED;
	const json_t *key = json_object_get(r.body, "data");
	if (c->json) {
		out_json(key);
		return 0;
	}
	out_line("%s", get_string(key, "key"));
	fflush(stdout);
	fprintf(stderr, "This is shown once. %s is its id; `iron keys revoke %s` ends it.\n", get_string(key, "id"), get_string(key, "id"));
	return 0;
}

/* The id of the one key of that name: two may share a name, and then it says neither. */
static int find_key(struct context *c, const char *name, char **ret_id)
{
	_cleanup_free_ char *escaped = client_escape(c->client, name);
	_cleanup_free_ char *path = xasprintf("/keys?name=%s", escaped);
	json_t *data = NULL;

	int r = list_all(c, path, &data);
	if (r)
		return r;
	size_t n = json_array_size(data);
	if (n == 0)
		r = error_set(&c->error, -ENOENT, "there is no key '%s'; `iron keys list` shows those there are", name);
	else if (n > 1)
		r = error_set(&c->error, -EINVAL, "%zu keys are named '%s'; give the id, as `iron keys list` shows it", n, name);
	else
		*ret_id = xstrdup(get_string(json_array_get(data, 0), "id"));
	json_decref(data);
	return r;
}

static int run_keys_revoke(struct context *c)
{
	_cleanup_(reply_finish) struct reply r = {0};
	const char *word = c->args.words[0];
	_cleanup_free_ char *id = NULL;

	if (strncmp(word, "key_", 4) == 0)
		id = xstrdup(word);
	else if (find_key(c, word, &id))
		return EXIT_FAILED;
	_cleanup_free_ char *escaped = client_escape(c->client, id);
	_cleanup_free_ char *path = xasprintf("/keys/%s", escaped);
	if (client_ask(c->client, "DELETE", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	if (!c->json)
		out_line("%s revoked", word);
	return 0;
}

static int run_image_list(struct context *c)
{
	static const char *const titles[] = {"NAME", "SIZE", "CREATED", "KERNEL", "ID"};
	static const char *const members[] = {"name", "#size_bytes", "@created_at", "kernel", "id"};
	return print_list(c, "/images", ARRAY_SIZE(titles), titles, members);
}

/* Every member of an object, one a line. */
static void print_object(const json_t *object, const char *indent)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		_cleanup_free_ char *k = out_escape(key), *v = NULL;
		if (json_is_string(value))
			v = out_escape(json_string_value(value));
		else if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
			continue;
		else if (json_is_array(value))
			v = join_scopes(value);
		else
			v = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT);
		if (v && *v)
			out_line("%s%-24s %s", indent, k, v);
	}
}

static int print_one(struct context *c, const char *path)
{
	_cleanup_(reply_finish) struct reply r = {0};

	if (client_ask(c->client, "GET", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	const json_t *data = json_object_get(r.body, "data");
	if (c->json)
		out_json(data);
	else
		print_object(data, "");
	return 0;
}

static int run_image_show(struct context *c)
{
	const char *word = c->args.words[0];
	_cleanup_free_ char *id = NULL;

	if (strncmp(word, "img_", 4) == 0) {
		id = client_escape(c->client, word);
	} else {
		json_t *data = NULL, *image;
		size_t i;
		if (list_all(c, "/images", &data))
			return EXIT_FAILED;
		json_array_foreach(data, i, image)
		{
			if (!id && strcmp(get_string(image, "name"), word) == 0)
				id = xstrdup(get_string(image, "id"));
		}
		json_decref(data);
	}
	if (!id) {
		error_set(&c->error, -ENOENT, "there is no image '%s'; `iron image list` shows those there are", word);
		return EXIT_FAILED;
	}
	_cleanup_free_ char *path = xasprintf("/images/%s", id);
	return print_one(c, path);
}

static void print_roles(const json_t *roles)
{
	static const char *const titles[] = {"ROLE", "STATE", "PID", "RESTARTS", "SINCE"};
	const json_t *role;
	struct table t;
	size_t i;

	table_init(&t, ARRAY_SIZE(titles), titles);
	json_array_foreach(roles, i, role)
	{
		_cleanup_free_ char *pid = xasprintf("%lld", (long long)json_integer_value(json_object_get(role, "pid"))),
				    *restarts = xasprintf("%lld", (long long)json_integer_value(json_object_get(role, "restarts"))),
				    *since = out_age(json_object_get(role, "started_at"));
		const char *cells[] = {get_string(role, "name"), get_string(role, "state"), pid, restarts, since};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	out_line("%s", "");
	table_print(&t);
	table_finish(&t);
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
	print_object(data, "");
	print_roles(json_object_get(data, "roles"));
	return 0;
}

static int run_whoami(struct context *c)
{
	return print_one(c, "/me");
}

static const struct arg_option none[] = {{0}};
static const struct arg_option key_options[] = {{"scope", 0, true}, {"days", 0, true}, {0}};

const struct command admin_commands[] = {
	{"keys list", "", "list keys", "Examples:\n  iron keys list\n", none, 0, 0, false, run_keys_list},
	{"keys create", "NAME --scope S…", "make a key; it is shown once",
	 "  --scope S           vm:read vm:run vm:admin egress:read egress:write secrets:write\n"
	 "                      audit:read snapshots keys admin; may be repeated\n"
	 "  --days N            it expires after this many days\n\n"
	 "Examples:\n  iron keys create ci --scope vm:read --scope vm:run --days 90\n",
	 key_options, 1, 1, false, run_keys_create},
	{"keys revoke", "KEY", "end a key, by its id or name", "Examples:\n  iron keys revoke ci\n  iron keys revoke key_0c3n9m5k2r7tq\n", none, 1, 1, false, run_keys_revoke},
	{"image list", "", "list images", "Examples:\n  iron image list\n", none, 0, 0, false, run_image_list},
	{"image show", "IMAGE", "show an image", "Examples:\n  iron image show base\n", none, 1, 1, false, run_image_show},
	{"host", "", "the host: accelerator, isolation, roles, room", "Examples:\n  iron host\n  iron host --json\n", none, 0, 0, false, run_host},
	{"whoami", "", "whose key this is, and what it may do", "Examples:\n  iron whoami\n", none, 0, 0, false, run_whoami},
	{0},
};
