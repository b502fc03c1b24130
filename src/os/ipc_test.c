#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/ipc.h"

struct fixture {
	struct event_base *base;
	struct ipc_peer *a, *b;
	int pings, answers, lost, closed;
	char reason[128];
};

static void on_ping(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	((struct fixture *)user)->pings++;
	ipc_reply_result(p, m->txn, 0, "fine", 42);
}

static void on_closed(struct ipc_peer *p, const char *reason, void *user)
{
	struct fixture *f = user;
	f->closed++;
	snprintf(f->reason, sizeof f->reason, "%s", reason);
}

static bool on_answer(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fixture *f = user;
	if (!m) {
		f->lost++;
		return true;
	}
	assert_int_equal(m->info->type, MSG_TYPE_msg_result);
	assert_int_equal(IPC_RECORD(m, msg_result)->value, 42);
	f->answers++;
	return true;
}

static const struct ipc_rule rules[] = {{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping}};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof *f);
	int fds[2];

	f->base = event_base_new();
	assert_int_equal(ipc_socketpair(fds), 0);
	f->a = ipc_peer_create(f->base, fds[0], "a", NULL, 0, on_closed, f);
	f->b = ipc_peer_create(f->base, fds[1], "b", rules, 1, on_closed, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	ipc_peer_destroy(f->a);
	ipc_peer_destroy(f->b);
	event_base_free(f->base);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void test_call(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(ipc_call(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0, 1000, on_answer, f), 0);
	turn(f);
	assert_int_equal(f->pings, 100);
	assert_int_equal(f->answers, 100);
}

static void test_pending_calls_learn_of_the_end(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(ipc_call(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0, 0, on_answer, f), 0);
	ipc_peer_destroy(take_ptr(f->b));
	turn(f);
	assert_int_equal(f->lost, 1);
	assert_int_equal(f->closed, 1);
	assert_int_equal(ipc_notify(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0), -EPIPE);
}

static void test_what_no_rule_allows_closes(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(ipc_notify(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0), 0);
	turn(f);
	assert_false(ipc_peer_is_open(f->b));
	assert_non_null(strstr(f->reason, "closed by peer")); /* a's view comes last */
	assert_int_equal(f->pings, 0);
	assert_int_equal(f->closed, 2);
}

static int count_fds(void)
{
	int n = 0;
	for (int i = 0; i < 256; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

static void test_surplus_descriptors_are_closed(void **state)
{
	struct fixture *f = *state;
	int before = count_fds(), fds[2] = {0, 1};

	assert_int_equal(ipc_call(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, fds, 2, 0, on_answer, f), 0);
	turn(f);
	assert_false(ipc_peer_is_open(f->b));
	assert_int_equal(count_fds(), before - 2); /* both ends of the channel */
}

static void test_a_listener_takes_root_one_at_a_time(void **state)
{
	char dir[] = "/tmp/iron-test-ipc-XXXXXX", path[64];
	int listener = -1, one = -1, two = -1, accepted = -1;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/sock", dir);
	assert_int_equal(ipc_connect(path, &one), -ENOENT);
	assert_int_equal(ipc_listen(path, &listener), 0);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ipc_accept(listener, &accepted), -EAGAIN);
	assert_int_equal(ipc_connect(path, &one), 0);
	assert_int_equal(ipc_accept(listener, &accepted), geteuid() == 0 ? 0 : -EPERM);
	if (geteuid() == 0) {
		assert_int_equal(ipc_send_blocking(one, MSG_TYPE_msg_ping, 1, &(struct msg_ping){}, NULL, 0), 0);
		close(accepted);
	}
	close(one);
	close(listener);
	assert_int_equal(ipc_connect(path, &two), -ECONNREFUSED);
	assert_int_equal(ipc_listen(path, &listener), 0); /* replaces what a dead one left */
	close(listener);
	char long_path[200];
	memset(long_path, 'x', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = '\0';
	assert_int_equal(ipc_listen(long_path, &listener), -ENAMETOOLONG);
	unlink(path);
	rmdir(dir);
}

/* Fills a's queue: b is not run meanwhile. */
static int overflow(struct fixture *f)
{
	static uint8_t body[100000];
	int code = 0;

	for (int i = 0; i < 1000 && code == 0; i++)
		code = ipc_notify(f->a, MSG_TYPE_msg_audit_batch, &(struct msg_audit_batch){.records = str_make(body, sizeof body)},
				  NULL, 0);
	return code;
}

static void test_a_full_queue_closes_from_the_loop(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ipc_call(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0, 0, on_answer, f), 0);
	assert_int_equal(overflow(f), -ENOBUFS);
	assert_int_equal(f->closed + f->lost, 0); /* not under the sender */
	assert_int_equal(ipc_notify(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0), -ENOBUFS);
	event_base_loop(f->base, EVLOOP_NONBLOCK);
	assert_false(ipc_peer_is_open(f->a));
	assert_int_equal(f->lost, 1);
}

static void test_a_full_queue_may_be_destroyed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(overflow(f), -ENOBUFS);
	ipc_peer_destroy(take_ptr(f->a));
	turn(f);
	assert_int_equal(f->closed, 1); /* b's */
}

static void on_ping_large(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	static char text[49152];
	struct fixture *f = user;

	f->pings++;
	memset(text, 'x', sizeof text);
	for (int i = 0; i < 60; i++)
		assert_int_equal(ipc_reply(p, m->txn, MSG_TYPE_row_rule, &(struct row_rule){.rule = str_make(text, sizeof text)},
					   NULL, 0), 0);
	ipc_reply_result(p, m->txn, 0, "fine", 42);
}

static bool on_large(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	assert_non_null(m);
	((struct fixture *)user)->answers += m->info->type == MSG_TYPE_msg_result;
	return m->info->type == MSG_TYPE_msg_result;
}

/* 3 MB an answer, a hundred asked for at once: all come, and the queue stays small. */
static void test_a_slow_reader_is_not_read(void **state)
{
	static const struct ipc_rule large[] = {{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping_large}};
	struct fixture *f = *state;
	int fds[2];

	ipc_peer_destroy(f->a);
	ipc_peer_destroy(f->b);
	assert_int_equal(ipc_socketpair(fds), 0);
	f->a = ipc_peer_create(f->base, fds[0], "a", NULL, 0, on_closed, f);
	f->b = ipc_peer_create(f->base, fds[1], "b", large, 1, on_closed, f);
	ipc_peer_pause_above(f->b, (size_t)4 << 20);
	for (int i = 0; i < 100; i++)
		assert_int_equal(ipc_call(f->a, MSG_TYPE_msg_ping, &(struct msg_ping){}, NULL, 0, 0, on_large, f), 0);
	for (int i = 0; i < 10000 && f->answers < 100 && f->closed == 0; i++) {
		event_base_loop(f->base, EVLOOP_NONBLOCK);
		assert_true(ipc_peer_queued(f->b) < (size_t)8 << 20);
	}
	assert_int_equal(f->closed, 0);
	assert_int_equal(f->answers, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_call, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pending_calls_learn_of_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_no_rule_allows_closes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_surplus_descriptors_are_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_queue_closes_from_the_loop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_queue_may_be_destroyed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_slow_reader_is_not_read, setup, teardown),
		cmocka_unit_test(test_a_listener_takes_root_one_at_a_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
