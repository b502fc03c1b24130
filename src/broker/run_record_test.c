/* The records by which the next irond knows a process again. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "broker/run_record.h"
#include "os/fdutil.h"
#include "os/pidfd.h"
#include "os/proc.h"

static char dir[64];

static int setup(void **state)
{
	snprintf(dir, sizeof dir, "/tmp/iron-test-record-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return dir_remove(dir);
}

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	assert_true(pid > 0);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static struct run_record written(pid_t pid)
{
	struct run_record r = {.pid = pid,
			       .started_at = 1700000000123,
			       .id = UINT64_MAX,
			       .generation = 7,
			       .config = 0xfedcba9876543210};

	assert_int_equal(run_record_write(dir, "one", &r), 0);
	return r;
}

static void what_is_written_is_read(void **state)
{
	struct run_record r = {0}, w = written(getpid());

	assert_int_equal(run_record_read(dir, "one", &r), 0);
	assert_int_equal(r.pid, getpid());
	assert_true(r.start == w.start && r.start > 0);
	assert_true(r.started_at == w.started_at && r.id == w.id && r.generation == 7 && r.config == w.config);
	assert_int_equal(run_record_read(dir, "none", &r), -ENOENT);
}

static void of_a_process_that_is_gone_nothing_is_written(void **state)
{
	pid_t pid = sleeper();
	struct run_record r = {.pid = pid};

	end(pid);
	assert_int_equal(run_record_write(dir, "gone", &r), -ENOENT);
}

static void a_pid_counts_with_its_start_time(void **state)
{
	pid_t pid = sleeper();
	struct run_record r = written(pid);
	int fd = -1;

	assert_int_equal(run_record_open(&r, &fd), 0);
	close(fd);
	r.start++;
	assert_int_equal(run_record_open(&r, &fd), -ESRCH);
	r.start--;
	kill(pid, SIGKILL);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(run_record_open(&r, &fd), -ESRCH); /* a zombie */
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(run_record_open(&r, &fd), -ESRCH);
}

static void put(const char *text)
{
	assert_int_equal(file_replace(dir, "bad", str_of(text), 0600), 0);
}

#define REST "started_at 1\nstart 2\nid 3\ngeneration 4\nconfig 5\n"

static void anything_else_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "nonsense\n", "pid 1\n" REST, "%s\npid 0\n" REST, "%s\npid -1\n" REST, "%s\npid 99999999999\n" REST,
		"%s\npid 1 \n" REST, "%s\npid 1\n", "%s\npid 1\nstarted_at 1\nstart 2\nid 3\ngeneration 4\nconfig\n",
		"%s\npid 1\nstarted_at 1\nid 3\nstart 2\ngeneration 4\nconfig 5\n",
		"%s\npid 1\nstarted_at 1\nstart 99999999999999999999999\nid 3\ngeneration 4\nconfig 5\n",
	};
	char boot[BOOT_ID_SIZE];
	struct run_record r = {.pid = 4711};

	assert_int_equal(proc_boot_id(boot), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_(buf_finish) struct buf text = {0};
		const char *rest = bad[i];
		if (strncmp(rest, "%s", 2) == 0) {
			buf_printf(&text, "boot %s", boot);
			rest += 2;
		}
		buf_append_z(&text, rest);
		_cleanup_free_ char *z = buf_take_z(&text);
		put(z);
		assert_int_equal(run_record_read(dir, "bad", &r), -EINVAL);
	}
	_cleanup_free_ char *large = xcalloc(1, 4096);
	memset(large, 'x', 4095);
	put(large);
	assert_int_equal(run_record_read(dir, "bad", &r), -EINVAL);
	put("boot 00000000-0000-0000-0000-000000000000\npid 1\n" REST);
	assert_int_equal(run_record_read(dir, "bad", &r), -ESTALE);
	assert_int_equal(r.pid, 4711);
}

static void files_are_told_apart_by_what_is_in_them(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/bad", dir);
	uint64_t one = 0, two = 0;

	put("one");
	assert_int_equal(run_mark_file(path, &one), 0);
	assert_true(one == run_mark("one", 3));
	put("two");
	assert_int_equal(run_mark_file(path, &two), 0);
	assert_true(one != two);
	assert_true(run_mark("", 0) == 0xcbf29ce484222325U && run_mark("a", 1) == 0xaf63dc4c8601ec8cU);
}

static void a_descriptor_of_another_process(void **state)
{
	int pipe_fds[2], self = -1, copy = -1;

	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(pidfd_get(getpid(), &self), 0);
	assert_int_equal(pidfd_get_fd(self, pipe_fds[1], &copy), 0);
	assert_int_equal(write(copy, "x", 1), 1);
	char c;
	assert_int_equal(read(pipe_fds[0], &c, 1), 1);
	assert_int_equal(pidfd_get_fd(self, 9999, &copy), -EBADF);
	int status;
	assert_int_equal(pidfd_reap(self, &status), -ECHILD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(of_a_process_that_is_gone_nothing_is_written),
		cmocka_unit_test(a_pid_counts_with_its_start_time),
		cmocka_unit_test(anything_else_is_refused),
		cmocka_unit_test(files_are_told_apart_by_what_is_in_them),
		cmocka_unit_test(a_descriptor_of_another_process),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
