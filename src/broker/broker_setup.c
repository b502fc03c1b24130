#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/broker_impl.h"
#include "broker/vms.h"
#include "broker/workspaces.h"
#include "os/fdutil.h"

#define LOCK_WAIT_MS 5000
#define LOCK_AGAIN_MS 10

static int make_dir(const char *base, const char *name, mode_t mode, uid_t uid, gid_t gid, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", base, name);
	int r = dir_make(path, mode, uid, gid);

	return r < 0 ? error_set(reterr, r, "%s: %s", path, strerror(-r)) : 0;
}

static int make_state_dirs(const struct broker *b, struct error *reterr)
{
	const char *s = b->conf->state_dir;
	uid_t uid;
	gid_t gid;
	int r;

	uids_role(b->uids, ROLE_CONTROL, &uid, &gid);
	if ((r = make_dir(s, "db", 0700, uid, gid, reterr)) < 0)
		return r;
	uids_role(b->uids, ROLE_AUDIT, &uid, &gid);
	if ((r = make_dir(s, "audit", 0700, uid, gid, reterr)) < 0 ||
	    (r = make_dir(s, "images", 0755, 0, 0, reterr)) < 0 || (r = make_dir(s, "vms", 0700, 0, 0, reterr)) < 0 ||
	    (r = make_dir(s, "tls", 0700, 0, 0, reterr)) < 0)
		return r;
	return make_dir(s, "log", 0750, 0, 0, reterr);
}

static int make_base_dirs(const struct broker *b, struct error *reterr)
{
	const char *const dirs[] = {b->conf->state_dir, b->conf->run_dir};

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int r = dir_make_parents(dirs[i]);
		if (r == 0)
			r = dir_make(dirs[i], 0755, 0, 0);
		if (r < 0)
			return error_set(reterr, r, "%s: %s", dirs[i], strerror(-r));
	}
	return 0;
}

/* Of an irond that was killed, a child that it had forked just then holds the lock until it is something else. */
static int lock_file(int fd, char *text, size_t size)
{
	const uint64_t end = mono_ms() + LOCK_WAIT_MS;

	for (;;) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		ssize_t n = pread(fd, text, size - 1, 0);
		text[MAX(n, 0)] = '\0';
		text[strcspn(text, "\n")] = '\0';
		uint64_t pid = 0;
		bool gone = str_parse_u64(str_of(text), INT32_MAX, &pid) == 0 && pid > 0 &&
			    kill((pid_t)pid, 0) < 0 && errno == ESRCH;
		if (!gone || mono_ms() >= end)
			return -EBUSY;
		poll(NULL, 0, LOCK_AGAIN_MS);
	}
}

/* The pid file is the lock: held as long as the process lives, however it ends. */
static int take_lock(struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/irond.pid", b->conf->run_dir);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	char text[16] = "";

	if (fd < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (lock_file(fd, text, sizeof text) < 0)
		return error_set(reterr, -EBUSY, "irond runs already (pid %s)", text);
	snprintf(text, sizeof text, "%d\n", getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, strlen(text), 0) < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	b->lock_fd = take_fd(fd);
	return 0;
}

/* run_dir/vms: what belongs to a VM that runs; run_dir/roles: how the next irond finds those that outlive this one. */
static int make_run_dirs(const struct broker *b, struct error *reterr)
{
	int r = make_dir(b->conf->run_dir, "vms", 0700, 0, 0, reterr);

	return r < 0 ? r : make_dir(b->conf->run_dir, "roles", 0700, 0, 0, reterr);
}

static int setup_cgroups(struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *root = xasprintf("%s/%s", b->conf->cgroup_root, b->conf->instance);

	return cgroup_host_create(NULL, root, &b->cgroups, reterr);
}

static bool is_known_group(const char *name, void *user)
{
	const struct broker *b = user;

	return vms_have_group(b, name) || workspaces_have_file(b, name) || broker_has_role_group(b, name);
}

static bool is_known_file(const char *file, void *user)
{
	const struct broker *b = user;

	return vms_have_file(b, file) || workspaces_have_file(b, file) || broker_has_role_file(b, file);
}

int broker_adopt(struct broker *b, struct error *reterr)
{
	unsigned killed = 0;
	int r;

	workspaces_adopt(b);
	if ((r = vms_adopt(b, reterr)) < 0 || (r = broker_make_roles(b, reterr)) < 0)
		return r;
	roles_sweep(b->conf->run_dir, is_known_file, b);
	if ((r = cgroup_sweep(b->cgroups, is_known_group, b, &killed, reterr)) < 0)
		return r;
	if (killed > 0)
		log_warn("ended what an earlier irond left running", "groups=%u", killed);
	b->leave = false;
	if (vms_running(b) > 0)
		broker_progress(b, "adopted %u VM%s", vms_running(b), vms_running(b) == 1 ? "" : "s");
	return 0;
}

int broker_setup_host(struct broker *b, struct error *reterr)
{
	int r;

	if ((r = make_base_dirs(b, reterr)) < 0 || (r = take_lock(b, reterr)) < 0 ||
	    (r = uids_create(b->conf->uid_base, "/etc", NULL, &b->uids, reterr)) < 0 ||
	    (r = make_state_dirs(b, reterr)) < 0 || (r = setup_cgroups(b, reterr)) < 0)
		return r;
	return make_run_dirs(b, reterr);
}
