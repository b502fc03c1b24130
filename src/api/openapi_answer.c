/* What an operation answers: its success in every form, and its errors. */
#include <errno.h>
#include <stdio.h>

#include "api/answer.h"
#include "api/json.h"
#include "api/openapi.h"
#include "api/route.h"

#define ERRORS_OF_ALL                                                                                                  \
	(ERR(BAD_REQUEST) | ERR(TOO_LARGE) | ERR(UNSUPPORTED_MEDIA_TYPE) | ERR(VALIDATION_ERROR) | ERR(RATE_LIMITED) |    \
	 ERR(INTERNAL) | ERR(UNAVAILABLE))

/* --- errors --- */

static uint64_t errors_of_path(struct str path)
{
	uint64_t set = 0;
	struct str segment;

	while (str_split(&path, '/', &segment)) {
		const struct route_parameter *p = route_parameter_find(segment);
		if (p)
			set |= 1ULL << p->missing;
	}
	return set;
}

uint64_t openapi_errors(enum api_op op)
{
	const struct op_shape *shape = op_shape_get(op);
	const struct op_info *info = op_info_get(op);
	uint64_t set = ERRORS_OF_ALL | shape->errors | errors_of_path(str_of(info->path));

	if (!shape->open)
		set |= ERR(UNAUTHORIZED) | ERR(SCOPE_MISSING);
	if (strcmp(info->method, "GET") != 0)
		set |= ERR(NO_ROOM);
	if (strcmp(info->method, "POST") == 0)
		set |= ERR(IDEMPOTENCY_MISMATCH) | ERR(QUOTA_EXCEEDED);
	return set;
}

static void put_error_schema(struct json *j, uint64_t codes)
{
	json_object_begin(j, "schema");
	json_str(j, "type", STR("object"));
	json_object_begin(j, "properties");
	json_object_begin(j, "error");
	json_str(j, "type", STR("object"));
	json_object_begin(j, "properties");
	json_object_begin(j, "code");
	json_str(j, "type", STR("string"));
	json_array_begin(j, "enum");
	for (unsigned i = 0; i < CODE_COUNT; i++)
		if (codes & 1ULL << i)
			json_str(j, NULL, str_of(code_text((enum api_code)i)));
	json_array_end(j);
	json_object_end(j);
	json_object_begin(j, "message");
	json_str(j, "type", STR("string"));
	json_str(j, "description", STR("What is wrong, and what to do next"));
	json_object_end(j);
	json_object_end(j);
	json_array_begin(j, "required");
	json_str(j, NULL, STR("code"));
	json_str(j, NULL, STR("message"));
	json_array_end(j);
	json_object_end(j);
	json_object_end(j);
	json_array_begin(j, "required");
	json_str(j, NULL, STR("error"));
	json_array_end(j);
	json_object_end(j);
}

static void put_error_headers(struct json *j, unsigned status)
{
	const char *name = status == 401 ? "WWW-Authenticate" : status == 429 || status == 503 ? "Retry-After" : NULL;

	if (!name)
		return;
	json_object_begin(j, "headers");
	json_object_begin(j, name);
	if (status != 401)
		json_str(j, "description", STR("Seconds"));
	json_object_begin(j, "schema");
	json_str(j, "type", status == 401 ? STR("string") : STR("integer"));
	json_object_end(j);
	json_object_end(j);
	json_object_end(j);
}

/* key: the status, or a component's name. */
static void put_error(struct json *j, const char *key, unsigned status, uint64_t codes)
{
	char doc[256] = "";

	for (unsigned i = 0; i < CODE_COUNT; i++)
		if (codes & 1ULL << i)
			snprintf(doc + strlen(doc), sizeof doc - strlen(doc), "%s%s", doc[0] ? ", " : "", code_text((enum api_code)i));
	json_object_begin(j, key);
	json_str(j, "description", str_of(doc));
	put_error_headers(j, status);
	json_object_begin(j, "content");
	json_object_begin(j, "application/json");
	put_error_schema(j, codes);
	json_object_end(j);
	json_object_end(j);
	json_object_end(j);
}

