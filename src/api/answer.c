#include "api/answer.h"

#include <errno.h>

#include "model/scope.h"

#define ANSWER_MAX ((size_t)32 << 20)
#define VALUE(record, f, type) (*(const type *)(const void *)((const char *)(record) + (f)->offset))

void answer_begin(struct answer *a, enum answer_kind kind)
{
	*a = (struct answer){.out = BUF_MAX(ANSWER_MAX), .kind = kind};
	a->json.out = &a->out;
	json_object_begin(&a->json, NULL);
	if (kind == ANSWER_LIST)
		json_array_begin(&a->json, "data");
	else
		json_object_begin(&a->json, "data");
}

void answer_finish(struct answer *a)
{
	buf_finish(&a->out);
}

static void put_texts(struct json *j, const char *name, struct str list)
{
	struct str item;

	json_array_begin(j, name);
	while (wire_list_next(&list, &item))
		json_str(j, NULL, item);
	json_array_end(j);
}

static void put_numbers(struct json *j, const char *name, struct str list)
{
	uint64_t n;

	json_array_begin(j, name);
	while (wire_list_next_u64(&list, &n))
		json_u64(j, NULL, n);
	json_array_end(j);
}

static void put_labels(struct json *j, const char *name, struct str list)
{
	struct str item, key;

	json_object_begin(j, name);
	while (wire_list_next(&list, &item))
		if (str_split(&item, '=', &key))
			json_member(j, key, item);
	json_object_end(j);
}

static void put_scopes(struct json *j, const char *name, uint32_t set)
{
	json_array_begin(j, name);
	for (unsigned i = 0; i < SCOPE_COUNT; i++)
		if (set & 1U << i)
			json_str(j, NULL, str_of(scope_text(i)));
	json_array_end(j);
}

static void put_choice(struct json *j, const struct out_field *f, uint8_t value)
{
	struct str text = value < f->base ? STR_NONE : choice_get(f->choices, (unsigned)(value - f->base));

	json_str(j, f->name, text);
}

static void put_status(struct json *j, const char *name, uint16_t status)
{
	if (status)
		json_u64(j, name, status);
	else
		json_null(j, name);
}

static void put_role_id(struct json *j, const char *name, const struct msg_role_row *row)
{
	json_id(j, name, str_eq(row->name, STR("iron-vm")) ? "vm_" : "ws_", row->id);
}

static void put_fields(struct json *j, const struct out_field *v, size_t n, const void *record);

static void put_rule(struct json *j, const char *name, struct str encoded)
{
	const struct out_shape *shape = out_shape_get(MSG_TYPE_row_rule);
	struct rec_rule rule;

	if (encoded.len == 0 || wire_decode(&rec_rule_wire, encoded, &rule)) {
		json_null(j, name);
		return;
	}
	json_object_begin(j, name);
	put_fields(j, shape->v, shape->n, &rule);
	json_object_end(j);
}

static void put_rules(struct json *j, const char *name, struct str list)
{
	const struct out_shape *shape = out_shape_get(ROW_PRESET_RULE);
	struct rec_rule rule;
	struct str item;

	json_array_begin(j, name);
	while (wire_list_next(&list, &item)) {
		if (wire_decode(&rec_rule_wire, item, &rule))
			continue;
		json_object_begin(j, NULL);
		put_fields(j, shape->v, shape->n, &rule);
		json_object_end(j);
	}
	json_array_end(j);
}

