#pragma once
/* The walls of one process, entered once, before it reads anything from outside: uid and gid, no new privileges,
 * resource limits, Landlock (ABI 1 needed, later ones used where present), seccomp. Each program declares its own as a
 * constant beside its main: who reads that file knows what the process can do. seccomp(2), landlock(7). */
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Whether this build is watched by AddressSanitizer, which maps more than RLIMIT_DATA would allow and whose leak
 * checker traces its own process: two walls that such a build goes without. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANDBOX_SANITIZED 1
#endif
#ifndef SANDBOX_SANITIZED
#define SANDBOX_SANITIZED 0
#endif

enum sandbox_access { SANDBOX_READ = 1, SANDBOX_WRITE = 2, SANDBOX_CREATE = 4, SANDBOX_EXEC = 8 };

struct sandbox_path {
	const char *path; /* absolute; a directory holds for what is below it */
	unsigned access;  /* enum sandbox_access */
};

/* Socket families that socket(2) and socketpair(2) may be called with. SANDBOX_PAIR is socketpair alone: with connect(2),
 * SANDBOX_UNIX reaches any socket whose file permissions allow it. */
enum sandbox_family { SANDBOX_UNIX = 1, SANDBOX_INET = 2, SANDBOX_INET6 = 4, SANDBOX_NETLINK = 8, SANDBOX_PAIR = 16 };

struct sandbox {
	const char *role;                 /* for messages */
	const char *const *syscalls; /* names beyond the common set (sandbox_seccomp.c), NULL-terminated; "clone" makes
				      * threads only, unless may_exec */
	unsigned families;                /* 0: socket and socketpair are refused altogether */
	bool may_exec;                    /* execve and fork are allowed (iron-worker) */
	size_t max_files;                 /* RLIMIT_NOFILE, 0: 1024 */
	size_t max_memory_mib;            /* RLIMIT_AS is not used; this is RLIMIT_DATA, 0: none */
};

/* What the walls turned out to be, for `iron host`. */
struct sandbox_report {
	int landlock_abi; /* 0: none */
	bool seccomp;
};

/* Which walls this kernel has, without entering any. */
void sandbox_probe(struct sandbox_report *ret);

/* To be called while there is one thread (-EBUSY). uid/gid 0 leaves the identity as it is (tests). paths: ended by a
 * NULL path; the Landlock rule set denies all else; an absent path is skipped. A call outside the filter kills the
 * process (SECCOMP_RET_KILL_PROCESS, logged by the kernel) but for a short list answered with EPERM: opening and
 * looking up files (libraries probe for theirs), unlisted ioctls, limits. Memory is never made executable again. TCP
 * ports cannot be bound, nor, without SANDBOX_INET*, connected; no process outside can be signalled. degraded: a wall
 * that the kernel lacks is reported and not an error. ret_report may be NULL. Once this failed the process is of no
 * use: exit. -EPERM, -ENOSYS (names the wall), -EINVAL (a mistake in s). */
int sandbox_enter(const struct sandbox *s, uid_t uid, gid_t gid, const struct sandbox_path *paths, bool degraded,
		  struct sandbox_report *ret_report, struct error *reterr);

/* For a job that must keep set-uid programs and mount(2) (iron-worker's user namespace): the named calls are answered with
 * EPERM, everything else stays as it is, and no_new_privs is not set. Needs CAP_SYS_ADMIN, so it comes before the change of
 * identity. names end with NULL; those that this architecture lacks are passed over. -EPERM, -ENOSYS. */
int sandbox_refuse(const char *const *names, struct error *reterr);

