#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/msg.h"

static void test_round_trip(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0}, ports = {0};
	_Alignas(16) char record[MSG_RECORD_MAX];
	const struct msg_info *info;
	uint32_t txn;
	uint64_t port;

	wire_list_add_u64(&ports, 443);
	wire_list_add_u64(&ports, 8443);
	struct rec_rule rule = {.id = 7, .host = STR("api.example.com"), .ports = buf_str(&ports), .action = 1};
	_cleanup_(buf_finish) struct buf encoded = {0};
	assert_int_equal(wire_encode(&rec_rule_wire, &rule, &encoded), 0);
	struct msg_policy_rule m = {.vm = 1, .version = 2, .rule = buf_str(&encoded)};
	assert_int_equal(msg_encode(MSG_TYPE_msg_policy_rule, 9, &m, &b), 0);

	assert_int_equal(msg_decode(buf_str(&b), &info, &txn, record), 0);
	assert_int_equal(info->type, MSG_TYPE_msg_policy_rule);
	assert_int_equal(txn, 9);
	struct rec_rule back;
	assert_int_equal(wire_decode(&rec_rule_wire, ((struct msg_policy_rule *)record)->rule, &back), 0);
	assert_true(str_eq(back.host, rule.host));
	assert_int_equal(back.action, 1);
	assert_int_equal(wire_list_count(back.ports), 2);
	assert_true(wire_list_next_u64(&back.ports, &port) && port == 443);
	assert_true(wire_list_next_u64(&back.ports, &port) && port == 8443);
	assert_false(wire_list_next_u64(&back.ports, &port));
}

/* Every prefix and every trailing byte is refused. */
static void test_short_and_long_are_refused(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	_Alignas(16) char record[MSG_RECORD_MAX];
	const struct msg_info *info;
	uint32_t txn;
	struct msg_contract c = {.vm = 1, .hostname = STR("demo"), .machine_id = STR("0123")};

	assert_int_equal(msg_encode(MSG_TYPE_msg_contract, 1, &c, &b), 0);
	for (size_t n = 0; n < b.len; n++)
		assert_int_equal(msg_decode(str_make(b.data, n), &info, &txn, record), -EBADMSG);
	buf_append_byte(&b, 0);
	assert_int_equal(msg_decode(buf_str(&b), &info, &txn, record), -EBADMSG);
}

static void test_bounds(void **state)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct msg_vm_prepare p = {.vm = 1, .vcpus = 33};
	assert_int_equal(msg_encode(MSG_TYPE_msg_vm_prepare, 0, &p, &b), -EINVAL);
	assert_int_equal(b.len, 0);

	/* the largest of each list fits a message */
	static char big[98304];
	for (size_t i = 0; i < sizeof big; i += 4)
		memset(big + i, 0, 4);
	struct msg_vm_create v = {.name = STR("x"), .rules = str_make(big, sizeof big)};
	assert_int_equal(msg_encode(MSG_TYPE_msg_vm_create, 0, &v, &b), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_short_and_long_are_refused),
		cmocka_unit_test(test_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
