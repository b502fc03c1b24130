/* egress preset list, show, add, remove: named groups of rules of the workspace. */
#include <errno.h>
#include <string.h>

#include "cli/command.h"

static void print_presets(const json_t *data)
{
	static const struct column columns[] = {
		{"NAME", 12, 1, false}, {"ADDED", 0, 0, false}, {"DESCRIPTION", 20, 2, false}, {"HOSTS", 8, 3, false}};
	const json_t *preset, *rule;
	struct table t;
	size_t i, k;

	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, preset)
	{
		json_t *hosts = json_array();
		json_array_foreach(json_object_get(preset, "rules"), k, rule)
			json_array_append(hosts, json_object_get(rule, "host"));
		_cleanup_free_ char *all = out_join(hosts, ",");
		json_decref(hosts);
		table_cell(&t, get_string(preset, "name"));
		table_cell(&t, json_is_true(json_object_get(preset, "added")) ? "yes" : "no");
		table_cell(&t, get_string(preset, "description"));
		table_cell(&t, all);
	}
	table_print(&t);
	table_finish(&t);
}

static void print_rules(const json_t *preset)
{
	static const struct column columns[] = {{"ACTION", 0, 0, false},
						{"HOST", 12, 0, false},
						{"PORTS", 6, 1, false},
						{"METHODS", 0, 3, false},
						{"PATHS", 6, 3, false},
						{"TLS", 9, 2, false}};
	const json_t *rule;
	struct table t;
	size_t i;

	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(json_object_get(preset, "rules"), i, rule)
	{
		_cleanup_free_ char *ports = out_join(json_object_get(rule, "ports"), ","),
				    *methods = out_join(json_object_get(rule, "methods"), ","),
				    *paths = out_join(json_object_get(rule, "paths"), ",");
		const char *cells[] = {get_string(rule, "action"), get_string(rule, "host"), ports, methods, paths,
				       get_string(rule, "tls")};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	table_print(&t);
	table_finish(&t);
}

static int run_list(struct context *c)
{
	json_t *data = NULL;
	const json_t *preset;
	size_t i;

	if (list_all(c, "/egress/presets", &data))
		return EXIT_FAILED;
	if (c->json)
		out_json(data);
	else if (!c->quiet)
		print_presets(data);
	else
		json_array_foreach(data, i, preset)
		{
			_cleanup_free_ char *name = out_escape(get_string(preset, "name"));
			out_line("%s", name);
		}
	json_decref(data);
	return 0;
}

static int run_show(struct context *c)
{
	const char *name = c->args.words[1];
	const json_t *preset, *found = NULL;
	json_t *data = NULL;
	size_t i;

	if (list_all(c, "/egress/presets", &data))
		return EXIT_FAILED;
	json_array_foreach(data, i, preset)
		if (strcmp(get_string(preset, "name"), name) == 0)
			found = preset;
	if (!found)
		error_set(&c->error, -ENOENT, "there is no preset %s; `iron egress preset list` shows which there are", name);
	else if (c->json)
		out_json(found);
	else if (c->quiet)
		out_line("%s", name);
	else {
		out_field("name", name);
		out_field("description", get_string(found, "description"));
		out_field("added", json_is_true(json_object_get(found, "added")) ? "yes" : "no");
		out_line("%s", "");
		print_rules(found);
	}
	json_decref(data);
	return found ? 0 : EXIT_FAILED;
}

static int change_one(struct context *c, bool adds, const char *name, json_t *done)
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *escaped = client_escape(c->client, name), *safe = out_escape(name);
	_cleanup_free_ char *path = xasprintf("/egress/presets/%s", escaped);

	/* "" and "a/b" would be other paths */
	if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		error_set(&c->error, -EINVAL, "'%s' is no preset's name", name);
		return EXIT_USAGE;
	}
	if (client_ask(c->client, adds ? "POST" : "DELETE", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	if (adds)
		json_array_append(done, json_object_get(r.body, "data"));
	else
		json_array_append_new(done, json_pack("{s:s}", "name", name));
	if (!c->json)
		out_done("%s %s", safe, adds ? "added" : "removed");
	return 0;
}

static int run_change(struct context *c, bool adds)
{
	json_t *done = json_array();
	int e = 0;

	for (size_t i = 1; e == 0 && i < c->args.n_words; i++)
		e = change_one(c, adds, c->args.words[i], done);
	if (c->json)
		out_json(done);
	json_decref(done);
	return e;
}

int run_preset(struct context *c)
{
	const char *word = c->args.words[0];
	size_t names = c->args.n_words - 1;

	if (strcmp(word, "list") == 0 && names == 0)
		return run_list(c);
	if (strcmp(word, "show") == 0 && names == 1)
		return run_show(c);
	if ((strcmp(word, "add") == 0 || strcmp(word, "remove") == 0) && names > 0)
		return run_change(c, word[0] == 'a');
	error_set(&c->error, -EINVAL, "%s", strcmp(word, "list") == 0   ? "list takes no name"
				      : strcmp(word, "show") == 0       ? "show takes one preset's name"
				      : strcmp(word, "add") == 0        ? "name the presets to add"
				      : strcmp(word, "remove") == 0     ? "name the presets to remove"
									: "list, show, add or remove?");
	return EXIT_USAGE;
}
