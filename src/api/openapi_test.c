/* The description, as far as the tables alone decide: every operation is there, with an answer that says what it holds.
 * tests/test_openapi.py asks a running server whether the description is true. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>

#include "api/openapi.h"
#include "api/route.h"

static json_t *description;

static int load(void **state)
{
	_cleanup_(buf_finish) struct buf out = {0};
	json_error_t e;

	assert_int_equal(openapi_write(&out), 0);
	description = json_loadb((const char *)out.data, out.len, JSON_REJECT_DUPLICATES, &e);
	if (!description)
		fail_msg("%s at %d", e.text, e.position);
	return 0;
}

static int unload(void **state)
{
	json_decref(description);
	return 0;
}

static json_t *operation_of(const struct op_info *info)
{
	char path[256] = "", method[16] = "";
	struct str rest = str_of(info->path), segment;

	str_split(&rest, '/', &segment);
	while (str_split(&rest, '/', &segment)) {
		bool id = segment.p[0] == ':';
		snprintf(path + strlen(path), sizeof path - strlen(path), id ? "/{%.*s}" : "/%.*s", (int)segment.len - id,
			 segment.p + id);
		assert_int_equal(id, route_parameter_find(segment) != NULL);
	}
	for (size_t i = 0; info->method[i]; i++)
		method[i] = (char)tolower((unsigned char)info->method[i]);
	return json_object_get(json_object_get(json_object_get(description, "paths"), path), method);
}

static void check_ref(json_t *j)
{
	const char *ref = json_string_value(j);

	assert_int_equal(strncmp(ref, "#/components/", 13), 0);
	struct str rest = str_of(ref + 13), kind;
	char name[32];
	str_split(&rest, '/', &kind);
	assert_int_equal(str_copy(kind, name, sizeof name), 0);
	assert_non_null(json_object_get(json_object_get(json_object_get(description, "components"), name), rest.p));
}

/* Whatever is referred to is there. */
static void check_refs(json_t *j)
{
	const char *key;
	json_t *value;
	size_t i;

	json_object_foreach(j, key, value) {
		if (strcmp(key, "$ref") == 0)
			check_ref(value);
		else
			check_refs(value);
	}
	json_array_foreach(j, i, value)
		check_refs(value);
}

static void test_every_operation_is_described(void **state)
{
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_info *info = op_info_get(op);
		const struct op_shape *shape = op_shape_get((enum api_op)op);
		char status[8];

		json_t *operation = operation_of(info);
		if (!operation)
			fail_msg("%s is not there", info->name);
		snprintf(status, sizeof status, "%u", (unsigned)shape->status);
		json_t *answer = json_object_get(json_object_get(operation, "responses"), status);
		if (!answer || (shape->answer != ANSWER_NONE && json_object_size(json_object_get(answer, "content")) == 0))
			fail_msg("%s has no answer: give it rows or op_shape.answers", info->name);
		/* a key is asked for, or it is said that none is */
		assert_int_equal(json_array_size(json_object_get(operation, "security")), !shape->open);
		assert_int_equal(json_is_object(json_object_get(json_object_get(operation, "responses"), "401")), !shape->open);
	}
	check_refs(description);
}

/* Rows, or another answer: one of them says what a success holds. */
static void test_answers_are_of_one_kind(void **state)
{
	for (unsigned op = 0; op < OP_COUNT; op++) {
		const struct op_shape *s = op_shape_get((enum api_op)op);
		bool of_rows = s->answer == ANSWER_OBJECT || s->answer == ANSWER_LIST;
		if (of_rows != (s->row && !s->answers) && s->answer != ANSWER_ROLES && s->answer != ANSWER_EXPLAIN)
			fail_msg("%s: %s", op_info_get(op)->name, of_rows ? "no row" : "op_shape.answers is missing");
		for (const struct op_answer *a = s->answers; a && a->media; a++)
			assert_true(a->object || a->doc);
	}
}

static json_t *member(enum api_op op, const char *name)
{
	json_t *body = json_object_get(operation_of(op_info_get(op)), "requestBody");
	json_t *json = json_object_get(json_object_get(body, "content"), "application/json");

	return json_object_get(json_object_get(json_object_get(json, "schema"), "properties"), name);
}

static void test_bounds_are_those_of_the_tables(void **state)
{
	json_t *vcpus = member(OP_VM_CREATE, "vcpus"), *name = member(OP_VM_CREATE, "name");

	assert_int_equal(json_integer_value(json_object_get(vcpus, "minimum")), 1);
	assert_int_equal(json_integer_value(json_object_get(vcpus, "maximum")), 32);
	assert_string_equal(json_string_value(json_object_get(name, "type")), "string");
	assert_non_null(json_object_get(name, "pattern"));
	/* optional: null is an absent one */
	assert_int_equal(json_array_size(json_object_get(vcpus, "type")), 2);
}

static void test_errors_are_those_of_the_tables(void **state)
{
	assert_true(openapi_errors(OP_VM_GET) & ERR(VM_NOT_FOUND));
	assert_false(openapi_errors(OP_VM_LIST) & ERR(VM_NOT_FOUND));
	assert_true(openapi_errors(OP_VM_CREATE) & ERR(VM_NAME_TAKEN));
	assert_false(openapi_errors(OP_HEALTHZ) & ERR(UNAUTHORIZED));
	assert_true(CODE_COUNT <= 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_operation_is_described),
		cmocka_unit_test(test_answers_are_of_one_kind),
		cmocka_unit_test(test_bounds_are_those_of_the_tables),
		cmocka_unit_test(test_errors_are_those_of_the_tables),
	};

	return cmocka_run_group_tests(tests, load, unload);
}
