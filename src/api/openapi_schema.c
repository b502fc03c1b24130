/* What a table takes or gives, as JSON Schema. A schema never asks for less than the table does not know: what it calls
 * invalid is refused (422), and what an answer holds is valid by it. It may let pass what the server still refuses, where
 * a rule is beyond a schema (a host's name, one of two members and not both). */
#include <stdio.h>

#include "api/json.h"
#include "api/openapi.h"
#include "model/name.h"
#include "model/scope.h"

#define ID_DIGITS "[0-7][0-9a-hjkmnp-tv-z]{12}"
#define TIME_PATTERN "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
#define NO_CONTROLS "^[^\\u0000-\\u001f\\u007f]*$"

/* --- pieces --- */

static void put_type(struct json *j, const char *type, bool nullable)
{
	if (!nullable) {
		json_str(j, "type", str_of(type));
		return;
	}
	json_array_begin(j, "type");
	json_str(j, NULL, str_of(type));
	json_str(j, NULL, STR("null"));
	json_array_end(j);
}

static void put_pattern(struct json *j, const char *pattern)
{
	json_str(j, "pattern", str_of(pattern));
}

static void put_id(struct json *j, const char *prefix, bool or_empty)
{
	char text[64];

	snprintf(text, sizeof text, or_empty ? "^(%s" ID_DIGITS ")?$" : "^%s" ID_DIGITS "$", prefix);
	put_pattern(j, text);
}

static void put_choices(struct json *j, const char *choices, bool or_empty, bool or_null)
{
	struct str rest = str_of(choices), item;

	json_array_begin(j, "enum");
	while (str_split(&rest, '|', &item))
		json_str(j, NULL, item);
	if (or_empty)
		json_str(j, NULL, STR(""));
	if (or_null)
		json_null(j, NULL);
	json_array_end(j);
}

static void put_scopes(struct json *j)
{
	json_object_begin(j, "items");
	json_str(j, "type", STR("string"));
	json_array_begin(j, "enum");
	for (unsigned i = 0; i < SCOPE_COUNT; i++)
		json_str(j, NULL, str_of(scope_text(i)));
	json_array_end(j);
	json_object_end(j);
}

static void put_doc(struct json *j, const char *doc)
{
	if (doc)
		json_str(j, "description", str_of(doc));
}

/* --- what is taken --- */

/* An optional member of a body may be null, and an optional text empty: both are an absent one. */
struct place {
	bool nullable, may_be_empty;
};

static void put_members(struct json *j, const struct field_set *set);
static void put_field(struct json *j, const struct field *f, struct place place);

static void put_text_or_number(struct json *j, const struct field *f)
{
	json_array_begin(j, "type");
	json_str(j, NULL, STR("string"));
	json_str(j, NULL, STR("integer"));
	json_array_end(j);
	if (f->pattern)
		put_pattern(j, f->pattern);
	json_u64(j, "minimum", 1);
	json_u64(j, "maximum", f->or_number);
}

static void put_text(struct json *j, const struct field *f, struct place place)
{
	bool bounded = !f->trim && f->kind != FIELD_BASE64;

	if (f->or_number) {
		put_text_or_number(j, f);
		return;
	}
	put_type(j, "string", place.nullable);
	if (f->choices) {
		put_choices(j, f->choices, place.may_be_empty, place.nullable);
		return;
	}
	if (!place.may_be_empty && (f->lo || f->required || f->check))
		json_u64(j, "minLength", 1);
	if (bounded && f->hi)
		json_u64(j, "maxLength", f->hi);
	if (f->kind == FIELD_BASE64)
		json_str(j, "contentEncoding", STR("base64"));
	else if (f->kind == FIELD_BYTES)
		put_pattern(j, "^[^\\u0000]*$");
	else if (f->pattern && !place.may_be_empty)
		put_pattern(j, f->pattern);
	else if (!f->trim)
		put_pattern(j, NO_CONTROLS);
}

static void put_time(struct json *j, struct place place)
{
	put_type(j, "string", place.nullable);
	/* "" is no date-time */
	if (!place.may_be_empty)
		json_str(j, "format", STR("date-time"));
	put_pattern(j, place.may_be_empty ? "^(" TIME_PATTERN ")?$" : "^" TIME_PATTERN "$");
}

static void put_list(struct json *j, const struct field *f, struct place place)
{
	struct field item = *f;

	put_type(j, "array", place.nullable);
	json_u64(j, "maxItems", f->items);
	item.kind = f->kind == FIELD_ARGS ? FIELD_BYTES : FIELD_TEXT;
	item.doc = NULL;
	json_object_begin(j, "items");
	put_field(j, &item, (struct place){0});
	json_object_end(j);
}

static void put_ports(struct json *j, const struct field *f, struct place place)
{
	put_type(j, "array", place.nullable);
	json_u64(j, "maxItems", f->items);
	json_object_begin(j, "items");
	json_str(j, "type", STR("integer"));
	json_u64(j, "minimum", 1);
	json_u64(j, "maximum", 65535);
	json_object_end(j);
}