/* What HTTP itself refuses with, beside the status that code.h gives the code. */
static const struct {
	unsigned status;
	enum api_code code;
} other_statuses[] = {{408, CODE_BAD_REQUEST}, {414, CODE_TOO_LARGE}, {431, CODE_TOO_LARGE}};

static uint64_t codes_of_status(uint64_t set, unsigned status)
{
	uint64_t codes = 0;

	for (unsigned i = 0; i < CODE_COUNT; i++)
		if (set & 1ULL << i && code_status((enum api_code)i) == status)
			codes |= 1ULL << i;
	for (size_t i = 0; i < ARRAY_SIZE(other_statuses); i++)
		if (other_statuses[i].status == status)
			codes |= 1ULL << other_statuses[i].code;
	return codes;
}

/* Statuses whose codes are the same in every operation are components. */
static bool is_common(unsigned status, uint64_t codes)
{
	uint64_t all = ERRORS_OF_ALL | ERR(UNAUTHORIZED) | ERR(SCOPE_MISSING) | ERR(NO_ROOM);

	return codes && codes == codes_of_status(all, status);
}

void openapi_put_error_components(struct json *j)
{
	uint64_t all = ERRORS_OF_ALL | ERR(UNAUTHORIZED) | ERR(SCOPE_MISSING) | ERR(NO_ROOM);
	char name[16];

	json_object_begin(j, "responses");
	for (unsigned status = 400; status < 600; status++) {
		uint64_t codes = codes_of_status(all, status);
		snprintf(name, sizeof name, "E%u", status);
		if (codes)
			put_error(j, name, status, codes);
	}
	json_object_end(j);
}

static void put_errors(struct json *j, enum api_op op)
{
	uint64_t set = openapi_errors(op);
	char key[16], ref[64];

	for (unsigned status = 400; status < 600; status++) {
		uint64_t codes = codes_of_status(set, status);
		snprintf(key, sizeof key, "%u", status);
		snprintf(ref, sizeof ref, "#/components/responses/E%u", status);
		if (is_common(status, codes)) {
			json_object_begin(j, key);
			json_str(j, "$ref", str_of(ref));
			json_object_end(j);
		} else if (codes) {
			put_error(j, key, status, codes);
		}
	}
}

/* --- successes --- */

static void put_ref(struct json *j, const char *key, const struct out_shape *shape)
{
	char name[64], ref[96];

	schema_name(shape, name);
	snprintf(ref, sizeof ref, "#/components/schemas/%s", name);
	json_object_begin(j, key);
	json_str(j, "$ref", str_of(ref));
	json_object_end(j);
}

static void put_required(struct json *j, const char *a, const char *b, const char *c)
{
	const char *const names[] = {a, b, c};

	json_array_begin(j, "required");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i])
			json_str(j, NULL, str_of(names[i]));
	json_array_end(j);
}

static void put_list(struct json *j, const struct op_shape *shape)
{
	json_object_begin(j, "data");
	json_str(j, "type", STR("array"));
	put_ref(j, "items", out_shape_get(shape->row));
	json_object_end(j);
	json_object_begin(j, "has_more");
	json_str(j, "type", STR("boolean"));
	json_object_end(j);
	json_object_begin(j, "cursor");
	json_array_begin(j, "type");
	json_str(j, NULL, STR("string"));
	json_str(j, NULL, STR("null"));
	json_array_end(j);
	json_str(j, "description", STR("For the next page: the same call with cursor="));
	json_object_end(j);
}

static void put_with_parts(struct json *j, const struct op_shape *shape)
{
	uint16_t part;
	const char *parts = answer_parts(shape->answer, &part);

	json_object_begin(j, "data");
	json_array_begin(j, "allOf");
	if (shape->row)
		put_ref(j, NULL, out_shape_get(shape->row));
	json_object_begin(j, NULL);
	json_str(j, "type", STR("object"));
	json_object_begin(j, "properties");
	json_object_begin(j, parts);
	json_str(j, "type", STR("array"));
	put_ref(j, "items", out_shape_get(part));
	json_object_end(j);
	json_object_end(j);
	put_required(j, parts, NULL, NULL);
	json_object_end(j);
	json_array_end(j);
	json_object_end(j);
}

