/* What irond keeps of a VM, and who runs as whom. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/buf.h"
#include "broker/state.h"
#include "broker/uids.h"
#include "os/fdutil.h"

static int setup(void **state)
{
	char *dir = xstrdup("/tmp/iron-test-state-XXXXXX");

	assert_non_null(mkdtemp(dir));
	*state = dir;
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(dir_remove(*state), 0);
	free(*state);
	return 0;
}

static const struct vm_record example = {.vm = 0x7123456789abcdef,
					 .workspace = 1,
					 .image = 0x7fffffffffffffff,
					 .slot = 16383,
					 .vcpus = 32,
					 .memory_mib = 262144,
					 .disk_gib = 2048,
					 .prepared = true};

static void a_record_comes_back(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/vm.json", (char *)*state);
	struct vm_record v = {0};
	struct error e = {0};
	struct stat st;

	assert_int_equal(vm_record_read(*state, &v, &e), -ENOENT);
	assert_int_equal(vm_record_write(*state, &example, &e), 0);
	assert_int_equal(vm_record_write(*state, &example, &e), 0);
	assert_int_equal(vm_record_read(*state, &v, &e), 0);
	assert_memory_equal(&v, &example, sizeof v);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void what_is_not_a_record_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"{}",
		"[1]",
		"{\"format\": 1}",
		"{\"format\": 2, \"vm\": \"vm_0000000000001\", \"workspace\": \"ws_0000000000001\", \"image\": "
		"\"img_0000000000001\","
		" \"slot\": 1, \"vcpus\": 1, \"memory_mib\": 1, \"disk_gib\": 1}",
		"{\"format\": 1, \"vm\": \"vm_0000000000001\", \"workspace\": \"ws_0000000000001\", \"image\": "
		"\"img_0000000000001\","
		" \"slot\": -1, \"vcpus\": 1, \"memory_mib\": 1, \"disk_gib\": 1}",
		"{\"format\": 1, \"vm\": \"../../etc\", \"workspace\": \"ws_0000000000001\", \"image\": "
		"\"img_0000000000001\","
		" \"slot\": 1, \"vcpus\": 1, \"memory_mib\": 1, \"disk_gib\": 1}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vm_record v;
		struct error e = {0};
		assert_int_equal(file_replace(*state, "vm.json", str_of(bad[i]), 0600), 0);
		assert_int_equal(vm_record_read(*state, &v, &e), -EINVAL);
		assert_non_null(strstr(e.text, "vm.json"));
	}
}

/* --- uids --- */

/* Users of every Debian, for those of iron's that may not be there yet. */
static const char *const users[] = {"nobody", "daemon", "bin", "sys"};

static struct uids *uids_of(uid_t base, const char *etc, int expected, const char *words)
{
	struct uids *u = NULL;
	struct error e = {0};
	int r = uids_create(base, etc, users, &u, &e);

	assert_int_equal(r, expected);
	if (words)
		assert_non_null(strstr(e.text, words));
	return u;
}

static void slots_are_given_once(void **state)
{
	struct uids *u = uids_of(3000000, *state, 0, NULL);
	uint32_t a, b, c;

	assert_int_equal(uids_vm_claim(u, 0), 0);
	assert_int_equal(uids_vm_claim(u, 0), -EEXIST);
	assert_int_equal(uids_vm_claim(u, UIDS_VMS), -ERANGE);
	assert_int_equal(uids_vm_take(u, &a), 0);
	assert_int_equal(uids_vm_take(u, &b), 0);
	assert_int_equal(a, 1);
	assert_int_equal(b, 2);
	uids_vm_release(u, a);
	/* a number that was just given up rests */
	assert_int_equal(uids_vm_take(u, &c), 0);
	assert_int_equal(c, 3);
	assert_int_equal(uids_worker(u, 7), 3000007);
	assert_int_equal(uids_vm(u, 3), 3000000 + 4096 + 6);
	assert_int_equal(uids_qemu(u, 3), 3000000 + 4096 + 7);
	assert_int_equal(uids_qemu(u, UIDS_VMS - 1), 3000000 + UIDS_TOTAL - 1);
	uids_destroy(u);
}

static void slots_run_out(void **state)
{
	struct uids *u = uids_of(3000000, *state, 0, NULL);
	uint32_t s;

	for (uint32_t i = 0; i < UIDS_WORKERS; i++)
		assert_int_equal(uids_worker_take(u, &s), 0);
	assert_int_equal(uids_worker_take(u, &s), -ENOSPC);
	uids_worker_release(u, 17);
	assert_int_equal(uids_worker_take(u, &s), 0);
	assert_int_equal(s, 17);
	uids_destroy(u);
}

static void a_range_that_somebody_has_is_refused(void **state)
{
	assert_int_equal(file_replace(*state, "subuid", STR("nonsense\nlxd:100000:65536\nme:3036863:1\n"), 0644), 0);
	uids_of(3000000, *state, -EADDRINUSE, "subuid:3 gives ids of the range of 36864 to 'me'");
	uids_destroy(uids_of(3036864, *state, 0, NULL));
	uids_of(65000, *state, -EADDRINUSE, "nobody"); /* 65534 */
	uids_of(150000, *state, -EADDRINUSE, "subuid:2");
}

static void a_missing_user_is_named_with_what_helps(void **state)
{
	static const char *const missing[] = {"daemon", "iron-nobody", "bin", "sys"};
	struct uids *u = NULL;
	struct error e = {0};

	assert_int_equal(uids_create(3000000, *state, missing, &u, &e), -ENOENT);
	assert_non_null(strstr(e.text, "useradd --system"));
	assert_non_null(strstr(e.text, "iron-nobody"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_record_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_a_record_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(slots_are_given_once, setup, teardown),
		cmocka_unit_test_setup_teardown(slots_run_out, setup, teardown),
		cmocka_unit_test_setup_teardown(a_missing_user_is_named_with_what_helps, setup, teardown),
		cmocka_unit_test_setup_teardown(a_range_that_somebody_has_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
