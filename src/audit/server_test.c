/* The server on a loop of the test's own: what needs its clocks and budgets set. Its process is in tests/test_audit_journal.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "audit/reader.h"
#include "audit/server.h"
#include "base/clock.h"
#include "codec/record.h"
#include "os/ipc.h"

#define BURST 100000

struct world {
	char path[40];
	int dir;
	struct event_base *base;
	struct audit_server *server;
	struct ipc_peer *worker;
	struct msg_audit_ack ack;
	bool answered, closed;
};

static void start(struct world *w)
{
	struct audit_server_options options = {.journal = {.segment_bytes = 1 << 20, .sync_interval_ms = 5}, .orphan_ms = 100,
					       .budget_burst_bytes = BURST, .budget_bytes_per_s = 50000};
	struct audit_recovery recovery;
	struct error error = {0};

	if (audit_server_create(w->base, w->dir, &options, &w->server, &recovery, &error))
		fail_msg("%s", error.text);
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof *w);

	snprintf(w->path, sizeof w->path, "/tmp/iron-audit-test-XXXXXX");
	assert_non_null(mkdtemp(w->path));
	w->dir = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w->base = event_base_new();
	start(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	struct dirent *e;

	ipc_peer_destroy(w->worker);
	audit_server_destroy(w->server);
	event_base_free(w->base);
	DIR *d = fdopendir(w->dir);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(w->dir, e->d_name, 0);
	closedir(d);
	rmdir(w->path);
	free(w);
	return 0;
}

static void on_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	((struct world *)user)->closed = true;
}

static void connect_worker(struct world *w)
{
	int fds[2];

	assert_int_equal(ipc_socketpair(fds), 0);
	w->worker = ipc_peer_create(w->base, fds[0], "audit", NULL, 0, on_closed, w);
	assert_non_null(w->worker);
	assert_int_equal(audit_server_peer(w->server, ROLE_EGRESS, 1, fds[1]), 0);
}

static bool on_ack(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct world *w = arg;

	assert_non_null(m);
	w->ack = *IPC_RECORD(m, msg_audit_ack);
	w->answered = true;
	return true;
}

static void turn(struct world *w, const bool *until)
{
	uint64_t end = mono_ms() + 20000;

	while (!*until) {
		assert_true(mono_ms() < end);
		event_base_loop(w->base, EVLOOP_ONCE);
	}
}

static void add(struct buf *records, uint16_t type, const void *record)
{
	_cleanup_(buf_finish) struct buf item = {0};

	buf_append_u16(&item, type);
	assert_int_equal(wire_encode(record_wire(type), record, &item), 0);
	wire_list_add(records, buf_str(&item));
}

static void add_open(struct buf *records, uint64_t vm)
{
	static const char path[1000] = "/";
	struct record_open e = {.vm = vm, .workspace = 1, .protocol = PROTO_TLS, .verdict = VERDICT_ALLOWED,
				.path = str_make(path, sizeof path)};

	add(records, RECORD_OPEN, &e);
}

/* Sends what was gathered, and waits for the answer. */
static void send_batch(struct world *w, struct buf *records)
{
	struct msg_audit_batch batch = {.records = buf_str(records)};

	w->answered = false;
	assert_int_equal(ipc_call(w->worker, MSG_TYPE_msg_audit_batch, &batch, NULL, 0, 0, on_ack, w), 0);
	buf_clear(records);
	turn(w, &w->answered);
}

/* Whether the journal holds a close of this open with this outcome. */
static bool is_closed(struct world *w, uint64_t open_seq, uint8_t outcome)
{
	for (uint64_t number = 1;; number++) {
		char name[SEGMENT_NAME_SIZE];
		segment_name_format(number, name);
		_cleanup_close_ int fd = openat(w->dir, name, O_RDONLY | O_CLOEXEC);
		_cleanup_(audit_reader_finish) struct audit_reader r = {0};
		struct segment_record record;
		struct record_close c;
		if (fd < 0 || audit_reader_open(fd, &r))
			return false;
		while (audit_reader_next(&r, &record) > 0)
			if (record.type == RECORD_CLOSE && wire_decode(&record_close_wire, record.payload, &c) == 0 &&
			    c.open_seq == open_seq && c.outcome == outcome)
				return true;
	}
}