/* {"data": …} as `kind` makes it; object: of a shape that is none of a row. */
static void put_envelope(struct json *j, const char *key, const struct op_shape *shape, const struct out_shape *object)
{
	bool list = !object && shape->answer == ANSWER_LIST;

	json_object_begin(j, key);
	json_str(j, "type", STR("object"));
	json_object_begin(j, "properties");
	if (list)
		put_list(j, shape);
	else if (!object && (shape->answer == ANSWER_ROLES || shape->answer == ANSWER_EXPLAIN))
		put_with_parts(j, shape);
	else
		put_ref(j, "data", object ? object : out_shape_get(shape->row));
	json_object_end(j);
	put_required(j, "data", list ? "has_more" : NULL, list ? "cursor" : NULL);
	json_object_end(j);
}

static bool is_of(const struct op_shape *shape, const struct op_answer *form, unsigned status)
{
	return form->status ? form->status == status : shape->status == status;
}

static bool is_alike(const struct op_shape *shape, const struct op_answer *a, const struct op_answer *b, unsigned status)
{
	return is_of(shape, b, status) && strcmp(a->media, b->media) == 0;
}

static void put_form(struct json *j, const char *key, const struct op_shape *shape, const struct op_answer *form)
{
	if (form->object) {
		put_envelope(j, key, shape, form->object);
		return;
	}
	json_object_begin(j, key);
	json_str(j, "type", strcmp(form->media, "application/json") == 0 ? STR("object") : STR("string"));
	json_str(j, "description", str_of(form->doc));
	json_object_end(j);
}

/* One medium of a status: its only form, or any of them. */
static void put_medium(struct json *j, const struct op_shape *shape, const struct op_answer *first, unsigned status)
{
	bool many = false;

	for (const struct op_answer *form = first + 1; form->media; form++)
		many = many || is_alike(shape, first, form, status);
	json_object_begin(j, first->media);
	if (!many) {
		put_form(j, "schema", shape, first);
		json_object_end(j);
		return;
	}
	json_object_begin(j, "schema");
	json_array_begin(j, "anyOf");
	for (const struct op_answer *form = first; form->media; form++)
		if (is_alike(shape, first, form, status))
			put_form(j, NULL, shape, form);
	json_array_end(j);
	json_object_end(j);
	json_object_end(j);
}

static bool is_first_of_medium(const struct op_shape *shape, const struct op_answer *form, unsigned status)
{
	for (const struct op_answer *f = shape->answers; f < form; f++)
		if (is_alike(shape, form, f, status))
			return false;
	return is_of(shape, form, status);
}

static void put_content(struct json *j, const struct op_shape *shape, unsigned status)
{
	json_object_begin(j, "content");
	for (const struct op_answer *form = shape->answers; form && form->media; form++)
		if (is_first_of_medium(shape, form, status))
			put_medium(j, shape, form, status);
	if (!shape->answers) {
		json_object_begin(j, "application/json");
		put_envelope(j, "schema", shape, NULL);
		json_object_end(j);
	}
	json_object_end(j);
}

static void put_success(struct json *j, const struct op_shape *shape, unsigned status, const char *summary)
{
	char key[16];

	snprintf(key, sizeof key, "%u", status);
	json_object_begin(j, key);
	json_str(j, "description", str_of(status == 204 ? "Done" : status == 101 ? "A WebSocket" : summary));
	if (shape->answer != ANSWER_NONE)
		put_content(j, shape, status);
	json_object_end(j);
}

static void put_successes(struct json *j, const struct op_shape *shape, const char *summary)
{
	put_success(j, shape, shape->status, summary);
	for (const struct op_answer *form = shape->answers; form && form->media; form++)
		if (form->status && form->status != shape->status)
			put_success(j, shape, form->status, summary);
}

void openapi_put_responses(struct json *j, const char *key, enum api_op op)
{
	json_object_begin(j, key);
	put_successes(j, op_shape_get(op), op_info_get(op)->summary);
	put_errors(j, op);
	json_object_end(j);
}
