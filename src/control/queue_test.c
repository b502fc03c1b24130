/* An iron-api that asks for more than it takes is waited for; one that is given up is started anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/fake.h"

#define RULES 16
#define PATHS 24
#define CALLS 64

static int setup(void **state)
{
	*state = fake_create();
	return 0;
}

static int teardown(void **state)
{
	fake_destroy(*state);
	return 0;
}

/* Some 23 KiB. */
static void large_rule(struct fake *f, unsigned number)
{
	_cleanup_(buf_finish) struct buf b = {0};
	_cleanup_(buf_finish) struct buf paths = {0};
	char path[1000], name[16];
	struct fake_answer a;

	memset(path, 'x', sizeof path);
	path[0] = '/';
	for (int i = 0; i < PATHS; i++) {
		path[1] = (char)('a' + i);
		assert_int_equal(wire_list_add(&paths, str_make(path, sizeof path)), 0);
	}
	snprintf(name, sizeof name, "r%u", number);
	struct rec_rule rule = {.name = str_of(name), .host = STR("example.com"), .tls = 1, .paths = buf_str(&paths)};
	assert_int_equal(wire_encode(&rec_rule_wire, &rule, &b), 0);
	struct msg_rule_create m = {.key_hash = fake_hash(f), .op = OP_RULE_CREATE, .rule = buf_str(&b)};
	assert_int_equal(fake_call(f, MSG_TYPE_msg_rule_create, &m, &a), 201);
	fake_answer_finish(&a);
}

/* 24 MB of answers, asked for at once. */
static void test_answers_wait_for_their_reader(void **state)
{
	struct fake *f = *state;
	struct msg_rule_list m = {.key_hash = fake_hash(f), .op = OP_RULE_LIST, .limit = 100};
	static struct fake_answer answers[CALLS];

	for (unsigned i = 0; i < RULES; i++)
		large_rule(f, i);
	for (int i = 0; i < CALLS; i++)
		fake_ask(f, MSG_TYPE_msg_rule_list, &m, &answers[i]);
	for (int i = 0; i < CALLS; i++) {
		fake_until(f, &answers[i].done);
		assert_int_equal(answers[i].end.status, 200);
		assert_int_equal(answers[i].rows.n, RULES);
		fake_answer_finish(&answers[i]);
	}
	assert_int_equal(f->api_lost, 0);
}

static void test_one_that_is_given_up_is_started_anew(void **state)
{
	struct fake *f = *state;

	/* a message that is none of iron-api's */
	assert_int_equal(ipc_notify(f->api, MSG_TYPE_msg_images_end, &(struct msg_images_end){}, NULL, 0), 0);
	for (int i = 0; i < 500 && !f->api_lost; i++)
		fake_turn(f);
	assert_int_equal(f->api_lost, 1);
	assert_false(f->ended);
}

/* Its own end needs no word to irond, which sees it. */
static void test_one_that_died_is_not(void **state)
{
	struct fake *f = *state;

	ipc_peer_destroy(take_ptr(f->api));
	fake_wait_ms(f, 50);
	assert_int_equal(f->api_lost, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_answers_wait_for_their_reader),
		T(test_one_that_is_given_up_is_started_anew),
		T(test_one_that_died_is_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
