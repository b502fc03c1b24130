#include "api/openapi.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "api/json.h"
#include "api/route.h"
#include "model/scope.h"

#define DESCRIPTION_MAX ((size_t)4 << 20)

/* --- requests --- */

static void put_parameter(struct json *j, const char *name, const char *in, bool required, const char *doc)
{
	json_object_begin(j, NULL);
	json_str(j, "name", str_of(name));
	json_str(j, "in", str_of(in));
	if (required)
		json_bool(j, "required", true);
	json_str(j, "description", str_of(doc));
}

static void put_path_parameters(struct json *j, struct str path)
{
	struct str segment;
	char name[32];

	while (str_split(&path, '/', &segment)) {
		const struct route_parameter *p = route_parameter_find(segment);
		struct field id = {.name = "id", .kind = FIELD_ID};
		if (!p || str_copy(str_make(segment.p + 1, segment.len - 1), name, sizeof name))
			continue;
		id.choices = p->prefix;
		if (!p->prefix)
			id = (struct field){.name = name, .kind = FIELD_TEXT, .required = true, .lo = 1, .hi = 63};
		put_parameter(j, name, "path", true, p->prefix ? "The id, as lists show it" : "The name, as lists show it");
		schema_of_parameter(j, "schema", &id);
		json_object_end(j);
	}
}

static void put_idempotency_key(struct json *j)
{
	put_parameter(j, "Idempotency-Key", "header", false,
		      "The same key with the same call is done once within 24 h, and answered the same way again");
	json_object_begin(j, "schema");
	json_str(j, "type", STR("string"));
	json_u64(j, "minLength", 1);
	json_u64(j, "maxLength", 255);
	json_str(j, "pattern", STR("^[!-~]+$"));
	json_object_end(j);
	json_object_end(j);
}

static void put_parameters(struct json *j, const struct op_info *info, const struct op_shape *shape)
{
	json_array_begin(j, "parameters");
	put_path_parameters(j, str_of(info->path));
	for (size_t i = 0; i < shape->query->n; i++) {
		const struct field *f = &shape->query->v[i];
		put_parameter(j, f->name, "query", f->required, f->doc);
		schema_of_parameter(j, "schema", f);
		json_object_end(j);
	}
	if (strcmp(info->method, "POST") == 0)
		put_idempotency_key(j);
	json_array_end(j);
}

static bool has_required(const struct field_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->v[i].required)
			return true;
	return set->either[0] != NULL;
}

static void put_request_body(struct json *j, const struct op_info *info, const struct op_shape *shape)
{
	bool takes_none = strcmp(info->method, "GET") == 0 || strcmp(info->method, "DELETE") == 0;

	if (takes_none)
		return;
	json_object_begin(j, "requestBody");
	json_bool(j, "required", shape->body_media || has_required(shape->body));
	json_object_begin(j, "content");
	json_object_begin(j, shape->body_media ? shape->body_media : "application/json");
	if (!shape->body_media)
		schema_of_body(j, "schema", shape->body);
	json_object_end(j);
	json_object_end(j);
	json_object_end(j);
}

/* --- operations --- */

static void put_lower(char *ret, size_t size, const char *text)
{
	size_t n = 0;

	for (; text[n] && n + 1 < size; n++)
		ret[n] = (char)tolower((unsigned char)text[n]);
	ret[n] = 0;
}

/* "/vms/:id/start": "vms" */
static void put_tag(struct json *j, struct str path)
{
	struct str segment;
	char tag[64];

	str_split(&path, '/', &segment);
	str_split(&path, '/', &segment);
	json_array_begin(j, "tags");
	if (str_copy(segment, tag, sizeof tag) == 0)
		json_str(j, NULL, str_of(tag));
	json_array_end(j);
}

static void put_security(struct json *j, const struct op_info *info, const struct op_shape *shape)
{
	json_array_begin(j, "security");
	if (!shape->open) {
		json_object_begin(j, NULL);
		json_array_begin(j, "key");
		for (unsigned i = 0; i < SCOPE_COUNT; i++)
			if (info->scope & 1U << i)
				json_str(j, NULL, str_of(scope_text(i)));
		json_array_end(j);
		json_object_end(j);
	}
	json_array_end(j);
}

static void put_operation(struct json *j, enum api_op op)
{
	const struct op_info *info = op_info_get(op);
	const struct op_shape *shape = op_shape_get(op);
	char text[64];

	put_lower(text, sizeof text, info->method);
	json_object_begin(j, text);
	put_lower(text, sizeof text, info->name);
	json_str(j, "operationId", str_of(text));
	put_tag(j, str_of(info->path));
	json_str(j, "summary", str_of(info->summary));
	if (shape->doc)
		json_str(j, "description", str_of(shape->doc));
	put_security(j, info, shape);
	put_parameters(j, info, shape);
	put_request_body(j, info, shape);
	openapi_put_responses(j, "responses", op);
	json_object_end(j);
}

