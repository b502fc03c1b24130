#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/id.h"
#include "base/map.h"
#include "base/text.h"

static void test_str(void **state)
{
	struct str s = STR("a,,b"), head;
	assert_true(str_split(&s, ',', &head) && str_eq(head, STR("a")));
	assert_true(str_split(&s, ',', &head) && head.len == 0);
	assert_true(str_split(&s, ',', &head) && str_eq(head, STR("b")));
	assert_false(str_split(&s, ',', &head));
	assert_true(str_eq(str_trim(STR(" \tx \n"), " \t\n"), STR("x")));

	uint64_t v;
	assert_int_equal(str_parse_u64(STR("65535"), 65535, &v), 0);
	assert_int_equal(v, 65535);
	assert_int_equal(str_parse_u64(STR("65536"), 65535, &v), -ERANGE);
	assert_int_equal(str_parse_u64(STR("99999999999999999999"), UINT64_MAX, &v), -ERANGE);
	assert_int_equal(str_parse_u64(STR("01"), 9, &v), -EINVAL);
	assert_int_equal(str_parse_u64(STR("+1"), 9, &v), -EINVAL);
	assert_int_equal(str_parse_u64(STR(""), 9, &v), -EINVAL);

	assert_true(str_is_printable_utf8(STR("na\xc3\xafve \xf0\x9f\x98\x80")));
	assert_false(str_is_printable_utf8(STR("\xc0\xaf")));
	assert_false(str_is_printable_utf8(STR("\xed\xa0\x80")));
	assert_false(str_is_printable_utf8(STR("\x1b[0m")));
	assert_false(str_is_printable_utf8(STR("\xc2\x9b")));
}

static void test_buf_has_a_ceiling(void **state)
{
	_cleanup_(buf_finish) struct buf b = BUF_MAX(8);
	assert_int_equal(buf_append_z(&b, "12345678"), 0);
	assert_int_equal(buf_append_byte(&b, '9'), -EMSGSIZE);
	assert_true(b.failed);
	assert_true(str_eq(buf_str(&b), STR("12345678")));
	buf_consume(&b, 3);
	assert_true(str_eq(buf_str(&b), STR("45678")));
}

static void test_map(void **state)
{
	_cleanup_(map_finish) struct map m = {0};
	static int values[1000];

	for (uint64_t i = 1; i <= 1000; i++)
		assert_null(map_put(&m, i * 7, &values[i - 1]));
	for (uint64_t i = 1; i <= 1000; i += 2)
		assert_ptr_equal(map_remove(&m, i * 7), &values[i - 1]);
	for (uint64_t i = 1; i <= 1000; i++)
		assert_ptr_equal(map_get(&m, i * 7), i % 2 ? NULL : &values[i - 1]);
	assert_int_equal(m.n, 500);

	_cleanup_(map_finish) struct map s = {0};
	assert_null(map_put_str(&s, STR("one"), &values[1]));
	assert_ptr_equal(map_put_str(&s, STR("one"), &values[2]), &values[1]);
	assert_ptr_equal(map_get_str(&s, STR("one")), &values[2]);
	assert_null(map_get_str(&s, STR("two")));
	assert_ptr_equal(map_remove_str(&s, STR("one")), &values[2]);
}

static void test_time(void **state)
{
	char z[RFC3339_SIZE];
	int64_t ms;

	rfc3339_format(1000000000123, z);
	assert_string_equal(z, "2001-09-09T01:46:40.123Z");
	assert_int_equal(rfc3339_parse(str_of(z), &ms), 0);
	assert_int_equal(ms, 1000000000123);
	assert_int_equal(rfc3339_parse(STR("2001-09-09T03:46:40.1239+02:00"), &ms), 0);
	assert_int_equal(ms, 1000000000123);
	assert_int_equal(rfc3339_parse(STR("2001-02-30T00:00:00Z"), &ms), -EINVAL);
	assert_int_equal(rfc3339_parse(STR("2001-02-03"), &ms), -EINVAL);
	assert_int_equal(rfc3339_parse(STR("2001-02-03T00:00:00"), &ms), -EINVAL);
}

static void test_id(void **state)
{
	char z[ID_TEXT_SIZE];
	uint64_t v;

	for (int i = 0; i < 100; i++) {
		uint64_t id = id_random();
		id_format("vm_", id, z);
		assert_int_equal(id_parse("vm_", str_of(z), &v), 0);
		assert_int_equal(v, id);
		assert_int_equal(id_parse("egr_", str_of(z), &v), -EINVAL);
	}
	assert_int_equal(id_parse("vm_", STR("vm_0000000000000"), &v), -EINVAL);
	assert_int_equal(id_parse("vm_", STR("vm_zzzzzzzzzzzzz"), &v), -EINVAL);
	assert_int_equal(id_parse("vm_", STR("vm_000000000000U"), &v), -EINVAL);
}

static void test_text(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		buf_clear(&b);
		assert_int_equal(base64_encode(str_of(pairs[i][0]), &b), 0);
		assert_true(str_eq(buf_str(&b), str_of(pairs[i][1])));
		buf_clear(&b);
		assert_int_equal(base64_decode(str_of(pairs[i][1]), &b), 0);
		assert_true(str_eq(buf_str(&b), str_of(pairs[i][0])));
	}
	static const char *const bad[] = {"Zg=", "Zh==", "Zg==Zg==", "Zm 8", "=g==", "Z==="};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(base64_decode(str_of(bad[i]), &b), -EINVAL);

	buf_clear(&b);
	assert_int_equal(escape_terminal(STR("a\x1b[31m\xc2\x9bz\xff\xe2\x80\xae\xc3\xa9"), &b), 0);
	assert_true(str_eq(buf_str(&b), STR("a\\x1b[31m\\xc2\\x9bz\\xff\\xe2\\x80\\xae\xc3\xa9")));
}

static void test_error_keeps_the_first_reason(void **state)
{
	struct error e = {0};
	assert_int_equal(error_set(&e, -EINVAL, "no %s", "good"), -EINVAL);
	assert_int_equal(error_set(&e, -EIO, "later"), -EIO);
	error_prefix(&e, "line %d", 3);
	assert_string_equal(e.text, "line 3: no good");
}

static void test_arena_has_a_ceiling(void **state)
{
	_cleanup_(arena_finish) struct arena a = {.max = 100000};
	assert_non_null(arena_alloc(&a, 50000));
	assert_null(arena_alloc(&a, 60000));
	assert_string_equal(arena_strdup(&a, STR("x")), "x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_str),
		cmocka_unit_test(test_buf_has_a_ceiling),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_id),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_error_keeps_the_first_reason),
		cmocka_unit_test(test_arena_has_a_ceiling),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