static void put_field(struct json *j, const struct out_field *f, const void *record)
{
	switch (f->kind) {
	case OUT_TEXT:
		json_str(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_U16:
		json_u64(j, f->name, VALUE(record, f, uint16_t));
		break;
	case OUT_U32:
		json_u64(j, f->name, VALUE(record, f, uint32_t));
		break;
	case OUT_U64:
		json_u64(j, f->name, VALUE(record, f, uint64_t));
		break;
	case OUT_I64:
		json_i64(j, f->name, VALUE(record, f, int64_t));
		break;
	case OUT_FLAG:
		json_bool(j, f->name, VALUE(record, f, bool));
		break;
	case OUT_ID:
		json_id(j, f->name, f->choices, VALUE(record, f, uint64_t));
		break;
	case OUT_TIME:
		json_time(j, f->name, VALUE(record, f, int64_t));
		break;
	case OUT_CHOICE:
		put_choice(j, f, VALUE(record, f, uint8_t));
		break;
	case OUT_SCOPES:
		put_scopes(j, f->name, VALUE(record, f, uint32_t));
		break;
	case OUT_TEXTS:
		put_texts(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_NUMBERS:
		put_numbers(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_LABELS:
		put_labels(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_ALLOWED:
		json_bool(j, f->name, VALUE(record, f, uint8_t) != VERDICT_DENIED);
		break;
	case OUT_RULE:
		put_rule(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_RULES:
		put_rules(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_JSON:
		json_raw(j, f->name, VALUE(record, f, struct str));
		break;
	case OUT_ROLE_ID:
		put_role_id(j, f->name, record);
		break;
	case OUT_STATUS:
		put_status(j, f->name, VALUE(record, f, uint16_t));
		break;
	}
}

static void put_fields(struct json *j, const struct out_field *v, size_t n, const void *record)
{
	for (size_t i = 0; i < n; i++) {
		const struct out_field *f = &v[i];
		bool known = !f->known || *((const bool *)record + (f->known - 1));
		if (known)
			put_field(j, f, record);
		else
			json_null(j, f->name);
	}
}

void answer_fields(struct json *j, uint16_t row, const void *record)
{
	const struct out_shape *shape = out_shape_get(row);

	put_fields(j, shape->v, shape->n, record);
}

const char *answer_parts(enum answer_kind kind, uint16_t *ret_row)
{
	*ret_row = kind == ANSWER_ROLES ? MSG_TYPE_row_role : kind == ANSWER_EXPLAIN ? MSG_TYPE_row_rule : 0;
	return kind == ANSWER_ROLES ? "roles" : kind == ANSWER_EXPLAIN ? "matched" : NULL;
}

static bool is_part(const struct answer *a, uint16_t type)
{
	uint16_t part;

	return answer_parts(a->kind, &part) && part == type;
}

static bool is_wrapped(const struct answer *a, uint16_t type)
{
	return a->kind == ANSWER_LIST || is_part(a, type);
}

static void begin_parts(struct answer *a)
{
	uint16_t part;
	const char *name = answer_parts(a->kind, &part);

	if (!name || a->in_parts)
		return;
	json_array_begin(&a->json, name);
	a->in_parts = true;
}

int answer_row(struct answer *a, uint16_t type, const void *record)
{
	const struct out_shape *shape = out_shape_get(type);
	_Alignas(16) char inner[MSG_RECORD_MAX];
	const void *members = record;

	if (!shape || (a->kind == ANSWER_OBJECT && a->rows) || (a->in_parts && !is_part(a, type)))
		return -EPROTO;
	if (shape->inner) {
		/* the one member of such a row, or its first, is the encoded record */
		if (wire_decode(shape->inner, *(const struct str *)record, inner))
			return -EPROTO;
		members = inner;
	}
	if (is_part(a, type))
		begin_parts(a);
	a->rows++;
	if (is_wrapped(a, type))
		json_object_begin(&a->json, NULL);
	put_fields(&a->json, shape->v, shape->n, members);
	put_fields(&a->json, shape->outer, shape->nouter, record);
	if (is_wrapped(a, type))
		json_object_end(&a->json);
	return a->out.failed ? -EMSGSIZE : 0;
}

int answer_end(struct answer *a, const struct msg_done *done)
{
	if (a->kind == ANSWER_OBJECT && a->rows != 1)
		return -EPROTO;
	if (a->kind == ANSWER_EXPLAIN && a->rows == 0)
		return -EPROTO;
	begin_parts(a);
	if (a->in_parts)
		json_array_end(&a->json);
	if (a->kind == ANSWER_LIST) {
		json_array_end(&a->json);
		json_bool(&a->json, "has_more", done->has_more);
		if (done->cursor.len)
			json_str(&a->json, "cursor", done->cursor);
		else
			json_null(&a->json, "cursor");
	} else {
		json_object_end(&a->json);
	}
	json_object_end(&a->json);
	return a->out.failed ? -EMSGSIZE : 0;
}

void answer_error(struct buf *out, const char *code, struct str message)
{
	struct json j = {.out = out};

	json_object_begin(&j, NULL);
	json_object_begin(&j, "error");
	json_str(&j, "code", str_of(code));
	json_str(&j, "message", message);
	json_object_end(&j);
	json_object_end(&j);
}