/* "/vms/:id": "/vms/{id}" */
static void put_path_name(struct json *j, struct str path)
{
	_cleanup_(buf_finish) struct buf name = {0};
	struct str segment;

	str_split(&path, '/', &segment);
	while (str_split(&path, '/', &segment)) {
		if (segment.len && segment.p[0] == ':')
			buf_printf(&name, "/{%.*s}", (int)segment.len - 1, segment.p + 1);
		else
			buf_printf(&name, "/%.*s", STR_ARG(segment));
	}
	char *key = buf_take_z(&name);
	json_object_begin(j, key);
	free(key);
}

static bool is_first_of_path(unsigned op)
{
	for (unsigned i = 0; i < op; i++)
		if (strcmp(op_info_get(i)->path, op_info_get(op)->path) == 0)
			return false;
	return true;
}

static void put_paths(struct json *j)
{
	json_object_begin(j, "paths");
	for (unsigned op = 0; op < OP_COUNT; op++) {
		if (!is_first_of_path(op))
			continue;
		put_path_name(j, str_of(op_info_get(op)->path));
		for (unsigned i = op; i < OP_COUNT; i++)
			if (strcmp(op_info_get(i)->path, op_info_get(op)->path) == 0)
				put_operation(j, (enum api_op)i);
		json_object_end(j);
	}
	json_object_end(j);
}

/* --- the document --- */

struct shapes {
	const struct out_shape *v[4 * OP_COUNT];
	size_t n;
};

static void add_shape(struct shapes *s, const struct out_shape *shape)
{
	bool known = !shape || s->n == ARRAY_SIZE(s->v);

	for (size_t i = 0; i < s->n; i++)
		known = known || s->v[i] == shape;
	if (!known)
		s->v[s->n++] = shape;
}

/* Every shape that an answer refers to, each once. */
static void put_shapes(struct json *j)
{
	struct shapes s = {0};
	char name[64];

	add_shape(&s, out_shape_get(MSG_TYPE_row_role));
	add_shape(&s, out_shape_get(ROW_PRESET_RULE));
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_shape *shape = op_shape_get((enum api_op)op);
		if (shape->row)
			add_shape(&s, out_shape_get(shape->row));
		for (const struct op_answer *form = shape->answers; form && form->media; form++)
			add_shape(&s, form->object);
	}
	json_object_begin(j, "schemas");
	for (size_t i = 0; i < s.n; i++) {
		schema_name(s.v[i], name);
		schema_of_row(j, name, s.v[i]);
	}
	json_object_end(j);
}

static void put_components(struct json *j)
{
	json_object_begin(j, "components");
	put_shapes(j);
	openapi_put_error_components(j);
	json_object_begin(j, "securitySchemes");
	json_object_begin(j, "key");
	json_str(j, "type", STR("http"));
	json_str(j, "scheme", STR("bearer"));
	json_str(j, "description", STR("Authorization: Bearer iron_live_… What an operation's security names is the scope that the "
				       "key must have; a key with the scope admin has them all."));
	json_object_end(j);
	json_object_end(j);
	json_object_end(j);
}

static void put_info(struct json *j)
{
	json_object_begin(j, "info");
	json_str(j, "title", STR("iron"));
	json_str(j, "version", STR(IRON_VERSION));
	json_str(j, "description",
		 STR("Hardened virtual machines for agents behind one egress door, with a record. Times are RFC 3339, UTC. Every "
		     "field of an answer is always there: an absent text is \"\", an absent number or time is null. In a body, null "
		     "and (for an optional text) \"\" are an absent field; an unknown field is a 422 that names it. No body, or an "
		     "empty one, is {}. HEAD goes where GET goes. Any path may answer 404 not_found or 405 method_not_allowed "
		     "where there is no such operation, and 501 bad_request for CONNECT and TRACE."));
	json_object_end(j);
}

int openapi_write(struct buf *out)
{
	struct json j = {.out = out};

	out->max = DESCRIPTION_MAX;
	json_object_begin(&j, NULL);
	json_str(&j, "openapi", STR("3.1.0"));
	put_info(&j);
	json_array_begin(&j, "servers");
	json_object_begin(&j, NULL);
	json_str(&j, "url", STR("/v1"));
	json_object_end(&j);
	json_array_end(&j);
	put_paths(&j);
	put_components(&j);
	json_object_end(&j);
	return out->failed ? -EMSGSIZE : 0;
}
