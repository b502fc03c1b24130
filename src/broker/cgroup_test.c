/* v2 against a tree of plain files that looks like one; v1 for real, or v2 where a host has it, in
 * tests/test_core_vms.py. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/buf.h"
#include "broker/cgroup.h"
#include "os/fdutil.h"

struct tree {
	char dir[64], mountinfo[96];
};

static void put(const struct tree *t, const char *path, const char *text)
{
	_cleanup_free_ char *full = xasprintf("%s/%s", t->dir, path);
	_cleanup_fclose_ FILE *f = fopen(full, "w");

	assert_non_null(f);
	fputs(text, f);
}

static void add_dir(const struct tree *t, const char *path)
{
	_cleanup_free_ char *full = xasprintf("%s/%s", t->dir, path);

	assert_int_equal(dir_make_parents(full), 0);
}

static void expect(const struct tree *t, const char *path, const char *text)
{
	_cleanup_free_ char *full = xasprintf("%s/%s", t->dir, path);
	_cleanup_(buf_finish) struct buf b = {0};

	assert_int_equal(file_read(full, 4096, &b), 0);
	assert_int_equal(b.len, strlen(text));
	assert_memory_equal(b.data, text, b.len);
}

/* The files that the kernel would make with a group. */
static void add_group(const struct tree *t, const char *path, bool with_kill)
{
	static const char *const files[] = {"cgroup.procs", "cgroup.freeze", "memory.max", "memory.swap.max", "cpu.max",
					    "cpu.weight",   "pids.max",      "memory.events", "cgroup.events"};
	char name[128];

	add_dir(t, path);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(name, sizeof name, "%s/%s", path, files[i]);
		put(t, name, "");
	}
	snprintf(name, sizeof name, "%s/cgroup.kill", path);
	if (with_kill)
		put(t, name, "");
}

