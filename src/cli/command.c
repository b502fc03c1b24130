#include "cli/command.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"

/* --- lists --- */

/* The page's objects onto all, `most` there at most; whether some were left. What is no object is left out: nothing
 * here would know what to do with it. */
static bool take_page(json_t *all, const json_t *page, size_t most)
{
	json_t *item;
	size_t i;

	json_array_foreach(page, i, item)
	{
		if (json_array_size(all) >= most)
			return true;
		if (json_is_object(item))
			json_array_append(all, item);
	}
	return false;
}

int list_some(struct context *c, const char *path, size_t most, json_t **ret_data, bool *ret_more)
{
	_cleanup_free_ char *next = xstrdup(path), *last = xstrdup("");
	json_t *all = json_array();
	bool more = false;
	int e = 0;

	for (unsigned pages = 0;; pages++) {
		_cleanup_(reply_finish) struct reply r = {0};
		e = client_ask(c->client, "GET", next, NULL, &r, &c->error);
		const json_t *data = json_object_get(r.body, "data");
		if (e == 0 && !json_is_array(data))
			e = error_set(&c->error, -EPROTO,
			              "the API answered with something that is no list; is the URL right?");
		if (e)
			break;
		bool cut = take_page(all, data, most);
		const char *cursor = json_string_value(json_object_get(r.body, "cursor"));
		bool goes_on = json_is_true(json_object_get(r.body, "has_more")) && cursor;
		more = goes_on || cut;
		if (!goes_on || json_array_size(all) >= most)
			break;
		if (strcmp(cursor, last) == 0 || pages >= LIST_MAX) {
			e = error_set(&c->error, -EPROTO, "the API's list does not end: its cursor does not move on");
			break;
		}
		_cleanup_free_ char *escaped = client_escape(c->client, cursor);
		free(next);
		next = xasprintf("%s%ccursor=%s", path, strchr(path, '?') ? '&' : '?', escaped);
		free(last);
		last = xstrdup(cursor);
	}
	if (e) {
		json_decref(all);
		return e;
	}
	if (ret_more)
		*ret_more = more;
	*ret_data = all;
	return 0;
}

int list_all(struct context *c, const char *path, json_t **ret_data)
{
	bool more = false;
	int r = list_some(c, path, LIST_MAX, ret_data, &more);

	if (r == 0 && more)
		out_warn("there are more than %d; this is not all", LIST_MAX);
	return r;
}

/* --- names --- */

/* An id goes into a path: nothing but what ids are made of. */
static bool is_id(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");
	return n > 0 && n < 64 && s[n] == '\0';
}

int resolve_vm(struct context *c, const char *name, char ret_id[24])
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *escaped = client_escape(c->client, name);

	if (!*name)
		return error_set(&c->error, -EINVAL, "the VM's name is empty");
	bool by_id = strncmp(name, "vm_", 3) == 0;
	_cleanup_free_ char *path = xasprintf(by_id ? "/vms/%s" : "/vms?name=%s", escaped);
	int e = client_ask(c->client, "GET", path, NULL, &r, &c->error);
	if (e)
		return e;
	json_t *data = json_object_get(r.body, "data");
	json_t *vm = by_id ? data : NULL, *item;
	size_t i;
	json_array_foreach(data, i, item)
	{
		if (!vm && strcmp(get_string(item, "name"), name) == 0 &&
		    strcmp(get_string(item, "status"), "destroyed") != 0)
			vm = item;
	}
	if (!vm)
		return error_set(&c->error, -ENOENT, "there is no VM '%s'; `iron list` shows those there are", name);
	if (!is_id(get_string(vm, "id")) || strlen(get_string(vm, "id")) > 23)
		return error_set(&c->error, -EPROTO, "the API answered with an id that is none");
	snprintf(ret_id, 24, "%s", get_string(vm, "id"));
	return 0;
}

char *vm_path(struct context *c, const char *name, const char *suffix)
{
	char id[24];
	return resolve_vm(c, name, id) ? NULL : xasprintf("/vms/%s%s", id, suffix);
}

