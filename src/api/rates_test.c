#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "api/rates.h"

static const uint8_t key[RATES_KEY_SIZE] = {1, 2, 3}, other[RATES_KEY_SIZE] = {4};
#define HOME STR("192.0.2.1")

static void test_a_bucket_holds_ten_seconds(void **state)
{
	struct rates *l = rates_create(0, 2, 0);
	uint64_t now = 1000;

	for (int i = 0; i < 20; i++)
		assert_int_equal(rates_take_address(l, HOME, now), 0);
	assert_int_equal(rates_take_address(l, HOME, now), 1);
	assert_int_equal(rates_take_address(l, STR("192.0.2.2"), now), 0);
	assert_int_equal(rates_take_address(l, HOME, now + 499), 1);
	assert_int_equal(rates_take_address(l, HOME, now + 999), 0);
	/* a day later it holds no more than at first */
	now += 86400000;
	for (int i = 0; i < 20; i++)
		assert_int_equal(rates_take_address(l, HOME, now), 0);
	assert_int_equal(rates_take_address(l, HOME, now), 1);
	rates_destroy(l);
}

static void test_keys(void **state)
{
	struct rates *l = rates_create(1, 0, 0);

	/* one that nobody has seen good has no bucket that could be emptied for its owner */
	for (int i = 0; i < 100; i++)
		assert_int_equal(rates_take_key(l, key, HOME, 1), 0);
	rates_note_good(l, key, 1);
	for (int i = 0; i < 10; i++)
		assert_int_equal(rates_take_key(l, key, HOME, 1), 0);
	assert_int_equal(rates_take_key(l, key, HOME, 1), 1);
	rates_note_good(l, key, 1); /* does not fill it */
	assert_int_equal(rates_take_key(l, key, HOME, 1), 1);
	assert_int_equal(rates_take_key(l, other, HOME, 1), 0);
	rates_destroy(l);
}

static void test_failures(void **state)
{
	struct rates *l = rates_create(0, 0, 1);

	rates_note_good(l, key, 1);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(rates_take_key(l, other, HOME, 1), 0);
		rates_note_failure(l, HOME, 1);
	}
	assert_int_equal(rates_take_key(l, other, HOME, 1), 1);
	assert_int_equal(rates_take_key(l, NULL, HOME, 1), 1);
	/* the good one is not locked out by its neighbour, nor are other addresses */
	assert_int_equal(rates_take_key(l, key, HOME, 1), 0);
	assert_int_equal(rates_take_key(l, other, STR("192.0.2.9"), 1), 0);
	/* revoked: it is as any other */
	rates_note_bad(l, key);
	assert_int_equal(rates_take_key(l, key, HOME, 1), 1);
	assert_int_equal(rates_take_key(l, other, HOME, 1002), 0);
	rates_destroy(l);
}

static void test_many_names_stay_bounded(void **state)
{
	struct rates *l = rates_create(0, 1, 0);
	char name[32];

	for (int i = 0; i < 100000; i++) {
		snprintf(name, sizeof name, "2001:db8:%x::", i);
		assert_int_equal(rates_take_address(l, str_of(name), (uint64_t)i), 0);
	}
	rates_destroy(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_bucket_holds_ten_seconds),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_many_names_stay_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
