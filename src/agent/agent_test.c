/* The agent's parsers, and its process engine driven over a socketpair as the host drives it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "agent/environ.h"
#include "agent/file.h"
#include "agent/loop.h"
#include "agent/user.h"
#include "base/clock.h"

static const char PASSWD[] = "root:x:0:0:root:/root:/bin/bash\n"
			     "broken:x:notanumber:1::/:/bin/sh\n"
			     "short:x:5\n"
			     "agent:x:1000:1001:An Agent,,,:/home/agent:/bin/zsh\n"
			     "bare:x:7:7:::\n"
			     "max:x:4294967295:1::/:/bin/sh";
static const char GROUP[] =
	"root:x:0:\nsudo:x:27:alice,agent\nagent:x:1001:agent\nclose:x:30:agentx,xagent\nlast:x:40:agent";

static int find(const char *name, struct user *u)
{
	return user_parse(str_of(PASSWD), str_of(GROUP), str_of(name), u);
}

static void test_users(void **state)
{
	struct user u;

	assert_int_equal(find("agent", &u), 0);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 1001);
	assert_string_equal(u.home, "/home/agent");
	assert_string_equal(u.shell, "/bin/zsh");
	assert_int_equal(u.ngroups, 3);
	assert_int_equal(u.groups[0], 1001);
	assert_int_equal(u.groups[1], 27);
	assert_int_equal(u.groups[2], 40);
	assert_int_equal(find("bare", &u), 0);
	assert_string_equal(u.shell, "/bin/sh");
	assert_int_equal(find("broken", &u), -ENOENT);
	assert_int_equal(find("short", &u), -ENOENT);
	assert_int_equal(find("max", &u), -ENOENT);
	assert_int_equal(find("", &u), -ENOENT);
	assert_int_equal(find("agen", &u), -ENOENT);
}

static void test_environment_round_trip(void **state)
{
	static const char *const vars[] = {"A=plain", "B=it's \"quoted\" $HOME `x` \\", "C=two\nlines", "D=", "E==x"};
	_cleanup_(buf_finish) struct buf list = {0}, text = {0};
	_cleanup_(environ_finish) struct environ e = {0};

	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		wire_list_add_z(&list, vars[i]);
	assert_int_equal(environ_format(buf_str(&list), &text), 0);
	assert_true(str_has_prefix(buf_str(&text), STR("export A='plain'\nexport B='it'\\''s ")));
	environ_parse(&e, buf_str(&text));
	assert_int_equal(e.vars.n, ARRAY_SIZE(vars));
	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		assert_string_equal(e.vars.v[i], vars[i]);
}

static void test_environment_of_the_system(void **state)
{
	_cleanup_(environ_finish) struct environ e = {0};

	environ_parse(&e, STR("# a comment = x\nPATH=/a:/b\n\n  LANG=\"de DE\"\nnot an assignment\n1BAD=x\nBAD-NAME=x\n"
			      "export X='y'\nPATH=/c\nLAST=end"));
	assert_int_equal(e.vars.n, 4);
	assert_string_equal(environ_get(&e, "PATH"), "/c");
	assert_string_equal(environ_get(&e, "LANG"), "de DE");
	assert_string_equal(environ_get(&e, "X"), "y");
	assert_string_equal(environ_get(&e, "LAST"), "end");
	assert_null(environ_get(&e, "PAT"));
}

static void test_environment_refused(void **state)
{
	static const struct str bad[] = {STR("NOEQUALS"), STR("=x"),  STR("A B=x"),
					 STR("A=x\0y"),   STR("9=x"), STR("A;rm=x")};
	_cleanup_(environ_finish) struct environ e = {0};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_(buf_finish) struct buf list = {0}, text = {0};
		wire_list_add(&list, bad[i]);
		assert_int_equal(environ_format(buf_str(&list), &text), -EINVAL);
	}
	assert_int_equal(environ_set(&e, STR("NOEQUALS")), -EINVAL);
	assert_int_equal(environ_set(&e, STR("A=x\0y")), -EINVAL);
}

/* A link is replaced, not followed; directories above are made. */
static void test_file_write(void **state)
{
	char dir[] = "/tmp/iron-test-agent-XXXXXX";
	_cleanup_(buf_finish) struct buf back = {0};
	struct stat st;

	assert_non_null(mkdtemp(dir));
	_cleanup_free_ char *deep = xasprintf("%s/a/b", dir), *file = xasprintf("%s/a/b/f", dir),
			    *aim = xasprintf("%s/aim", dir);
	assert_int_equal(file_write(file, STR("one"), 0640), 0);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(symlink(aim, file), 0);
	assert_int_equal(file_write(file, STR("two"), 0640), 0);
	assert_int_equal(lstat(file, &st), 0);
	assert_true(S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0640);
	assert_int_equal(access(aim, F_OK), -1);
	assert_int_equal(file_read(file, &back), 0);
	assert_true(str_eq(buf_str(&back), STR("two")));
	struct buf small = BUF_MAX(2);
	assert_int_equal(file_read(file, &small), -EMSGSIZE);
	buf_finish(&small);
	_cleanup_free_ char *above = xasprintf("%s/a", dir);
	assert_int_equal(unlink(file) | rmdir(deep) | rmdir(above) | rmdir(dir), 0);
}

