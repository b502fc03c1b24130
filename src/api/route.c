#include "api/route.h"

#include <errno.h>

#include "base/id.h"
#include "model/name.h"

static const struct route_parameter parameters[] = {
	{STR(":id"), "vm_", CODE_VM_NOT_FOUND},
	{STR(":rule"), "egr_", CODE_RULE_NOT_FOUND},
	{STR(":key"), "key_", CODE_KEY_NOT_FOUND},
	{STR(":image"), "img_", CODE_IMAGE_NOT_FOUND},
	{STR(":exec"), "exec_", CODE_EXEC_NOT_FOUND},
	{STR(":name"), NULL, CODE_PRESET_NOT_FOUND},
};

const struct route_parameter *route_parameter_find(struct str segment)
{
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++)
		if (str_eq(parameters[i].name, segment))
			return &parameters[i];
	return NULL;
}

/* Both begin with "/". Which segment is a parameter is in the pattern; any text stands for it here. */
static bool path_matches(struct str pattern, struct str path)
{
	struct str want, got;

	for (;;) {
		bool more = str_split(&pattern, '/', &want);
		if (more != str_split(&path, '/', &got))
			return false;
		if (!more)
			return true;
		if (want.len && want.p[0] == ':' ? got.len == 0 : !str_eq(want, got))
			return false;
	}
}

static int take_name(const struct route_parameter *p, struct str got, struct route *ret, enum api_code *ret_code)
{
	if (vm_name_check("name", got, NULL)) {
		*ret_code = p->missing;
		return -ENOENT;
	}
	ret->name = got;
	return 0;
}

static int take_parameters(struct str pattern, struct str path, struct route *ret, enum api_code *ret_code)
{
	struct str want, got;

	while (str_split(&pattern, '/', &want) && str_split(&path, '/', &got)) {
		const struct route_parameter *p = route_parameter_find(want);
		uint64_t id;
		if (!p)
			continue;
		if (!p->prefix && take_name(p, got, ret, ret_code))
			return -ENOENT;
		if (!p->prefix)
			continue;
		if (id_parse(p->prefix, got, &id) || id == 0) {
			*ret_code = p->missing;
			return -ENOENT;
		}
		*(p == &parameters[0] ? &ret->vm : &ret->id) = id;
	}
	return 0;
}

static void add_allowed(struct buf *allow, const char *method)
{
	struct str text = buf_str(allow);

	for (struct str item; str_split(&text, ',', &item);)
		if (str_eq(str_trim(item, " "), str_of(method)))
			return;
	buf_printf(allow, "%s%s", allow->len ? ", " : "", method);
	if (strcmp(method, "GET") == 0)
		buf_append_z(allow, ", HEAD");
}

int route_find(struct str method, struct str path, struct route *ret, struct buf *allow,
	       enum api_code *ret_code)
{
	bool found = false;

	*ret_code = CODE_NOT_FOUND;
	if (!str_has_prefix(path, STR("/v1/")))
		return -ENOENT;
	path = str_make(path.p + 3, path.len - 3);
	if (str_eq(method, STR("HEAD")))
		method = STR("GET");
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_info *info = op_info_get(op);
		if (!path_matches(str_of(info->path), path))
			continue;
		found = true;
		add_allowed(allow, info->method);
		if (!str_eq(str_of(info->method), method))
			continue;
		*ret = (struct route){.op = (enum api_op)op};
		return take_parameters(str_of(info->path), path, ret, ret_code);
	}
	*ret_code = found ? CODE_METHOD_NOT_ALLOWED : CODE_NOT_FOUND;
	return found ? -EPERM : -ENOENT;
}
