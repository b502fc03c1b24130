/* Bodies: jansson parses (duplicates refused, depth and size bounded by the caller's limit and jansson's own 2048
 * levels), the tables say what may stand there. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "api/field_value.h"
#include "model/name.h"
#include "model/scope.h"

#define NAME_SIZE 128
#define DEPTH_MAX 8

struct parser {
	struct arena *arena;
	void *record;
	struct error *reterr;
};

static int parse_members(struct parser *p, const struct field_set *set, const char *prefix, json_t *object);

static void name_item(const char *list, size_t i, char ret[NAME_SIZE])
{
	snprintf(ret, NAME_SIZE, "%.90s[%zu]", list, i);
}

static void put_json(json_t **j)
{
	json_decref(*j);
}

static struct str text_of(json_t *j)
{
	return str_make(json_string_value(j), json_string_length(j));
}

static int too_large(struct parser *p, const char *name)
{
	return error_set(p->reterr, -EINVAL, "%s is too large", name);
}

/* Moves a list that was built into the arena and the record. */
static int store_list(struct parser *p, const struct field *f, const char *name, struct buf *list)
{
	if (list->failed)
		return too_large(p, name);
	struct str s = arena_str(p->arena, buf_str(list));
	if (!s.p && list->len)
		return error_set(p->reterr, -EMSGSIZE, "%s: the request is too large", name);
	MEMBER(p->record, f->offset, struct str) = s;
	return 0;
}

static struct buf list_buf(const struct field *f)
{
	return BUF_MAX(f->total ? f->total : (size_t)65536);
}

static int check_array(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	if (!json_is_array(j))
		return error_set(p->reterr, -EINVAL, "%s must be a list", name);
	if (json_array_size(j) > f->items)
		return error_set(p->reterr, -EINVAL, "%s must have at most %u items, not %zu", name, f->items,
				 json_array_size(j));
	return 0;
}

/* An item is checked as the text or bytes that it is, into a place of its own. */
static int parse_item(struct parser *p, const struct field *f, const char *name, json_t *item, struct str *ret)
{
	struct field one = *f;

	if (!json_is_string(item))
		return error_set(p->reterr, -EINVAL, "%s must be a text", name);
	one.kind = f->kind == FIELD_ARGS ? FIELD_BYTES : FIELD_TEXT;
	one.offset = 0;
	return value_set_text(&one, name, text_of(item), p->arena, ret, p->reterr);
}

static int parse_texts(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	_cleanup_(buf_finish) struct buf list = list_buf(f);
	json_t *item;
	size_t i;

	int r = check_array(p, f, name, j);
	if (r)
		return r;
	json_array_foreach(j, i, item) {
		char item_name[NAME_SIZE];
		struct str s = STR_NONE;
		name_item(name, i, item_name);
		r = parse_item(p, f, item_name, item, &s);
		if (r)
			return r;
		if (wire_list_add(&list, s))
			return too_large(p, name);
	}
	return store_list(p, f, name, &list);
}

static int parse_ports(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	_cleanup_(buf_finish) struct buf list = list_buf(f);
	json_t *item;
	size_t i;

	int r = check_array(p, f, name, j);
	if (r)
		return r;
	json_array_foreach(j, i, item) {
		json_int_t n = json_integer_value(item);
		if (!json_is_integer(item) || n < 1 || n > 65535)
			return error_set(p->reterr, -EINVAL, "%s[%zu] must be a port, 1 to 65535", name, i);
		if (wire_list_add_u64(&list, (uint64_t)n))
			return too_large(p, name);
	}
	return store_list(p, f, name, &list);
}

static int parse_scopes(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	uint32_t set = 0;
	json_t *item;
	size_t i;

	int r = check_array(p, f, name, j);
	if (r)
		return r;
	json_array_foreach(j, i, item) {
		uint32_t one = json_is_string(item) ? scope_parse(text_of(item)) : 0;
		if (!one)
			return error_set(p->reterr, -EINVAL,
					 "%s[%zu] must be one of vm:read vm:run vm:admin egress:read egress:write "
					 "secrets:write audit:read snapshots keys admin", name, i);
		set |= one;
	}
	if (!set)
		return error_set(p->reterr, -EINVAL, "%s must name at least one scope", name);
	MEMBER(p->record, f->offset, uint32_t) = set;
	return 0;
}

/* One member of labels or env as "k=v". */
static int parse_pair(struct parser *p, const struct field *f, const char *name, const char *key, json_t *value,
		      struct buf *list)
{
	_cleanup_(buf_finish) struct buf pair = BUF_MAX(65536);
	struct str k, v;

