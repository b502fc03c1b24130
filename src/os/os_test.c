/* Files, directories, unix sockets and children. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "os/fdutil.h"
#include "os/pidfd.h"

static int setup(void **state)
{
	char *dir = xstrdup("/tmp/iron-test-os-XXXXXX");

	assert_non_null(mkdtemp(dir));
	*state = dir;
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(dir_remove(*state), 0);
	assert_int_equal(access(*state, F_OK), -1);
	free(*state);
	return 0;
}

static void replaced_as_a_whole(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/f", (char *)*state);
	_cleanup_free_ char *tmp = xasprintf("%s/f.tmp", (char *)*state);
	_cleanup_(buf_finish) struct buf b = {0};
	struct stat st;

	assert_int_equal(file_replace(*state, "f", STR("one"), 0600), 0);
	assert_int_equal(file_replace(*state, "f", STR("two"), 0640), 0);
	assert_int_equal(file_read(path, 100, &b), 0);
	assert_memory_equal(b.data, "two", 3);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(access(tmp, F_OK), -1);
	buf_clear(&b);
	assert_int_equal(file_read(path, 2, &b), -EFBIG);
	assert_int_equal(file_read("/nonexistent/x", 2, &b), -ENOENT);
	assert_int_equal(file_replace("/nonexistent", "f", STR("x"), 0600), -ENOENT);
}

static void links_are_not_followed(void **state)
{
	_cleanup_free_ char *link = xasprintf("%s/link", (char *)*state);
	_cleanup_free_ char *target = xasprintf("%s/target", (char *)*state);
	_cleanup_free_ char *inner = xasprintf("%s/target/kept", (char *)*state);
	_cleanup_free_ char *victim = xasprintf("%s/victim", (char *)*state);
	_cleanup_free_ char *below = xasprintf("%s/victim/link", (char *)*state);

	assert_int_equal(dir_make(target, 0700, getuid(), getgid()), 0);
	assert_int_equal(file_replace(target, "kept", STR("x"), 0600), 0);
	assert_int_equal(symlink(target, link), 0);
	assert_int_equal(dir_make(link, 0777, getuid(), getgid()), -ENOTDIR);
	assert_int_equal(dir_remove(link), -ENOTDIR);
	assert_int_equal(dir_make(victim, 0700, getuid(), getgid()), 0);
	assert_int_equal(symlink(target, below), 0);
	assert_int_equal(dir_remove(victim), 0);
	assert_int_equal(access(inner, F_OK), 0);
	assert_int_equal(dir_remove(victim), 0); /* nothing there: fine */
}

static void parents_are_made(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/a/b/c", (char *)*state);

	assert_int_equal(dir_make_parents(path), 0);
	assert_int_equal(dir_make_parents(path), 0);
	assert_int_equal(access(path, F_OK), 0);
}

static void sockets_replace_stale_ones(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/s", (char *)*state);
	_cleanup_free_ char *longer = xasprintf("%s/%0120d", (char *)*state, 1);
	struct stat st;

	assert_int_equal(file_replace(*state, "s", STR("stale"), 0600), 0);
	for (int i = 0; i < 2; i++) {
		_cleanup_close_ int listener = -1;
		_cleanup_close_ int client = -1;
		assert_int_equal(unix_listen(path, 0600, &listener), 0);
		assert_int_equal(unix_connect(path, &client), 0);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC);
	}
	int fd;
	assert_int_equal(unix_connect(path, &fd), -ECONNREFUSED);
	assert_int_equal(unix_connect(longer, &fd), -ENAMETOOLONG);
}

static void children_are_told_apart(void **state)
{
	char text[WAIT_TEXT_SIZE];
	int pidfd, status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	assert_int_equal(pidfd_get(pid, &pidfd), 0);
	assert_int_equal(pidfd_reap(pidfd, &status), -EAGAIN);
	assert_int_equal(pidfd_wait(pidfd, 10, &status), -ETIMEDOUT);
	assert_int_equal(pidfd_signal(pidfd, SIGKILL), 0);
	assert_int_equal(pidfd_wait(pidfd, 5000, &status), 0);
	wait_status_format(status, text);
	assert_string_equal(text, "killed by signal 9 (Killed)");
	assert_int_equal(pidfd_signal(pidfd, SIGKILL), 0);
	assert_int_equal(pidfd_reap(pidfd, &status), -ECHILD);
	close(pidfd);

	pid = fork();
	if (pid == 0)
		_exit(3);
	assert_int_equal(pidfd_get(pid, &pidfd), 0);
	assert_int_equal(pidfd_wait(pidfd, 5000, &status), 0);
	wait_status_format(status, text);
	assert_string_equal(text, "exited with status 3");
	close(pidfd);
}

static void on_alarm(int sig)
{
}

/* irond loses a child while it waits for another: that wait is neither over nor late. */
static void a_wait_goes_on_over_signals(void **state)
{
	const struct sigaction handler = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	const struct itimerval every = {.it_interval = {.tv_usec = 2000}, .it_value = {.tv_usec = 2000}};
	const struct itimerval never = {0};
	int ends[2], status;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	sigaction(SIGALRM, &handler, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	uint64_t began = mono_ms();
	assert_int_equal(fd_wait(ends[0], POLLIN, 50), -ETIMEDOUT);
	assert_true(mono_ms() - began >= 50);
	pid_t pid = fork();
	if (pid == 0) {
		poll(NULL, 0, 50);
		_exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
	}
	assert_int_equal(fd_wait(ends[0], POLLIN, 20000), 0);
	int pidfd;
	assert_int_equal(pidfd_get(pid, &pidfd), 0);
	assert_int_equal(pidfd_wait(pidfd, -1, &status), 0);
	setitimer(ITIMER_REAL, &never, NULL);
	close(pidfd);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(replaced_as_a_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(links_are_not_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(parents_are_made, setup, teardown),
		cmocka_unit_test_setup_teardown(sockets_replace_stale_ones, setup, teardown),
		cmocka_unit_test(children_are_told_apart),
		cmocka_unit_test(a_wait_goes_on_over_signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
