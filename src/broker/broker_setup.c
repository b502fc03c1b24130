#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/broker_impl.h"
#include "os/fdutil.h"

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

/* The pid file is the lock: held as long as the process lives, however it ends. */
static int take_lock(struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/irond.pid", b->conf->run_dir);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	char text[16] = "";

	if (fd < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (read(fd, text, sizeof text - 1) < 0)
			text[0] = '\0';
		return error_set(reterr, -EBUSY, "irond runs already (pid %.*s)", (int)strcspn(text, "\n"), text);
	}
	snprintf(text, sizeof text, "%d\n", getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, strlen(text), 0) < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	b->lock_fd = take_fd(fd);
	return 0;
}

/* run_dir/vms: pinned namespaces, sockets, name tables of VMs that an irond before this one had. */
static int clean_run_dir(const struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/vms", b->conf->run_dir);
	DIR *d = opendir(path);
	struct dirent *e;
	int r;

	while (d && (e = readdir(d))) {
		_cleanup_free_ char *pin = xasprintf("%s/%s/net", path, e->d_name);
		if (e->d_name[0] != '.')
			vm_net_unpin(pin);
	}
	if (d)
		closedir(d);
	if ((r = dir_remove(path)) < 0 || (r = dir_make(path, 0700, 0, 0)) < 0)
		return error_set(reterr, r, "%s: %s; is something mounted below it?", path, strerror(-r));
	return 0;
}

static int setup_cgroups(struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *root = xasprintf("%s/%s", b->conf->cgroup_root, b->conf->instance);
	unsigned killed = 0;
	int r = cgroup_host_create(NULL, root, &b->cgroups, reterr);

	if (r == 0)
		r = cgroup_sweep(b->cgroups, &killed, reterr);
	if (r == 0 && killed > 0)
		log_warn("ended what an earlier irond left running", "groups=%u", killed);
	return r;
}

int broker_setup_host(struct broker *b, struct error *reterr)
{
	int r;

	if ((r = make_base_dirs(b, reterr)) < 0 || (r = take_lock(b, reterr)) < 0 ||
	    (r = uids_create(b->conf->uid_base, "/etc", NULL, &b->uids, reterr)) < 0 ||
	    (r = make_state_dirs(b, reterr)) < 0 || (r = setup_cgroups(b, reterr)) < 0)
		return r;
	return clean_run_dir(b, reterr);
}