/* --- the ring --- */

static void read_ring(const struct ring *r, struct ring_reader *reader, struct buf *out)
{
	bool second;
	struct str s;

	while (ring_peek(r, reader, &second, &s)) {
		s.len = MIN(s.len, (size_t)1000);
		for (size_t i = 0; i < s.len; i++)
			assert_int_equal(s.p[i] >= 'a', second);
		buf_append_str(out, s);
		ring_advance(reader, s.len);
	}
}

static void test_ring_keeps_order_and_outputs(void **state)
{
	_cleanup_(buf_finish) struct buf all = {0}, whole = {0};
	struct ring_pool pool = {.max = 1000};
	struct ring r = {.pool = &pool};
	struct ring_reader follower = {0};

	for (int i = 0; i < 20000; i++) {
		_cleanup_(buf_finish) struct buf piece = {0};
		buf_printf(&piece, "%0*d", 1 + i * 7 % 23, i);
		for (size_t k = 0; i % 3 == 0 && k < piece.len; k++)
			piece.data[k] = (uint8_t)(piece.data[k] + 'a' - '0');
		ring_append(&r, i % 3 == 0, buf_str(&piece));
		buf_append_str(&all, buf_str(&piece));
		if (i % 50 == 0)
			read_ring(&r, &follower, &whole);
	}
	read_ring(&r, &follower, &whole);
	assert_true(str_eq(buf_str(&whole), buf_str(&all)));
	for (uint64_t at = 0; at < all.len; at += 997) {
		struct ring_reader reader = {.offset = at};
		_cleanup_(buf_finish) struct buf part = {0};
		read_ring(&r, &reader, &part);
		assert_true(str_eq(buf_str(&part), str_make(all.data + at, all.len - at)));
	}
	ring_finish(&r);
	assert_int_equal(pool.used, 0);
}

static void test_ring_forgets_the_oldest(void **state)
{
	static char block[30000];
	struct ring_pool pool = {.max = 1000};
	struct ring r = {.pool = &pool};
	struct ring_reader reader = {0};
	bool second;
	struct str s;

	memset(block, '0', sizeof block);
	for (int i = 0; i < 1000; i++) {
		ring_append(&r, false, str_make(block, sizeof block));
		assert_true(r.total - ring_start(&r) <= RING_KEPT && pool.used <= RING_KEPT / RING_CHUNK);
		reader.offset = MAX(reader.offset, ring_start(&r));
		if (reader.offset == ring_start(&r))
			reader.chunk = NULL;
		while (i % 7 == 0 && ring_peek(&r, &reader, &second, &s))
			ring_advance(&reader, s.len);
	}
	assert_int_equal(r.total, 30000000);
	assert_true(r.total - ring_start(&r) > RING_KEPT * 9 / 10);
	ring_finish(&r);
}

/* A pool that is empty: what comes is counted, and not kept. */
static void test_ring_without_memory(void **state)
{
	struct ring_pool pool = {.max = 0};
	struct ring r = {.pool = &pool};
	struct ring_reader reader = {0};
	bool second;
	struct str s;

	assert_true(ring_is_short(&r));
	ring_append(&r, true, STR("lost"));
	assert_int_equal(r.total, 4);
	assert_int_equal(ring_start(&r), 4);
	reader.offset = 4;
	assert_false(ring_peek(&r, &reader, &second, &s));
	pool.max = 8;
	ring_append(&r, true, STR("kept"));
	assert_true(ring_peek(&r, &reader, &second, &s) && second && str_eq(s, STR("kept")));
	ring_finish(&r);
}

/* --- the engine --- */

struct peer {
	int fd;
	pid_t pid;
	struct buf in;
	size_t at; /* of the frame after the last one */
};

static char *own_name(void)
{
	_cleanup_(buf_finish) struct buf passwd = {0};
	struct str rest, line, name, field;
	uint64_t uid;

	assert_int_equal(file_read("/etc/passwd", &passwd), 0);
	rest = buf_str(&passwd);
	while (str_split(&rest, '\n', &line))
		if (str_split(&line, ':', &name) && str_split(&line, ':', &field) && str_split(&line, ':', &field) &&
		    str_parse_u64(field, UINT32_MAX, &uid) == 0 && uid == getuid())
			return str_dup(name);
	fail_msg("the user of this test has no line in /etc/passwd");
	return NULL;
}

static void receive(struct peer *p, struct agent_frame *f)
{
	uint64_t end = mono_ms() + 10000;

	for (;;) {
		struct str rest = str_make(p->in.data + p->at, p->in.len - p->at);
		int r = agent_frame_next(&rest, AGENT_GUEST, f);
		assert_true(r >= 0);
		p->at = p->in.len - rest.len;
		if (r == 1)
			return;
		struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
		assert_true(mono_ms() < end && poll(&pfd, 1, 10000) == 1);
		void *to = buf_reserve(&p->in, 65536);
		ssize_t n = to ? read(p->fd, to, 65536) : -1;
		assert_true(n > 0);
		buf_commit(&p->in, (size_t)n);
	}
}

