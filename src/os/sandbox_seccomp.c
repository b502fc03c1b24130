/* The system calls of a role. Default: the process is killed, since a call outside the list is a bug or a taken
 * process. Calls whose danger lies in an argument are allowed by that argument: socket by family, mmap and mprotect
 * without PROT_EXEC, clone for threads, tgkill to oneself, prlimit64 to read. seccomp(2), seccomp_rule_add(3). */
#include <errno.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "os/sandbox_impl.h"

/* What a libevent loop with channels, timers, an allocator and a logger needs. Nothing here opens or names anything. */
static const char *const common[] = {
	"accept4", "brk", "clock_getres", "clock_gettime", "clock_nanosleep", "close", "dup", "dup3", "epoll_create1",
	"epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "exit", "exit_group", "fcntl", "fstat",
	"futex", "getegid", "geteuid", "getgid", "getpeername", "getpid", "getppid", "getrandom", "getsockname",
	"getsockopt", "gettid", "gettimeofday", "getuid", "lseek", "madvise", "membarrier", "mremap", "munmap",
	"nanosleep", "pipe2", "poll", "ppoll", "pread64", "preadv", "pselect6", "pwrite64", "pwritev", "read", "readv",
	"recvfrom", "recvmmsg", "recvmsg", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
	"sched_getaffinity", "sched_yield", "select", "sendmmsg", "sendmsg", "sendto", "set_robust_list", "setsockopt",
	"shutdown", "sigaltstack", "sysinfo", "time", "timerfd_create", "timerfd_settime", "timerfd_gettime", "uname",
	"write", "writev", NULL,
};

/* Refused with EPERM unless a role names them: libraries try these on their own account and cope with a refusal. */
static const char *const refused[] = {
	"access", "faccessat", "faccessat2", "getcwd", "ioctl", "lstat", "mlock", "mlock2", "newfstatat", "open",
	"openat", "prlimit64", "readlink", "readlinkat", "sched_setaffinity", "setpriority", "setrlimit", "stat",
	"statx", NULL,
};

/* For a role that may start programs. The programs run under the same filter. */
static const char *const exec_set[] = {
	"execve", "execveat", "fork", "vfork", "wait4", "waitid", "kill", "setpgid", "getpgrp", "getpgid", "setsid",
	"dup2", "pipe", "chdir", "fchdir", "umask", "arch_prctl", "set_tid_address", "getcwd", "access", "faccessat2",
	"open", "openat", "stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "getdents64", NULL,
};

#define NEW_NAMESPACES                                                                                                 \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

bool seccomp_available(void)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

static bool listed(const char *const *names, const char *name)
{
	for (; names && *names; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

/* What add_by_argument decides: a role that names one of them gets it in that form. */
static bool by_argument(const char *name)
{
	static const char *const names[] = {"socket", "socketpair", "mmap",  "mprotect", "clone",
					    "clone3", "tgkill",	    "prctl", NULL};

	return listed(names, name);
}

static int add_names(scmp_filter_ctx ctx, const char *const *names, struct error *reterr)
{
	for (; names && *names; names++) {
		int nr = seccomp_syscall_resolve_name(*names);
		if (nr == __NR_SCMP_ERROR)
			return error_set(reterr, -EINVAL, "sandbox: there is no system call '%s'", *names);
		if (nr < 0 || by_argument(*names))
			continue; /* not on this architecture; or see add_by_argument */
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
		if (r < 0 && r != -EEXIST)
			return error_set(reterr, r, "sandbox: filter for %s: %s", *names, strerror(-r));
	}
	return 0;
}

static int add_refused(scmp_filter_ctx ctx, const struct sandbox *s)
{
	for (const char *const *n = refused; *n; n++) {
		if (listed(s->syscalls, *n) || (s->may_exec && listed(exec_set, *n)))
			continue;
		/* These two have a form that is allowed. */
		if (strcmp(*n, "ioctl") == 0 || strcmp(*n, "prlimit64") == 0)
			continue;
		int r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), seccomp_syscall_resolve_name(*n), 0);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_families(scmp_filter_ctx ctx, unsigned families)
{
	static const struct {
		unsigned bit;
		int family;
	} table[] = {{SANDBOX_UNIX, AF_UNIX},
		     {SANDBOX_INET, AF_INET},
		     {SANDBOX_INET6, AF_INET6},
		     {SANDBOX_NETLINK, AF_NETLINK}};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(table); i++) {
		if (!(families & table[i].bit))
			continue;
		struct scmp_arg_cmp family = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)table[i].family);
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, family);
	}
	if (r == 0 && families & (SANDBOX_UNIX | SANDBOX_PAIR))
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	return r;
}

