#include "broker/orphans.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/str.h"
#include "base/vec.h"
#include "broker/cgroup.h"
#include "broker/roles.h"
#include "broker/run_record.h"
#include "broker/vmhost.h"
#include "broker/vms.h"
#include "os/fdutil.h"

#define ASK_TIMEOUT_MS 2000

typedef void each_vm(const char *name, int pidfd, void *user);

/* pidfd: the callback's own. */
static void each_running(const struct conf *conf, each_vm *fn, void *user)
{
	_cleanup_free_ char *path = xasprintf("%s/vms", conf->run_dir);
	DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", path, e->d_name);
		struct run_record record;
		int pidfd;
		if (e->d_name[0] != '.' && run_record_read(dir, VM_RUN_RECORD, &record) == 0 &&
		    run_record_open(&record, &pidfd) == 0)
			fn(e->d_name, pidfd, user);
	}
	if (d)
		closedir(d);
}

static void count(const char *name, int pidfd, void *user)
{
	close(pidfd);
	(*(unsigned *)user)++;
}

unsigned orphans_count(const struct conf *conf)
{
	unsigned n = 0;

	each_running(conf, count, &n);
	return n;
}

/* --- their end --- */

struct ending {
	const struct conf *conf;
	VEC(int) pidfds;
};

static void power_off(const char *name, int pidfd, void *user)
{
	struct ending *e = user;
	_cleanup_free_ char *file = xasprintf("vm-%s", name);
	struct msg_vm_shutdown m = {.deadline_ms = e->conf->limits.stop_timeout_s * 1000};
	uint64_t value;

	VEC_PUSH(&e->pidfds, pidfd);
	if (id_parse("vm_", str_of(name), &m.vm) == 0)
		role_ask_orphan(e->conf->run_dir, file, MSG_TYPE_msg_vm_shutdown, &m, ASK_TIMEOUT_MS, &value);
}

static void power_all_off(const struct conf *conf)
{
	struct ending e = {.conf = conf};
	uint64_t end = mono_ms() + (uint64_t)conf->limits.stop_timeout_s * 1000;

	each_running(conf, power_off, &e);
	for (size_t i = 0; i < e.pidfds.n; i++) {
		uint64_t now = mono_ms();
		fd_wait(e.pidfds.v[i], POLLIN, now < end ? (int)(end - now) : 0);
		close(e.pidfds.v[i]);
	}
	VEC_FINISH(&e.pidfds);
}

static int remove_run_files(const struct conf *conf, struct error *reterr)
{
	static const char *const names[] = {"vms", "roles"};
	_cleanup_free_ char *vms = xasprintf("%s/vms", conf->run_dir);
	_cleanup_free_ char *socket = xasprintf("%s/irond.sock", conf->run_dir);
	DIR *d = opendir(vms);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		_cleanup_free_ char *pin = xasprintf("%s/%s/net", vms, e->d_name);
		if (e->d_name[0] != '.')
			vm_net_unpin(pin);
	}
	if (d)
		closedir(d);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", conf->run_dir, names[i]);
		int r = dir_remove(path);
		if (r < 0)
			return error_set(reterr, r, "%s: %s; is something mounted below it?", path, strerror(-r));
	}
	unlink(socket);
	return 0;
}

static bool none_is_known(const char *file, void *user)
{
	return false;
}

static int sweep(const struct conf *conf, struct error *reterr)
{
	_cleanup_free_ char *root = xasprintf("%s/%s", conf->cgroup_root, conf->instance);
	struct cgroup_host *cgroups;
	unsigned killed;
	int r = cgroup_host_create(NULL, root, &cgroups, reterr);

	if (r < 0)
		return r;
	r = cgroup_sweep(cgroups, NULL, NULL, &killed, reterr);
	cgroup_host_remove(cgroups);
	cgroup_host_destroy(cgroups);
	roles_sweep(conf->run_dir, none_is_known, NULL);
	nft_host_remove(conf->instance);
	return r < 0 ? r : remove_run_files(conf, reterr);
}

int orphans_end(const struct conf *conf, void (*print)(const char *line, void *user), void *user, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/irond.pid", conf->run_dir);
	_cleanup_close_ int lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	unsigned n = orphans_count(conf);
	char line[120];

	if (lock < 0) /* no irond has ever run here, or the host has booted since */
		return errno == ENOENT ? 0 : error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (flock(lock, LOCK_EX | LOCK_NB) < 0)
		return error_set(reterr, -EBUSY, "irond is starting or ending; try again");
	if (n > 0) {
		snprintf(line, sizeof line, "stopping %u VM%s that an earlier irond left, at most %u s", n, n == 1 ? "" : "s",
			 conf->limits.stop_timeout_s);
		print(line, user);
		power_all_off(conf);
	}
	return sweep(conf, reterr);
}
