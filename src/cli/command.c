#include "cli/command.h"

#include <errno.h>
#include <string.h>

#define LIST_MAX 10000

int resolve_vm(struct context *c, const char *name, char ret_id[24])
{
	_cleanup_(reply_finish) struct reply r = {0};
	_cleanup_free_ char *escaped = client_escape(c->client, name);

	if (!*name)
		return error_set(&c->error, -EINVAL, "the VM's name is empty");
	bool is_id = strncmp(name, "vm_", 3) == 0;
	_cleanup_free_ char *path = xasprintf(is_id ? "/vms/%s" : "/vms?name=%s", escaped);
	int e = client_ask(c->client, "GET", path, NULL, &r, &c->error);
	if (e)
		return e;
	json_t *data = json_object_get(r.body, "data");
	json_t *vm = is_id ? data : NULL, *item;
	size_t i;
	json_array_foreach(data, i, item)
	{
		if (!vm && strcmp(get_string(item, "name"), name) == 0 && strcmp(get_string(item, "status"), "destroyed") != 0)
			vm = item;
	}
	if (!vm)
		return error_set(&c->error, -ENOENT, "there is no VM '%s'; `iron list` shows those there are", name);
	if (strlen(get_string(vm, "id")) > 23)
		return error_set(&c->error, -EPROTO, "the API answered with an id that is none");
	snprintf(ret_id, 24, "%s", get_string(vm, "id"));
	return 0;
}

int list_all(struct context *c, const char *path, json_t **ret_data)
{
	json_t *all = json_array();
	_cleanup_free_ char *next = xstrdup(path);

	for (;;) {
		_cleanup_(reply_finish) struct reply r = {0};
		int e = client_ask(c->client, "GET", next, NULL, &r, &c->error);
		if (e) {
			json_decref(all);
			return e;
		}
		json_array_extend(all, json_object_get(r.body, "data"));
		const char *cursor = json_string_value(json_object_get(r.body, "cursor"));
		if (!json_is_true(json_object_get(r.body, "has_more")) || !cursor || json_array_size(all) >= LIST_MAX)
			break;
		_cleanup_free_ char *escaped = client_escape(c->client, cursor);
		free(next);
		next = xasprintf("%s%ccursor=%s", path, strchr(path, '?') ? '&' : '?', escaped);
	}
	*ret_data = all;
	return 0;
}