static void put_pairs(struct json *j, const struct field *f, struct place place)
{
	put_type(j, "object", place.nullable);
	json_u64(j, "maxProperties", f->items);
	json_object_begin(j, "propertyNames");
	put_pattern(j, "^[^=\\u0000-\\u001f\\u007f]+$");
	if (f->kind == FIELD_LABELS)
		json_u64(j, "maxLength", LABEL_KEY_MAX);
	json_object_end(j);
	json_object_begin(j, "additionalProperties");
	json_str(j, "type", STR("string"));
	if (f->kind == FIELD_LABELS) {
		json_u64(j, "maxLength", LABEL_VALUE_MAX);
		put_pattern(j, NO_CONTROLS);
	} else {
		put_pattern(j, "^[^\\u0000]*$");
	}
	json_object_end(j);
}

static void put_rules(struct json *j, const struct field *f, struct place place)
{
	put_type(j, "array", place.nullable);
	json_u64(j, "maxItems", f->items);
	json_object_begin(j, "items");
	json_str(j, "type", STR("object"));
	put_members(j, f->sub);
	json_object_end(j);
}

static void put_number(struct json *j, const struct field *f, struct place place)
{
	uint32_t scale = f->scale ? f->scale : 1;

	put_type(j, "integer", place.nullable);
	json_u64(j, "minimum", f->lo);
	json_u64(j, "maximum", f->hi);
	if (f->absent >= f->lo * scale && f->absent <= f->hi * scale && f->absent)
		json_u64(j, "default", f->absent / scale);
}

static void put_field(struct json *j, const struct field *f, struct place place)
{
	switch (f->kind) {
	case FIELD_TEXT:
	case FIELD_BYTES:
	case FIELD_BASE64:
	case FIELD_CHOICE:
		put_text(j, f, place);
		break;
	case FIELD_U16:
	case FIELD_U32:
	case FIELD_U64:
		put_number(j, f, place);
		break;
	case FIELD_FLAG:
	case FIELD_FLAG3:
		put_type(j, "boolean", place.nullable);
		if (f->kind == FIELD_FLAG)
			json_bool(j, "default", f->absent != 0);
		break;
	case FIELD_TIME:
		put_time(j, place);
		break;
	case FIELD_ID:
		put_type(j, "string", place.nullable);
		put_id(j, f->choices, place.may_be_empty);
		break;
	case FIELD_SCOPES:
		put_type(j, "array", place.nullable);
		json_u64(j, "minItems", 1);
		json_u64(j, "maxItems", f->items);
		put_scopes(j);
		break;
	case FIELD_TEXTS:
	case FIELD_ARGS:
		put_list(j, f, place);
		break;
	case FIELD_PORTS:
		put_ports(j, f, place);
		break;
	case FIELD_LABELS:
	case FIELD_ENV:
		put_pairs(j, f, place);
		break;
	case FIELD_LABEL:
		put_type(j, "string", place.nullable);
		put_pattern(j, "^[^=\\u0000-\\u001f\\u007f]{1,63}=[^\\u0000-\\u001f\\u007f]*$");
		break;
	case FIELD_OBJECT:
		put_type(j, "object", place.nullable);
		put_members(j, f->sub);
		break;
	case FIELD_RULES:
		put_rules(j, f, place);
		break;
	}
	put_doc(j, f->doc);
}

static bool has_required(const struct field_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->v[i].required)
			return true;
	return false;
}

static void put_required(struct json *j, const char *const *names, size_t n)
{
	json_array_begin(j, "required");
	for (size_t i = 0; i < n; i++)
		json_str(j, NULL, str_of(names[i]));
	json_array_end(j);
}

static void put_either(struct json *j, const struct field_set *set)
{
	json_array_begin(j, "anyOf");
	for (size_t i = 0; i < ARRAY_SIZE(set->either); i++) {
		json_object_begin(j, NULL);
		put_required(j, &set->either[i], 1);
		json_object_end(j);
	}
	json_array_end(j);
}

static void put_members(struct json *j, const struct field_set *set)
{
	json_object_begin(j, "properties");
	for (size_t i = 0; i < set->n; i++) {
		const struct field *f = &set->v[i];
		json_object_begin(j, f->name);
		put_field(j, f, (struct place){.nullable = !f->required, .may_be_empty = !f->required});
		json_object_end(j);
	}
	json_object_end(j);
	json_bool(j, "additionalProperties", false);
	if (has_required(set)) {
		json_array_begin(j, "required");
		for (size_t i = 0; i < set->n; i++)
			if (set->v[i].required)
				json_str(j, NULL, str_of(set->v[i].name));
		json_array_end(j);
	}
	if (set->either[0])
		put_either(j, set);
}

void schema_of_body(struct json *j, const char *key, const struct field_set *set)
{
	json_object_begin(j, key);
	json_str(j, "type", STR("object"));
	put_members(j, set);
	json_object_end(j);
}