static void test_budget_is_a_vms_own(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf records = {0};
	unsigned written = 0;

	connect_worker(w);
	do {
		add_open(&records, 7);
		send_batch(w, &records);
		written += w->ack.code == 0;
		assert_true(written < 2 * BURST / 1000);
	} while (w->ack.code == 0);
	assert_int_equal(w->ack.code, -EDQUOT);
	assert_int_equal(w->ack.vm, 7);
	assert_true(written >= 70);
	/* with another's beside it nothing is written, and without it what is the other's is; more than a burst, since what
	 * fills again meanwhile is a matter of how fast the disk syncs */
	add_open(&records, 8);
	while (records.len <= BURST + 2000)
		add_open(&records, 7);
	send_batch(w, &records);
	assert_true(w->ack.code == -EDQUOT && w->ack.vm == 7);
	add_open(&records, 8);
	send_batch(w, &records);
	assert_int_equal(w->ack.code, 0);
	/* what ends is never refused for want of a VM's budget */
	struct record_close close = {.open_seq = w->ack.first_seq, .outcome = CLOSE_DONE};
	add(&records, RECORD_CLOSE, &close);
	send_batch(w, &records);
	assert_int_equal(w->ack.code, 0);
	/* and it fills again */
	uint64_t end = mono_ms() + 10000;
	do {
		assert_true(mono_ms() < end);
		usleep(20000);
		add_open(&records, 7);
		send_batch(w, &records);
	} while (w->ack.code);
}

static void test_orphans_end(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf records = {0};

	connect_worker(w);
	add_open(&records, 7);
	add_open(&records, 7);
	send_batch(w, &records);
	uint64_t first = w->ack.first_seq;
	/* iron-audit ends and the worker lives on: nothing is closed */
	audit_server_destroy(take_ptr(w->server));
	turn(w, &w->closed);
	ipc_peer_destroy(take_ptr(w->worker));
	assert_false(is_closed(w, first, CLOSE_ABORTED));
	/* the worker takes one of them up again; the other is nobody's */
	start(w);
	connect_worker(w);
	struct record_progress progress = {.open_seq = first, .bytes_sent = 1};
	add(&records, RECORD_PROGRESS, &progress);
	send_batch(w, &records);
	uint64_t end = mono_ms() + 20000;
	while (!is_closed(w, first + 1, CLOSE_ABORTED)) {
		assert_true(mono_ms() < end);
		event_base_loop(w->base, EVLOOP_ONCE);
	}
	assert_false(is_closed(w, first, CLOSE_ABORTED));
	struct record_close close = {.open_seq = first, .outcome = CLOSE_DONE};
	add(&records, RECORD_CLOSE, &close);
	send_batch(w, &records);
	assert_true(is_closed(w, first, CLOSE_DONE));
}

static void test_too_much_open(void **state)
{
	struct world *w = *state;
	_cleanup_(buf_finish) struct buf records = {0};
	size_t open = 0;

	connect_worker(w);
	for (uint64_t vm = 1000; open < AUDIT_OPEN_MAX; vm++) { /* each within its own budget */
		struct record_open e = {.vm = vm, .workspace = 1, .protocol = PROTO_TLS, .verdict = VERDICT_ALLOWED};
		for (unsigned i = 0; i < 512; i++)
			add(&records, RECORD_OPEN, &e);
		send_batch(w, &records);
		assert_int_equal(w->ack.code, 0);
		open += 512;
	}
	add_open(&records, 5);
	send_batch(w, &records);
	assert_int_equal(w->ack.code, -EDQUOT);
	assert_int_equal(w->ack.vm, 0);
	struct record_close close = {.open_seq = 2, .outcome = CLOSE_DONE}; /* 1 is the journal's own */
	add(&records, RECORD_CLOSE, &close);
	send_batch(w, &records);
	assert_int_equal(w->ack.code, 0);
	add_open(&records, 5);
	send_batch(w, &records);
	assert_int_equal(w->ack.code, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_budget_is_a_vms_own, setup, teardown),
		cmocka_unit_test_setup_teardown(test_orphans_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_much_open, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
