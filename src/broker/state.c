#include "broker/state.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/id.h"
#include "os/fdutil.h"

/* Ids as text: JSON's numbers are not made for 63 bits in other people's tools. */
static json_t *id_json(const char *prefix, uint64_t id)
{
	char text[ID_TEXT_SIZE];

	id_format(prefix, id, text);
	return json_string(text);
}

int vm_record_write(const char *dir, const struct vm_record *v, struct error *reterr)
{
	json_auto_t *j =
		json_pack("{s:i, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:b}", "format", 1, "vm", id_json("vm_", v->vm),
			  "workspace", id_json("ws_", v->workspace), "image", id_json("img_", v->image), "slot",
			  (int)v->slot, "vcpus", (int)v->vcpus, "memory_mib", (int)v->memory_mib, "disk_gib",
			  (int)v->disk_gib, "prepared", (int)v->prepared);
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	int r = text ? file_replace(dir, "vm.json", str_of(text), 0600) : -ENOMEM;

	return r < 0 ? error_set(reterr, r, "%s/vm.json: %s", dir, strerror(-r)) : 0;
}

static bool get_id(json_t *j, const char *key, const char *prefix, uint64_t *ret)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s && id_parse(prefix, str_of(s), ret) == 0;
}

static bool get_u32(json_t *j, const char *key, uint32_t *ret)
{
	json_t *n = json_object_get(j, key);
	json_int_t v = json_integer_value(n);

	if (!json_is_integer(n) || v < 0 || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

int vm_record_read(const char *dir, struct vm_record *ret, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/vm.json", dir);
	json_auto_t *j = NULL;
	_cleanup_(buf_finish) struct buf b = {0};
	struct vm_record v = {0};
	uint32_t format = 0;
	int r = file_read(path, (size_t)64 << 10, &b);

	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	j = json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
	if (!get_u32(j, "format", &format) || format != 1 || !get_id(j, "vm", "vm_", &v.vm) ||
	    !get_id(j, "workspace", "ws_", &v.workspace) || !get_id(j, "image", "img_", &v.image) ||
	    !get_u32(j, "slot", &v.slot) || !get_u32(j, "vcpus", &v.vcpus) ||
	    !get_u32(j, "memory_mib", &v.memory_mib) || !get_u32(j, "disk_gib", &v.disk_gib))
		return error_set(reterr, -EINVAL, "%s is not a VM's record", path);
	v.prepared = json_is_true(json_object_get(j, "prepared"));
	*ret = v;
	return 0;
}