static int setup(void **state)
{
	struct tree *t = xcalloc(1, sizeof *t);

	snprintf(t->dir, sizeof t->dir, "/tmp/iron-test-cgroup-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	add_dir(t, "v2/iron/one");
	put(t, "v2/cgroup.controllers", "cpuset cpu io memory pids\n");
	put(t, "v2/cgroup.subtree_control", "");
	put(t, "v2/iron/cgroup.subtree_control", "");
	put(t, "v2/iron/one/cgroup.subtree_control", "");
	snprintf(t->mountinfo, sizeof t->mountinfo, "%s/mountinfo", t->dir);
	char line[256];
	snprintf(line, sizeof line,
		 "22 1 0:20 / /proc rw - proc proc rw\n29 1 0:26 / %s/v2 rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
		 t->dir);
	put(t, "mountinfo", line);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct tree *t = *state;

	assert_int_equal(dir_remove(t->dir), 0);
	free(t);
	return 0;
}

static struct cgroup_host *host_of(const struct tree *t)
{
	struct cgroup_host *h = NULL;
	struct error e = {0};

	if (cgroup_host_create(t->mountinfo, "iron/one", &h, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(cgroup_version(h), 2);
	return h;
}

static void controllers_are_passed_on(void **state)
{
	struct tree *t = *state;
	struct cgroup_host *h = host_of(t);

	expect(t, "v2/cgroup.subtree_control", "+memory +cpu +pids");
	expect(t, "v2/iron/cgroup.subtree_control", "+memory +cpu +pids");
	expect(t, "v2/iron/one/cgroup.subtree_control", "+memory +cpu +pids");
	cgroup_host_destroy(h);
}

static void limits_are_written(void **state)
{
	const struct cgroup_limits limits = {.memory_bytes = 436207616, .cpu_percent = 200, .pids = 128, .cpu_weight = 400};
	struct tree *t = *state;
	struct cgroup_host *h = host_of(t);
	struct cgroup *g;
	struct error e = {0};
	size_t n;

	add_group(t, "v2/iron/one/qemu-vm_x", true);
	assert_int_equal(cgroup_create(h, "qemu-vm_x", &limits, &g, &e), 0);
	expect(t, "v2/iron/one/qemu-vm_x/memory.max", "436207616");
	expect(t, "v2/iron/one/qemu-vm_x/memory.swap.max", "0");
	expect(t, "v2/iron/one/qemu-vm_x/cpu.max", "200000 100000");
	expect(t, "v2/iron/one/qemu-vm_x/cpu.weight", "400");
	expect(t, "v2/iron/one/qemu-vm_x/pids.max", "128");
	const int *fds = cgroup_procs(g, &n);
	assert_int_equal(n, 1);
	assert_true(fds[0] >= 0 && (fcntl(fds[0], F_GETFD) & FD_CLOEXEC));
	cgroup_destroy(g);
	cgroup_host_destroy(h);
}

static void killing_and_running_out_of_memory(void **state)
{
	struct tree *t = *state;
	struct cgroup_host *h = host_of(t);
	struct cgroup *g;
	struct error e = {0};

	add_group(t, "v2/iron/one/g", true);
	assert_int_equal(cgroup_create(h, "g", &(struct cgroup_limits){0}, &g, &e), 0);
	expect(t, "v2/iron/one/g/memory.max", "");
	assert_int_equal(cgroup_oom_kills(g), 0);
	put(t, "v2/iron/one/g/memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n");
	assert_int_equal(cgroup_oom_kills(g), 3);
	assert_int_equal(cgroup_kill(g), 0);
	expect(t, "v2/iron/one/g/cgroup.kill", "1");
	cgroup_destroy(g);
	cgroup_host_destroy(h);
}

/* Before 5.14 there is no cgroup.kill: frozen, killed one by one, thawed. */
static void killing_without_cgroup_kill(void **state)
{
	struct tree *t = *state;
	struct cgroup_host *h = host_of(t);
	struct cgroup *g;
	struct error e = {0};
	char pid_text[32];
	int status;

	add_group(t, "v2/iron/one/g", false);
	assert_int_equal(cgroup_create(h, "g", &(struct cgroup_limits){0}, &g, &e), 0);
	assert_true(cgroup_is_empty(g));
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	/* 0 is what a process of another pid namespace reads as: it must not become kill(0). */
	snprintf(pid_text, sizeof pid_text, "0\n%d\n", pid);
	put(t, "v2/iron/one/g/cgroup.procs", pid_text);
	assert_false(cgroup_is_empty(g));
	assert_int_equal(cgroup_kill(g), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	expect(t, "v2/iron/one/g/cgroup.freeze", "0");
	cgroup_destroy(g);
	cgroup_host_destroy(h);
}

static void freezing_waits_until_all_of_it_stands(void **state)
{
	struct tree *t = *state;
	struct cgroup_host *h = host_of(t);
	struct cgroup *g;
	struct error e = {0};

	add_group(t, "v2/iron/one/g", true);
	assert_int_equal(cgroup_create(h, "g", &(struct cgroup_limits){0}, &g, &e), 0);
	expect(t, "v2/iron/one/g/cpu.weight", "");
	put(t, "v2/iron/one/g/cgroup.events", "populated 1\nfrozen 1\n");
	assert_int_equal(cgroup_freeze(g, 1000), 0);
	expect(t, "v2/iron/one/g/cgroup.freeze", "1");
	assert_int_equal(cgroup_thaw(g), 0);
	expect(t, "v2/iron/one/g/cgroup.freeze", "0");
	/* what does not stand in time runs again */
	put(t, "v2/iron/one/g/cgroup.events", "populated 1\nfrozen 0\n");
	assert_int_equal(cgroup_freeze(g, 20), -ETIMEDOUT);
	assert_false(cgroup_is_frozen(g));
	expect(t, "v2/iron/one/g/cgroup.freeze", "0");
	cgroup_destroy(g);
	cgroup_host_destroy(h);
}

/* The hierarchies of this host, whatever their version: a busy child's CPU time stands still while it is frozen. */
static uint64_t cpu_ticks(pid_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/stat", pid);
	_cleanup_(buf_finish) struct buf b = {0};
	unsigned long user, system;

	assert_int_equal(file_read(path, 4096, &b), 0);
	buf_append_byte(&b, '\0');
	const char *after = strrchr((const char *)b.data, ')');
	assert_int_equal(sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
	return user + system;
}

static pid_t spinner_start(const struct cgroup *g)
{
	size_t n;
	const int *fds = cgroup_procs(g, &n);
	pid_t pid = fork();

	if (pid == 0) {
		for (size_t i = 0; i < n; i++)
			if (write(fds[i], "0", 1) != 1)
				_exit(1);
		for (;;)
			;
	}
	return pid;
}

static void freezing_for_real(void **state)
{
	struct cgroup_host *h;
	struct cgroup *g;
	struct error e = {0};
	_cleanup_free_ char *root = xasprintf("iron-test-%d", getpid());
	int status;

	if (geteuid() != 0)
		skip();
	if (cgroup_host_create(NULL, root, &h, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(cgroup_create(h, "g", &(struct cgroup_limits){.cpu_percent = 50, .cpu_weight = 10}, &g, &e), 0);
	pid_t pid = spinner_start(g);
	while (cpu_ticks(pid) < 2)
		usleep(1000);
	assert_int_equal(cgroup_freeze(g, 5000), 0);
	assert_true(cgroup_is_frozen(g));
	const uint64_t before = cpu_ticks(pid);
	usleep(100000); /* ten ticks of a process that runs */
	assert_int_equal(cpu_ticks(pid), before);
	assert_int_equal(cgroup_thaw(g), 0);
	while (cpu_ticks(pid) == before)
		usleep(1000);
	/* frozen, it is killed all the same */
	assert_int_equal(cgroup_freeze(g, 5000), 0);
	assert_int_equal(cgroup_kill(g), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	while (cgroup_remove(g) == -EBUSY)
		usleep(1000);
	cgroup_destroy(g);
	cgroup_host_remove(h);
	cgroup_host_destroy(h);
}

static void empty_groups_are_removed_upwards(void **state)
{
	struct tree *t = *state;
	struct cgroup_host *h;
	struct error e = {0};
	_cleanup_free_ char *mine = xasprintf("%s/v2/iron/two", t->dir);
	_cleanup_free_ char *above = xasprintf("%s/v2/iron", t->dir);
	_cleanup_free_ char *control = xasprintf("%s/v2/iron/two/cgroup.subtree_control", t->dir);

	add_dir(t, "v2/iron/two");
	put(t, "v2/iron/two/cgroup.subtree_control", "");
	assert_int_equal(cgroup_host_create(t->mountinfo, "iron/two", &h, &e), 0);
	assert_int_equal(unlink(control), 0); /* which the kernel does with the group */
	cgroup_host_remove(h);
	assert_int_equal(access(mine, F_OK), -1);
	assert_int_equal(access(above, F_OK), 0); /* another instance's is below it */
	cgroup_host_destroy(h);
}

static void a_host_without_controllers_is_refused(void **state)
{
	struct tree *t = *state;
	struct cgroup_host *h = NULL;
	struct error e = {0};

	put(t, "v2/cgroup.controllers", "cpuset\n");
	assert_int_equal(cgroup_host_create(t->mountinfo, "iron", &h, &e), -ENOENT);
	assert_non_null(strstr(e.text, "'memory'"));
	assert_null(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(controllers_are_passed_on, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_are_written, setup, teardown),
		cmocka_unit_test_setup_teardown(killing_and_running_out_of_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(killing_without_cgroup_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(freezing_waits_until_all_of_it_stands, setup, teardown),
		cmocka_unit_test(freezing_for_real),
		cmocka_unit_test_setup_teardown(empty_groups_are_removed_upwards, setup, teardown),
		cmocka_unit_test_setup_teardown(a_host_without_controllers_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