void schema_of_parameter(struct json *j, const char *key, const struct field *f)
{
	struct field bare = *f;

	bare.doc = NULL; /* the parameter says it */
	bare.lo = MAX(f->lo, (uint64_t)(f->kind == FIELD_TEXT));
	json_object_begin(j, key);
	put_field(j, &bare, (struct place){0});
	json_object_end(j);
}

/* --- what is given --- */

static void put_out_number(struct json *j, uint64_t max, bool nullable)
{
	put_type(j, "integer", nullable);
	json_u64(j, "minimum", 0);
	if (max)
		json_u64(j, "maximum", max);
}

static void put_out_list(struct json *j, const char *item)
{
	json_str(j, "type", STR("array"));
	json_object_begin(j, "items");
	json_str(j, "type", str_of(item));
	json_object_end(j);
}

/* A rule or null. */
static void put_out_rule(struct json *j)
{
	char name[64], ref[96];

	schema_name(out_shape_get(MSG_TYPE_row_rule), name);
	snprintf(ref, sizeof ref, "#/components/schemas/%s", name);
	json_array_begin(j, "anyOf");
	json_object_begin(j, NULL);
	json_str(j, "$ref", str_of(ref));
	json_object_end(j);
	json_object_begin(j, NULL);
	json_str(j, "type", STR("null"));
	json_object_end(j);
	json_array_end(j);
}

static void put_out_rules(struct json *j)
{
	char name[64], ref[96];

	schema_name(out_shape_get(ROW_PRESET_RULE), name);
	snprintf(ref, sizeof ref, "#/components/schemas/%s", name);
	json_str(j, "type", STR("array"));
	json_object_begin(j, "items");
	json_str(j, "$ref", str_of(ref));
	json_object_end(j);
}

static void put_out(struct json *j, const struct out_field *f)
{
	bool nullable = f->known != 0;

	switch (f->kind) {
	case OUT_TEXT:
		put_type(j, "string", nullable);
		break;
	case OUT_U16:
		put_out_number(j, UINT16_MAX, nullable);
		break;
	case OUT_U32:
		put_out_number(j, UINT32_MAX, nullable);
		break;
	case OUT_U64:
		put_out_number(j, 0, nullable);
		break;
	case OUT_I64:
		put_type(j, "integer", nullable);
		break;
	case OUT_STATUS:
		put_out_number(j, 999, true);
		break;
	case OUT_FLAG:
	case OUT_ALLOWED:
		put_type(j, "boolean", nullable);
		break;
	case OUT_ID:
		put_type(j, "string", nullable);
		put_id(j, f->choices, true);
		break;
	case OUT_ROLE_ID:
		put_type(j, "string", nullable);
		put_id(j, "(vm|ws)_", true);
		break;
	case OUT_TIME:
		put_type(j, "string", true);
		json_str(j, "format", STR("date-time"));
		break;
	case OUT_CHOICE:
		put_type(j, "string", nullable);
		put_choices(j, f->choices, f->base > 0, nullable);
		break;
	case OUT_SCOPES:
		json_str(j, "type", STR("array"));
		put_scopes(j);
		break;
	case OUT_TEXTS:
		put_out_list(j, "string");
		break;
	case OUT_NUMBERS:
		put_out_list(j, "integer");
		break;
	case OUT_RULE:
		put_out_rule(j);
		break;
	case OUT_RULES:
		put_out_rules(j);
		break;
	case OUT_JSON:
		json_str(j, "type", STR("object"));
		break;
	case OUT_LABELS:
		json_str(j, "type", STR("object"));
		json_object_begin(j, "additionalProperties");
		json_str(j, "type", STR("string"));
		json_object_end(j);
		break;
	}
	put_doc(j, f->doc);
}

static void put_outs(struct json *j, const struct out_field *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		json_object_begin(j, v[i].name);
		put_out(j, &v[i]);
		json_object_end(j);
	}
}

static void put_names(struct json *j, const struct out_field *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_str(j, NULL, str_of(v[i].name));
}

void schema_of_row(struct json *j, const char *key, const struct out_shape *shape)
{
	json_object_begin(j, key);
	json_str(j, "type", STR("object"));
	json_object_begin(j, "properties");
	put_outs(j, shape->v, shape->n);
	put_outs(j, shape->outer, shape->nouter);
	json_object_end(j);
	json_array_begin(j, "required");
	put_names(j, shape->v, shape->n);
	put_names(j, shape->outer, shape->nouter);
	json_array_end(j);
	json_object_end(j);
}

void schema_name(const struct out_shape *shape, char ret[64])
{
	const char *name = shape->name ? shape->name : msg_info_find(shape->row)->wire->name;
	bool up = true;
	size_t n = 0;

	if (strncmp(name, "row_", 4) == 0)
		name += 4;
	for (; *name && n < 63; name++) {
		if (*name == '_') {
			up = true;
			continue;
		}
		ret[n++] = (char)(up && *name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name);
		up = false;
	}
	ret[n] = 0;
}
