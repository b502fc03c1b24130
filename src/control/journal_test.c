#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "control/journal.h"

static void assert_detail(struct detail *d, const char *expected)
{
	struct str s = detail_end(d);

	assert_true(str_eq(s, str_of(expected)));
	detail_finish(d);
}

static void test_detail_is_json_whatever_it_holds(void **state)
{
	struct detail d = {0};

	assert_detail(&d, "{}");
	d = (struct detail){0};
	detail_add(&d, "name", STR("a\"b\\c\n\x1b"));
	detail_add_u64(&d, "n", UINT64_MAX);
	detail_add_id(&d, "vm", "vm_", 1);
	assert_detail(
	        &d, "{\"name\":\"a\\\"b\\\\c\\u000a\\u001b\",\"n\":18446744073709551615,\"vm\":\"vm_0000000000001\"}");
	d = (struct detail){0};
	detail_add(&d, "good", STR("\xc3\xa4"));
	detail_add(&d, "bad", STR("\xc3("));
	assert_detail(&d, "{\"good\":\"\xc3\xa4\",\"bad\":\"?(\"}");
}

static void test_detail_stays_below_its_bound(void **state)
{
	char large[9000];
	struct detail d = {0};

	memset(large, 1, sizeof large); /* six bytes each */
	for (int i = 0; i < 50; i++) {
		detail_add(&d, "x", str_make(large, sizeof large));
		detail_add_u64(&d, "n", UINT64_MAX);
	}
	struct str s = detail_end(&d);
	struct record_event e = {.kind = STR("x"), .detail = s};
	_cleanup_(buf_finish) struct buf out = {0};
	assert_true(s.p[0] == '{' && s.p[s.len - 1] == '}');
	assert_int_equal(wire_encode(&record_event_wire, &e, &out), 0);
	detail_finish(&d);
}

/* --- notes --- */

struct journal_fixture {
	struct event_base *base;
	struct journal *j;
	struct ipc_peer *ours, *theirs;
	unsigned batches, records, lost;
};

static void on_batch(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct journal_fixture *f = user;
	struct str records = IPC_RECORD(m, msg_audit_batch)->records, item;
	struct record_event e;

	f->batches++;
	while (wire_list_next(&records, &item)) {
		assert_int_equal(wire_decode(&record_event_wire, str_make(item.p + 2, item.len - 2), &e), 0);
		f->records++;
		f->lost += str_eq(e.action, STR("records_lost"));
	}
	ipc_reply(p, m->txn, MSG_TYPE_msg_audit_ack, &(struct msg_audit_ack){.first_seq = 1}, NULL, 0);
}

static const struct ipc_rule rules[] = {{MSG_TYPE_msg_audit_batch, 0, IPC_REQUEST, on_batch}};

static int setup(void **state)
{
	struct journal_fixture *f = xcalloc(1, sizeof *f);
	int fds[2];

	f->base = event_base_new();
	f->j = journal_create(f->base);
	assert_int_equal(ipc_socketpair(fds), 0);
	f->ours = ipc_peer_create(f->base, fds[0], "ours", NULL, 0, NULL, f);
	f->theirs = ipc_peer_create(f->base, fds[1], "theirs", rules, 1, NULL, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct journal_fixture *f = *state;

	journal_destroy(f->j);
	ipc_peer_destroy(f->ours);
	ipc_peer_destroy(f->theirs);
	event_base_free(f->base);
	free(f);
	return 0;
}

static void turn(struct journal_fixture *f)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void test_notes_of_one_turn_are_one_batch(void **state)
{
	struct journal_fixture *f = *state;
	struct record_event e = {.kind = STR("api"), .detail = STR("{}")};

	journal_attach(f->j, f->ours);
	turn(f);
	for (int i = 0; i < 50; i++)
		journal_note(f->j, &e);
	turn(f);
	assert_int_equal(f->batches, 1);
	assert_int_equal(f->records, 50);
}

/* While there is no iron-audit notes are kept, up to a bound; how many were lost then is on record. */
static void test_notes_wait_and_losses_are_counted(void **state)
{
	struct journal_fixture *f = *state;
	struct record_event e = {.kind = STR("api"), .detail = STR("{}")};

	for (int i = 0; i < 10; i++)
		journal_note(f->j, &e);
	turn(f);
	assert_int_equal(f->records, 0);
	for (int i = 0; i < 100000; i++)
		journal_note(f->j, &e);
	journal_attach(f->j, f->ours);
	turn(f);
	journal_note(f->j, &e);
	turn(f);
	assert_true(f->records > 500);
	assert_int_equal(f->lost, 1);
}

static void test_without_iron_audit_nothing_is_written(void **state)
{
	struct journal_fixture *f = *state;
	struct record_event e = {.kind = STR("key"), .detail = STR("{}")};

	assert_int_equal(journal_write(f->j, &e, true, NULL, NULL), -EPIPE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_detail_is_json_whatever_it_holds),
		cmocka_unit_test(test_detail_stays_below_its_bound),
		cmocka_unit_test_setup_teardown(test_notes_of_one_turn_are_one_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_notes_wait_and_losses_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_iron_audit_nothing_is_written, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