int resolve_named(struct context *c, const char *path, const char *prefix, const char *what, const char *where,
		  const char *name, char **ret)
{
	const json_t *item, *found = NULL;
	json_t *data = NULL;
	size_t i, n = 0;

	if (strncmp(name, prefix, strlen(prefix)) == 0) {
		*ret = client_escape(c->client, name);
		return 0;
	}
	int r = list_all(c, path, &data);
	if (r)
		return r;
	json_array_foreach(data, i, item)
	{
		if (strcmp(get_string(item, "name"), name) == 0) {
			found = item;
			n++;
		}
	}
	if (n == 0)
		r = error_set(&c->error, -ENOENT, "there is no %s '%s'; `%s` shows those there are", what, name, where);
	else if (n > 1)
		r = error_set(&c->error, -EINVAL, "%zu are named '%s'; give the %s's id, as `%s` shows it", n, name,
		              what, where);
	else if (!is_id(get_string(found, "id")))
		r = error_set(&c->error, -EPROTO, "the API answered with an id that is none");
	else
		*ret = xstrdup(get_string(found, "id"));
	json_decref(data);
	return r;
}

/* --- options into requests --- */

void add_filter(struct context *c, struct buf *path, const char *option, const char *parameter)
{
	const char *v = args_value(&c->args, option);

	if (!v)
		return;
	_cleanup_free_ char *escaped = client_escape(c->client, v);
	buf_printf(path, "&%s=%s", parameter, escaped);
}

int add_time(struct context *c, struct buf *path, const char *option)
{
	static const int64_t seconds[] = {1, 60, 3600, 86400, 7 * 86400};
	const char *v = args_value(&c->args, option);
	char text[RFC3339_SIZE];
	uint64_t n;
	int64_t ms;

	if (!v)
		return 0;
	struct str s = str_of(v);
	const char *units = "smhdw", *unit = s.len ? strchr(units, s.p[s.len - 1]) : NULL;
	if (unit && *unit && str_parse_u64(str_make(s.p, s.len - 1), 1000000, &n) == 0)
		ms = real_ms() - (int64_t)n * 1000 * seconds[unit - units];
	else if (rfc3339_parse(s, &ms))
		return error_set(&c->error, -EINVAL, "--%s must be like 10m, 2h, 3d or 2026-01-31T12:00:00Z, not '%s'",
		                 option, v);
	rfc3339_format(ms, text);
	return buf_printf(path, "&%s=%s", option, text);
}

int add_pairs(struct context *c, json_t *body, const char *option, const char *field)
{
	json_t *object = json_object();
	const char *v;
	int r = 0;

	for (size_t i = 0; r == 0 && (v = args_nth(&c->args, option, i)); i++) {
		const char *eq = strchr(v, '=');
		if (!eq || eq == v) {
			r = error_set(&c->error, -EINVAL, "--%s must be NAME=VALUE, not '%s'", option, v);
			break;
		}
		_cleanup_free_ char *key = xstrndup(v, (size_t)(eq - v));
		if (json_object_set_new(object, key, json_string(eq + 1)))
			r = error_set(&c->error, -EINVAL, "--%s %s is not valid UTF-8", option, key);
	}
	if (r == 0 && json_object_size(object))
		json_object_set(body, field, object);
	json_decref(object);
	return r;
}

/* --- one object --- */

static void print_value(const char *name, const json_t *value)
{
	_cleanup_free_ char *text = NULL;
	size_t n = strlen(name);

	if (json_is_string(value) && n > 3 && strcmp(name + n - 3, "_at") == 0)
		text = out_age(value);
	else if (json_is_string(value))
		text = xstrdup(json_string_value(value));
	else if (json_is_integer(value) && n > 6 && strcmp(name + n - 6, "_bytes") == 0)
		text = out_bytes(value);
	else if (json_is_array(value))
		text = out_join(value, " ");
	else if (json_is_boolean(value))
		text = xstrdup(json_is_true(value) ? "yes" : "no");
	else if (json_is_number(value))
		text = json_dumps(value, JSON_ENCODE_ANY);
	out_field(name, text);
}

/* Lists of objects are not shown: they are tables, and who knows which prints them. */
void print_object(const json_t *object)
{
	const char *key, *inner;
	json_t *value, *v;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
			continue;
		if (!json_is_object(value)) {
			print_value(key, value);
			continue;
		}
		json_object_foreach(value, inner, v)
		{
			_cleanup_free_ char *name = xasprintf("%s.%s", key, inner);
			print_value(name, v);
		}
	}
}

int print_one(struct context *c, const char *path)
{
	_cleanup_(reply_finish) struct reply r = {0};

	if (client_ask(c->client, "GET", path, NULL, &r, &c->error))
		return EXIT_FAILED;
	const json_t *data = json_object_get(r.body, "data");
	if (c->json)
		out_json(data);
	else
		print_object(data);
	return 0;
}
