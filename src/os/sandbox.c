#include "os/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "os/sandbox_impl.h"

/* The order matters: the Landlock rules are prepared while the paths can still be opened; the identity goes before
 * no_new_privs only so that a failure is told apart; the filter is last since it forbids all of the rest. */

void sandbox_probe(struct sandbox_report *ret)
{
	*ret = (struct sandbox_report){.landlock_abi = landlock_abi(), .seccomp = seccomp_available()};
}

/* Landlock and seccomp hold for the calling thread and its children only. */
static int check_one_thread(struct error *reterr)
{
	struct stat st;

	if (stat("/proc/self/task", &st) == 0 && st.st_nlink > 3)
		return error_set(reterr, -EBUSY, "sandbox: entered with %lu threads", (unsigned long)st.st_nlink - 2);
	return 0;
}

static int check_walls(const struct sandbox_report *r, bool degraded, struct error *reterr)
{
	if (degraded)
		return 0;
	if (r->landlock_abi < 1)
		return error_set(reterr, -ENOSYS,
				 "this kernel has no Landlock (lsm=landlock on its command line, 5.13 or later); "
				 "`sandbox: degraded` in iron.yaml starts without it");
	if (!r->seccomp)
		return error_set(reterr, -ENOSYS,
				 "this kernel has no seccomp filters; `sandbox: degraded` starts without");
	return 0;
}

static int drop_identity(uid_t uid, gid_t gid, struct error *reterr)
{
	uid_t u[3];
	gid_t g[3];

	if (uid == 0 && gid == 0)
		return 0;
	if (uid == 0 || gid == 0)
		return error_set(reterr, -EINVAL, "sandbox: uid %u with gid %u", uid, gid);
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return error_set(reterr, -errno, "sandbox: becoming uid %u: %s", uid, strerror(errno));
	if (getresuid(&u[0], &u[1], &u[2]) < 0 || getresgid(&g[0], &g[1], &g[2]) < 0)
		return error_set(reterr, -errno, "sandbox: reading back the identity: %s", strerror(errno));
	for (int i = 0; i < 3; i++)
		if (u[i] != uid || g[i] != gid)
			return error_set(reterr, -EPERM, "sandbox: the identity did not change to %u:%u", uid, gid);
	if (setuid(0) == 0)
		return error_set(reterr, -EPERM, "sandbox: uid %u could become root again", uid);
	return 0;
}

static int set_limit(__rlimit_resource_t resource, rlim_t want, struct error *reterr)
{
	struct rlimit now;

	if (getrlimit(resource, &now) < 0)
		return error_set(reterr, -errno, "sandbox: getrlimit: %s", strerror(errno));
	/* Raising a hard limit takes a capability that containers lack. */
	rlim_t value = MIN(want, now.rlim_max);
	if (setrlimit(resource, &(struct rlimit){.rlim_cur = value, .rlim_max = value}) < 0)
		return error_set(reterr, -errno, "sandbox: setrlimit: %s", strerror(errno));
	return 0;
}

static bool makes_threads(const struct sandbox *s)
{
	for (const char *const *n = s->syscalls; n && *n; n++)
		if (strcmp(*n, "clone") == 0)
			return true;
	return false;
}

static int set_limits(const struct sandbox *s, struct error *reterr)
{
	int r;

	if ((r = set_limit(RLIMIT_CORE, 0, reterr)) < 0 || (r = set_limit(RLIMIT_MEMLOCK, 0, reterr)) < 0 ||
	    (r = set_limit(RLIMIT_NOFILE, s->max_files ? s->max_files : 1024, reterr)) < 0)
		return r;
	if (!s->may_exec && (r = set_limit(RLIMIT_NPROC, makes_threads(s) ? 64 : 0, reterr)) < 0)
		return r;
	if (s->max_memory_mib && !SANDBOX_SANITIZED &&
	    (r = set_limit(RLIMIT_DATA, (rlim_t)s->max_memory_mib << 20, reterr)) < 0)
		return r;
	return 0;
}

static int close_privileges(struct error *reterr)
{
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_set(reterr, -errno, "sandbox: prctl: %s", strerror(errno));
	return 0;
}

int sandbox_enter(const struct sandbox *s, uid_t uid, gid_t gid, const struct sandbox_path *paths, bool degraded,
		  struct sandbox_report *ret_report, struct error *reterr)
{
	_cleanup_close_ int ruleset = -1;
	struct sandbox_report report;
	int r;

	sandbox_probe(&report);
	if ((r = check_one_thread(reterr)) < 0 || (r = check_walls(&report, degraded, reterr)) < 0)
		return r;
	if (report.landlock_abi > 0 && (r = landlock_prepare(report.landlock_abi, s, paths, &ruleset, reterr)) < 0)
		return r;
	if ((r = drop_identity(uid, gid, reterr)) < 0 || (r = set_limits(s, reterr)) < 0 ||
	    (r = close_privileges(reterr)) < 0)
		return r;
	if (ruleset >= 0 && (r = landlock_enter(ruleset, reterr)) < 0)
		return r;
	if (ruleset >= 0)
		close(take_fd(ruleset));
	if (report.seccomp && (r = seccomp_enter(s, reterr)) < 0)
		return r;
	if (ret_report)
		*ret_report = report;
	return 0;
}
