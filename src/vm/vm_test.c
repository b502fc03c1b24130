/* The console's memory, and the link to an agent over a socketpair with a loop of the test's own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "vm/agent_link.h"
#include "vm/console.h"

struct lab {
	struct event_base *base;
	int far; /* the guest's end */
	struct agent_link *link;
	struct console *console;
	unsigned up, lost, failed, frames;
	bool accept;
};

/* Turns the loop until *n reaches `want`. */
static void turn_until(struct lab *l, const unsigned *n, unsigned want)
{
	uint64_t end = mono_ms() + 10000;

	while (*n < want) {
		assert_true(mono_ms() < end);
		event_base_loop(l->base, EVLOOP_ONCE);
	}
}

static void on_up(void *user)
{
	((struct lab *)user)->up++;
}

static void on_lost(const char *reason, void *user)
{
	((struct lab *)user)->lost++;
}

static void on_failed(const char *reason, void *user)
{
	((struct lab *)user)->failed++;
}

static bool on_frame(const struct agent_frame *f, void *user)
{
	((struct lab *)user)->frames++;
	return ((struct lab *)user)->accept;
}

static void on_room(void *user)
{
}

static const struct agent_link_ops ops = {on_up, on_lost, on_failed, on_frame, on_room};

static int setup(void **state)
{
	struct lab *l = xcalloc(1, sizeof *l);
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	l->base = event_base_new();
	l->far = pair[1];
	l->accept = true;
	*state = l;
	l->link = agent_link_create(l->base, pair[0], &ops, l);
	return l->link ? 0 : -1;
}

static int teardown(void **state)
{
	struct lab *l = *state;

	console_destroy(l->console);
	agent_link_destroy(l->link);
	event_base_free(l->base);
	close(l->far);
	free(l);
	return 0;
}

/* Answers the hello that is in the socket now; what came before it is passed over. */
static void echo(struct lab *l)
{
	_cleanup_(buf_finish) struct buf in = {0}, out = {0};
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint32_t version;
	uint64_t end = mono_ms() + 10000;

	for (;;) {
		assert_true(mono_ms() < end);
		event_base_loop(l->base, EVLOOP_NONBLOCK);
		void *to = buf_reserve(&in, 1 << 18);
		ssize_t n = read(l->far, to, 1 << 18);
		buf_commit(&in, n > 0 ? (size_t)n : 0);
		struct str rest = buf_str(&in);
		if (agent_sync(&rest, AGENT_HELLO, &version, nonce) == 1)
			break;
	}
	agent_hello_encode(AGENT_HELLO_ACK, nonce, &out);
	assert_int_equal(write(l->far, out.data, out.len), (ssize_t)out.len);
}

static void test_link_up_and_frames(void **state)
{
	struct lab *l = *state;
	_cleanup_(buf_finish) struct buf b = {0};

	assert_int_equal(agent_link_send(l->link, AGENT_PING, 0, STR("12345678")), -EPIPE);
	agent_link_connect(l->link);
	echo(l);
	turn_until(l, &l->up, 1);
	assert_true(agent_link_is_up(l->link) && agent_link_has_room(l->link));
	agent_frame_encode(AGENT_PONG, 0, STR("12345678"), &b);
	for (size_t i = 0; i < b.len; i++) {
		assert_int_equal(l->frames, 0);
		assert_int_equal(write(l->far, b.data + i, 1), 1);
		event_base_loop(l->base, EVLOOP_NONBLOCK);
	}
	turn_until(l, &l->frames, 1);
	assert_int_equal(l->lost, 0);
}

static void test_link_violations_in_a_row(void **state)
{
	struct lab *l = *state;
	_cleanup_(buf_finish) struct buf b = {0};

	l->accept = false;
	agent_frame_encode(AGENT_PONG, 0, STR("12345678"), &b);
	agent_link_connect(l->link);
	for (unsigned i = 1; i <= AGENT_LINK_TRIES; i++) {
		echo(l);
		turn_until(l, &l->up, i);
		assert_int_equal(write(l->far, b.data, b.len), (ssize_t)b.len);
		turn_until(l, i < AGENT_LINK_TRIES ? &l->lost : &l->failed, i < AGENT_LINK_TRIES ? i : 1);
	}
	assert_int_equal(l->lost, AGENT_LINK_TRIES - 1);
	assert_false(agent_link_is_up(l->link));
	/* Anew: as if nothing had been. */
	l->accept = true;
	agent_link_connect(l->link);
	echo(l);
	turn_until(l, &l->up, AGENT_LINK_TRIES + 1);
}

static void test_link_crowded(void **state)
{
	struct lab *l = *state;

	agent_link_connect(l->link);
	echo(l);
	turn_until(l, &l->up, 1);
	static const char data[AGENT_DATA_MAX];
	size_t sent = 0;
	while (agent_link_has_room(l->link)) {
		assert_int_equal(agent_link_send(l->link, AGENT_STDIN, 1, str_make(data, sizeof data)), 0);
		sent += sizeof data;
	}
	assert_true(sent >= AGENT_LINK_ROOM && sent < 2 * AGENT_LINK_ROOM);
}

static void feed(struct lab *l, int fd, struct str s)
{
	assert_int_equal(write(fd, s.p, s.len), (ssize_t)s.len);
	for (int i = 0; i < 4; i++)
		event_base_loop(l->base, EVLOOP_NONBLOCK);
}

static void test_console(void **state)
{
	struct lab *l = *state;
	_cleanup_(buf_finish) struct buf line = {0}, all = {0}, big = {0};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	l->console = console_create(l->base, pair[0]);
	assert_non_null(l->console);
	assert_int_equal(console_last_line(l->console, 100, &line), 0);
	assert_int_equal(line.len, 0);
	feed(l, pair[1], STR("first\r\nlast \x1b[31mline\r\n  \r\n"));
	assert_int_equal(console_last_line(l->console, 100, &line), 0);
	assert_true(str_eq(buf_str(&line), STR("last \\x1b[31mline")));
	buf_clear(&line);
	assert_int_equal(console_last_line(l->console, 4, &line), 0);
	assert_true(str_eq(buf_str(&line), STR("last")));
	for (int i = 0; i < 9000; i++)
		buf_printf(&big, "line %05d\n", i);
	for (size_t at = 0; at < big.len; at += 10000)
		feed(l, pair[1], str_make(big.data + at, MIN((size_t)10000, big.len - at)));
	assert_int_equal(console_copy(l->console, &all), 0);
	assert_int_equal(all.len, CONSOLE_KEPT);
	assert_memory_equal(all.data, big.data + big.len - CONSOLE_KEPT, CONSOLE_KEPT);
	close(pair[1]);
	event_base_loop(l->base, EVLOOP_NONBLOCK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_link_up_and_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_violations_in_a_row, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_crowded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_console, setup, teardown),
	};
	return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