/* Without may_exec mapped memory never becomes code; with it the loader of the started program maps its libraries. */
static int add_memory(scmp_filter_ctx ctx, bool may_exec)
{
	struct scmp_arg_cmp no_exec = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
	unsigned n = may_exec ? 0 : 1;
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), n, no_exec);

	return r < 0 ? r : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), n, no_exec);
}

/* clone3's flags lie in memory, where a filter cannot look: the C library falls back to clone. */
static int add_clone(scmp_filter_ctx ctx, const struct sandbox *s)
{
	int r = 0;

	if (s->may_exec)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, NEW_NAMESPACES, 0));
	else if (listed(s->syscalls, "clone"))
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, NEW_NAMESPACES | CLONE_THREAD, CLONE_THREAD));
	else
		return 0;
	return r < 0 ? r : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

/* evutil_make_socket_nonblocking and OpenSSL's sockets; of the rest a library is told that it may not. */
static int add_ioctl(scmp_filter_ctx ctx, const struct sandbox *s)
{
	int r;

	if (listed(s->syscalls, "ioctl"))
		return 0;
	r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, FIONBIO));
	return r < 0 ? r
		     : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_NE, FIONBIO));
}

static int add_by_argument(scmp_filter_ctx ctx, const struct sandbox *s)
{
	int r = add_families(ctx, s->families);

	if (r == 0)
		r = add_memory(ctx, s->may_exec);
	if (r == 0)
		r = add_clone(ctx, s);
	if (r == 0)
		r = add_ioctl(ctx, s);
	if (r == 0) /* abort() and raise() */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (r == 0 && !listed(s->syscalls, "prlimit64")) {
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0));
		if (r == 0)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prlimit64), 1,
					     SCMP_A2(SCMP_CMP_NE, 0));
	}
	return r;
}

static int build(scmp_filter_ctx ctx, const struct sandbox *s, struct error *reterr)
{
	int r;

	if ((r = add_names(ctx, common, reterr)) < 0 || (r = add_names(ctx, s->syscalls, reterr)) < 0)
		return r;
	if (s->may_exec && (r = add_names(ctx, exec_set, reterr)) < 0)
		return r;
	if ((r = add_by_argument(ctx, s)) < 0 || (r = add_refused(ctx, s)) < 0)
		return error_set(reterr, r, "sandbox: filter: %s", strerror(-r));
	return 0;
}

int seccomp_enter(const struct sandbox *s, struct error *reterr)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return error_set(reterr, -ENOMEM, "sandbox: seccomp_init failed");
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree: some roles live on their system calls */
	r = build(ctx, s, reterr);
	if (r == 0 && (r = seccomp_load(ctx)) < 0)
		error_set(reterr, r, "sandbox: seccomp: %s", strerror(-r));
	seccomp_release(ctx);
	return r;
}

int sandbox_refuse(const char *const *names, struct error *reterr)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int r = 0;

	if (!ctx)
		return error_set(reterr, -ENOMEM, "sandbox: seccomp_init failed");
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
	for (; *names && r == 0; names++) {
		int nr = seccomp_syscall_resolve_name(*names);
		if (nr >= 0)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 0);
	}
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r < 0 ? error_set(reterr, r, "sandbox: seccomp: %s", strerror(-r)) : 0;
}