	if (!json_is_string(value))
		return error_set(p->reterr, -EINVAL, "%s: every value must be a text", name);
	if (strchr(key, '=') || key[0] == 0)
		return error_set(p->reterr, -EINVAL, "%s: a key must not be empty or hold \"=\"", name);
	buf_append_z(&pair, key);
	buf_append_byte(&pair, '=');
	buf_append_str(&pair, text_of(value));
	if (pair.failed)
		return too_large(p, name);
	if (f->kind == FIELD_LABELS) {
		int r = label_parse(buf_str(&pair), &k, &v, p->reterr);
		if (r)
			return r;
	} else {
		if (memchr(pair.data, 0, pair.len))
			return error_set(p->reterr, -EINVAL, "%s must not hold a NUL", name);
		if (!str_is_printable_utf8(str_of(key)))
			return error_set(p->reterr, -EINVAL, "%s: a key must not hold control characters", name);
	}
	return wire_list_add(list, buf_str(&pair)) ? too_large(p, name) : 0;
}

static int parse_pairs(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	_cleanup_(buf_finish) struct buf list = list_buf(f);
	const char *key;
	json_t *value;

	if (!json_is_object(j))
		return error_set(p->reterr, -EINVAL, "%s must be an object of texts", name);
	if (json_object_size(j) > f->items)
		return error_set(p->reterr, -EINVAL, "%s must have at most %u entries, not %zu", name, f->items,
				 json_object_size(j));
	json_object_foreach(j, key, value) {
		int r = parse_pair(p, f, name, key, value, &list);
		if (r)
			return r;
	}
	return store_list(p, f, name, &list);
}

static int parse_rule(struct parser *p, const struct field *f, const char *name, json_t *item, struct buf *list,
		      bool *ret_tls_given)
{
	struct rule_asked asked = {0};
	struct parser sub = {.arena = p->arena, .record = &asked, .reterr = p->reterr};

	if (!json_is_object(item))
		return error_set(p->reterr, -EINVAL, "%s must be an object", name);
	int r = parse_members(&sub, f->sub, name, item);
	if (r)
		return r;
	*ret_tls_given = asked.tls_given;
	r = wire_list_add_record(list, &rec_rule_wire, &asked.rule);
	return r ? too_large(p, name) : 0;
}

static int parse_rules(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	_cleanup_(buf_finish) struct buf list = list_buf(f);
	uint64_t tls_given = 0;
	json_t *item;
	size_t i;

	int r = check_array(p, f, name, j);
	if (r)
		return r;
	json_array_foreach(j, i, item) {
		char item_name[NAME_SIZE];
		bool given = false;
		name_item(name, i, item_name);
		r = parse_rule(p, f, item_name, item, &list, &given);
		if (r)
			return r;
		tls_given |= (uint64_t)given << i;
	}
	MEMBER(p->record, f->given - 1, uint64_t) = tls_given;
	return store_list(p, f, name, &list);
}

/* The JSON tree goes before the record is used: what the record keeps is a copy. */
static int parse_text(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	struct str copy = arena_str(p->arena, text_of(j));

	if (!copy.p)
		return error_set(p->reterr, -EMSGSIZE, "%s: the request is too large", name);
	return value_set_text(f, name, copy, p->arena, p->record, p->reterr);
}

static int parse_scalar(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	if (f->or_number && json_is_integer(j)) {
		char digits[24];
		snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(j));
		return value_set_text(f, name, arena_str(p->arena, str_of(digits)), p->arena, p->record, p->reterr);
	}
	if (f->kind == FIELD_U16 || f->kind == FIELD_U32 || f->kind == FIELD_U64) {
		if (!json_is_integer(j))
			return error_set(p->reterr, -EINVAL, "%s must be a whole number from %llu to %llu", name,
					 (unsigned long long)f->lo, (unsigned long long)f->hi);
		return value_set_number(f, name, json_integer_value(j), p->record, p->reterr);
	}
	if (f->kind == FIELD_FLAG || f->kind == FIELD_FLAG3) {
		if (!json_is_boolean(j))
			return error_set(p->reterr, -EINVAL, "%s must be true or false", name);
		value_set_flag(f, json_is_true(j), p->record);
		return 0;
	}
	if (!json_is_string(j))
		return error_set(p->reterr, -EINVAL, "%s must be a text", name);
	return parse_text(p, f, name, j);
}