static void transmit(const struct peer *p, const struct buf *b)
{
	assert_int_equal(write(p->fd, b->data, b->len), (ssize_t)b->len);
}

static int start_agent(void **state)
{
	static const uint8_t nonce[AGENT_NONCE_SIZE] = {1, 2, 3};
	_cleanup_(buf_finish) struct buf b = {0};
	_cleanup_free_ char *name = own_name();
	struct peer *p = xcalloc(1, sizeof *p);
	struct agent_frame f;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->pid = fork();
	if (p->pid == 0) {
		close(pair[0]);
		fcntl(pair[1], F_SETFL, O_NONBLOCK);
		struct loop_options o = {.mode = LOOP_FD, .fd = pair[1], .spawn.default_user = name};
		_exit(loop_run(&o));
	}
	close(pair[1]);
	p->fd = pair[0];
	agent_hello_encode(AGENT_HELLO, nonce, &b);
	transmit(p, &b);
	receive(p, &f);
	assert_int_equal(f.type, AGENT_HELLO_ACK);
	*state = p;
	return 0;
}

static int stop_agent(void **state)
{
	struct peer *p = *state;
	int status;

	close(p->fd);
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	buf_finish(&p->in);
	free(p);
	return 0;
}

static void run(struct peer *p, uint32_t stream, struct stream_exec x)
{
	_cleanup_(buf_finish) struct buf b = {0};

	assert_int_equal(agent_record_encode(AGENT_EXEC, stream, &stream_exec_wire, &x, &b), 0);
	transmit(p, &b);
}

static void expect(struct peer *p, enum agent_type type, struct str payload)
{
	struct agent_frame f;

	receive(p, &f);
	assert_string_equal(agent_type_name(f.type), agent_type_name(type));
	assert_true(str_eq(f.payload, payload));
}

static void test_exec(void **state)
{
	run(*state, 1, (struct stream_exec){.command = STR("echo $0; exit 9"), .cwd = STR("/")});
	expect(*state, AGENT_STARTED, STR_NONE);
	struct agent_frame f;
	receive(*state, &f);
	assert_int_equal(f.type, AGENT_STDOUT);
	expect(*state, AGENT_EXIT, STR("\x09\0\0\0"));
}

static void test_exec_input(void **state)
{
	struct peer *p = *state;
	_cleanup_(buf_finish) struct buf argv = {0}, b = {0};

	wire_list_add_z(&argv, "cat");
	run(p, 1, (struct stream_exec){.argv = buf_str(&argv)});
	expect(p, AGENT_STARTED, STR_NONE);
	agent_frame_encode(AGENT_STDIN, 1, STR("over and back"), &b);
	transmit(p, &b);
	expect(p, AGENT_STDOUT, STR("over and back"));
	buf_clear(&b);
	agent_frame_encode(AGENT_STDIN_EOF, 1, STR_NONE, &b);
	transmit(p, &b);
	expect(p, AGENT_EXIT, STR("\0\0\0\0"));
	/* What comes late for an id that is over is dropped. */
	transmit(p, &b);
	buf_clear(&b);
	agent_frame_encode(AGENT_PING, 0, STR("12345678"), &b);
	transmit(p, &b);
	expect(p, AGENT_PONG, STR("12345678"));
}

static void test_exec_stops_without_credit(void **state)
{
	struct peer *p = *state;
	_cleanup_(buf_finish) struct buf b = {0};
	struct agent_frame f;
	size_t got = 0;

	run(p, 1, (struct stream_exec){.command = STR("head -c 1200000 /dev/zero")});
	expect(p, AGENT_STARTED, STR_NONE);
	while (got < AGENT_WINDOW) {
		receive(p, &f);
		got += f.payload.len;
	}
	assert_int_equal(got, AGENT_WINDOW);
	struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
	assert_int_equal(p->at, p->in.len);
	assert_int_equal(poll(&pfd, 1, 200), 0);
	agent_credit_encode(1, AGENT_WINDOW, &b);
	transmit(p, &b);
	while (got < 2 * AGENT_WINDOW) {
		receive(p, &f);
		got += f.payload.len;
	}
	transmit(p, &b);
	for (receive(p, &f); f.type == AGENT_STDOUT; receive(p, &f))
		got += f.payload.len;
	assert_int_equal(f.type, AGENT_EXIT);
	assert_int_equal(got, 1200000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_environment_round_trip),
		cmocka_unit_test(test_environment_of_the_system),
		cmocka_unit_test(test_environment_refused),
		cmocka_unit_test(test_file_write),
		cmocka_unit_test(test_ring_keeps_order_and_outputs),
		cmocka_unit_test(test_ring_forgets_the_oldest),
		cmocka_unit_test(test_ring_without_memory),
		cmocka_unit_test_setup_teardown(test_exec, start_agent, stop_agent),
		cmocka_unit_test_setup_teardown(test_exec_input, start_agent, stop_agent),
		cmocka_unit_test_setup_teardown(test_exec_stops_without_credit, start_agent, stop_agent),
	};
	return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
