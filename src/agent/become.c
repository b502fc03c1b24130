#include "agent/become.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/file.h"

static void reset_signals(void)
{
	sigset_t none;

	for (int n = 1; n < NSIG; n++)
		signal(n, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int become_child(const char *cgroup)
{
	setsid();
	reset_signals();
	umask(022);
	if (cgroup) {
		_cleanup_free_ char *procs = xasprintf("%s/cgroup.procs", cgroup);
		int r = file_poke(procs, "0");
		if (r)
			return r;
	}
	/* The agent is spared; what it runs is not. It may lack the file. */
	file_poke("/proc/self/oom_score_adj", "0");
	return 0;
}

int become_user(const struct user *u)
{
	if (geteuid() != 0 && geteuid() == u->uid)
		return 0;
	return setgroups(u->ngroups, u->groups) || setresgid(u->gid, u->gid, u->gid) ||
			       setresuid(u->uid, u->uid, u->uid) ?
		       -errno :
		       0;
}