static int parse_value(struct parser *p, const struct field *f, const char *name, json_t *j)
{
	switch (f->kind) {
	case FIELD_TEXTS:
	case FIELD_ARGS:
		return parse_texts(p, f, name, j);
	case FIELD_PORTS:
		return parse_ports(p, f, name, j);
	case FIELD_SCOPES:
		return parse_scopes(p, f, name, j);
	case FIELD_LABELS:
	case FIELD_ENV:
		return parse_pairs(p, f, name, j);
	case FIELD_RULES:
		return parse_rules(p, f, name, j);
	case FIELD_OBJECT:
		if (!json_is_object(j))
			return error_set(p->reterr, -EINVAL, "%s must be an object", name);
		return parse_members(p, f->sub, name, j);
	case FIELD_TEXT:
	case FIELD_BYTES:
	case FIELD_BASE64:
	case FIELD_U16:
	case FIELD_U32:
	case FIELD_U64:
	case FIELD_FLAG:
	case FIELD_FLAG3:
	case FIELD_CHOICE:
	case FIELD_TIME:
	case FIELD_ID:
	case FIELD_LABEL:
		return parse_scalar(p, f, name, j);
	}
	return -EINVAL;
}

static bool is_text_kind(enum field_kind kind)
{
	return kind == FIELD_TEXT || kind == FIELD_BYTES || kind == FIELD_BASE64 || kind == FIELD_CHOICE ||
	       kind == FIELD_TIME || kind == FIELD_ID;
}

static bool is_absent(const struct field *f, json_t *j)
{
	return !j || json_is_null(j) || (is_text_kind(f->kind) && json_is_string(j) && json_string_length(j) == 0);
}

static const struct field *find(const struct field_set *set, const char *name)
{
	for (size_t i = 0; i < set->n; i++)
		if (strcmp(set->v[i].name, name) == 0)
			return &set->v[i];
	return NULL;
}

static void full_name(const char *prefix, const char *name, char ret[NAME_SIZE])
{
	snprintf(ret, NAME_SIZE, "%s%s%s", prefix, prefix[0] ? "." : "", name);
}

static int refuse_unknown(struct parser *p, const struct field_set *set, const char *prefix, json_t *object)
{
	char name[NAME_SIZE];
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		if (find(set, key))
			continue;
		if (!str_is_printable_utf8(str_of(key)))
			return error_set(p->reterr, -EINVAL, "unknown field with control characters in its name");
		full_name(prefix, key, name);
		if (set->n == 0)
			return error_set(p->reterr, -EINVAL, "%s: unknown field; this call takes none", name);
		return error_set(p->reterr, -EINVAL, "%s: unknown field", name);
	}
	return 0;
}

static int parse_members(struct parser *p, const struct field_set *set, const char *prefix, json_t *object)
{
	int r = refuse_unknown(p, set, prefix, object);

	for (size_t i = 0; r == 0 && i < set->n; i++) {
		const struct field *f = &set->v[i];
		json_t *j = json_object_get(object, f->name);
		char name[NAME_SIZE];
		full_name(prefix, f->name, name);
		if (!is_absent(f, j)) {
			value_mark_given(f, p->record);
			r = parse_value(p, f, name, j);
		} else if (f->required) {
			r = error_set(p->reterr, -EINVAL, "%s is required", name);
		} else if (f->kind == FIELD_OBJECT) {
			_cleanup_(put_json) json_t *empty = json_object();
			r = parse_members(p, f->sub, name, empty);
		} else {
			value_set_absent(f, p->record);
		}
	}
	if (r == 0 && set->check && set->check(p->record, p->reterr)) {
		r = -EINVAL;
		if (prefix[0])
			error_prefix(p->reterr, "%s", prefix);
	}
	return r;
}

/* jansson's own limit is 2048 levels of its stack; ours is what any table could need. */
static bool is_deep(struct str body)
{
	bool quoted = false;
	int depth = 0;

	for (size_t i = 0; i < body.len; i++) {
		char c = body.p[i];
		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '{' || c == '[') && ++depth > DEPTH_MAX)
			return true;
		else if (!quoted && (c == '}' || c == ']'))
			depth--;
	}
	return false;
}

static bool is_blank(struct str body)
{
	return str_trim(body, " \t\r\n").len == 0;
}

int fields_parse_body(const struct field_set *set, struct str body, struct arena *a, void *record, struct error *reterr)
{
	struct parser p = {.arena = a, .record = record, .reterr = reterr};
	_cleanup_(put_json) json_t *root = NULL;
	json_error_t e;

	if (is_deep(body))
		return error_set(reterr, -EBADMSG, "the body is JSON of more than %d levels", DEPTH_MAX);
	if (is_blank(body))
		root = json_object();
	else
		root = json_loadb(body.p, body.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
	if (!root)
		return error_set(reterr, -EBADMSG, "the body is not JSON: line %d, column %d: %.80s", e.line, e.column, e.text);
	if (!json_is_object(root))
		return error_set(reterr, -EBADMSG, "the body must be a JSON object");
	return parse_members(&p, set, "", root);
}
