#include "broker/log_file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "os/fdutil.h"

static void write_all(int fd, char c, size_t n)
{
	while (n--)
		assert_int_equal(write(fd, &c, 1), 1);
}

/* The size of a file, whose every byte is c; -1: there is none. */
static int size_of(const char *path, unsigned number, char c)
{
	_cleanup_free_ char *name = number ? xasprintf("%s.%u", path, number) : xasprintf("%s", path);
	_cleanup_(buf_finish) struct buf b = {0};

	if (file_read(name, 1 << 20, &b))
		return -1;
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(b.data[i], c);
	return (int)b.len;
}

static void test_it_stays_bounded(void **state)
{
	char dir[] = "/tmp/iron-test-log-XXXXXX";

	assert_non_null(mkdtemp(dir));
	_cleanup_free_ char *path = xasprintf("%s/irond.log", dir);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0640);
	for (unsigned i = 0; i < 6; i++) {
		write_all(fd, (char)('a' + i), 50);
		assert_int_equal(log_file_rotate(path, fd, 100, 3), 0);
		write_all(fd, (char)('a' + i), 60);
		assert_int_equal(log_file_rotate(path, fd, 100, 3), 1);
		assert_int_equal(size_of(path, 0, 0), 0);
	}
	assert_int_equal(size_of(path, 1, 'f'), 110);
	assert_int_equal(size_of(path, 2, 'e'), 110);
	assert_int_equal(size_of(path, 3, 'd'), 110);
	assert_int_equal(size_of(path, 4, 0), -1);
	/* one that nobody looked after for long keeps its end */
	write_all(fd, 'x', 500);
	write_all(fd, 'y', 100);
	assert_int_equal(log_file_rotate(path, fd, 100, 3), 1);
	assert_int_equal(size_of(path, 1, 'y'), 100);
	/* a link, or another file by that name, is left alone */
	_cleanup_free_ char *other = xasprintf("%s/other", dir);
	assert_int_equal(rename(path, other), 0);
	write_all(fd, 'z', 200);
	assert_int_equal(symlink(other, path), 0);
	assert_int_equal(log_file_rotate(path, fd, 100, 3), 0);
	assert_int_equal(size_of(other, 0, 'z'), 200);
	assert_int_equal(dir_remove(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_it_stays_bounded)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
