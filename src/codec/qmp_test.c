#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/qmp.h"

static int parse(const char *line, struct qmp_message *m)
{
	return qmp_message_parse(str_of(line), m);
}

static void test_greeting(void **state)
{
	_cleanup_(qmp_message_finish) struct qmp_message m = {0};

	assert_int_equal(
		parse("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 19, \"minor\": 2, \"major\": 7}, \"package\": "
		      "\"Debian\"}, \"capabilities\": [\"oob\"]}}",
		      &m),
		0);
	assert_int_equal(m.kind, QMP_GREETING);
	assert_true(str_eq(qmp_string(json_object_get(m.data, "version"), "package"), STR("Debian")));
}

static void test_return_and_error(void **state)
{
	_cleanup_(qmp_message_finish) struct qmp_message m = {0}, e = {0};

	assert_int_equal(parse("{\"return\": {\"status\": \"running\", \"running\": true}, \"id\": 12}", &m), 0);
	assert_int_equal(m.kind, QMP_RETURN);
	assert_true(m.has_id && m.id == 12);
	assert_true(str_eq(qmp_string(m.data, "status"), STR("running")));
	assert_true(qmp_flag(m.data, "running"));
	assert_false(qmp_flag(m.data, "status"));
	assert_int_equal(parse("{\"id\": 3, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such\"}}", &e),
			 0);
	assert_int_equal(e.kind, QMP_ERROR);
	assert_string_equal(e.name, "CommandNotFound");
	assert_string_equal(e.text, "no such");
}

static void test_event(void **state)
{
	_cleanup_(qmp_message_finish) struct qmp_message m = {0};

	assert_int_equal(
		parse("{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 5}, \"event\": \"SHUTDOWN\", "
		      "\"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}",
		      &m),
		0);
	assert_int_equal(m.kind, QMP_EVENT);
	assert_string_equal(m.name, "SHUTDOWN");
	assert_int_equal(m.seconds, 1700000000);
	assert_true(str_eq(qmp_string(m.data, "reason"), STR("guest-shutdown")));
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"", "{", "[]", "1", "{}", "{\"QMP\": 1}", "{\"event\": 1}", "{\"event\": \"\"}", "{\"return\": 1} x",
		"{\"event\": \"A\", \"data\": []}", "{\"return\": {}, \"return\": {}}",
		"{\"return\": {}, \"id\": \"x\"}", "{\"return\": {}, \"id\": -1}", "{\"error\": {}}",
		"{\"error\": 7}", "{\"return\": \"\xff\"}",
		"{\"event\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
	};
	struct qmp_message m = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(bad[i], &m), -EBADMSG);
}

static void test_depth(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct qmp_message m = {0};

	buf_append_z(&b, "{\"return\": ");
	for (int i = 0; i < QMP_DEPTH_MAX; i++)
		buf_append_byte(&b, '[');
	for (int i = 0; i < QMP_DEPTH_MAX; i++)
		buf_append_byte(&b, ']');
	buf_append_byte(&b, '}');
	assert_int_equal(qmp_message_parse(buf_str(&b), &m), -EBADMSG);
	/* Brackets inside a string are text. */
	assert_int_equal(parse("{\"return\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[[[[[\"}", &m), 0);
	qmp_message_finish(&m);
}

static void test_lines(void **state)
{
	struct str in = STR("{}\r\nabc\n\nrest"), line;

	assert_int_equal(qmp_line_next(&in, &line), 1);
	assert_true(str_eq(line, STR("{}")));
	assert_int_equal(qmp_line_next(&in, &line), 1);
	assert_true(str_eq(line, STR("abc")));
	assert_int_equal(qmp_line_next(&in, &line), 1);
	assert_int_equal(line.len, 0);
	assert_int_equal(qmp_line_next(&in, &line), 0);
	assert_true(str_eq(in, STR("rest")));

	_cleanup_free_ char *much = xcalloc(1, QMP_LINE_MAX + 1);
	struct str flood = str_make(memset(much, 'x', QMP_LINE_MAX + 1), QMP_LINE_MAX + 1);
	assert_int_equal(qmp_line_next(&flood, &line), -EMSGSIZE);
}

static void test_commands(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	json_t *arguments = json_pack("{s:s}", "id", "net0");

	assert_int_equal(qmp_command_encode("cont", NULL, 4, &b), 0);
	assert_int_equal(qmp_command_encode("device_del", arguments, 5, &b), 0);
	json_decref(arguments);
	assert_true(
		str_eq(buf_str(&b), STR("{\"execute\":\"cont\",\"id\":4}\n"
					"{\"execute\":\"device_del\",\"id\":5,\"arguments\":{\"id\":\"net0\"}}\n")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greeting), cmocka_unit_test(test_return_and_error),
		cmocka_unit_test(test_event),    cmocka_unit_test(test_refused),
		cmocka_unit_test(test_depth),    cmocka_unit_test(test_lines),
		cmocka_unit_test(test_commands),
	};
	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
