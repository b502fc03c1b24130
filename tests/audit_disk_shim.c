/* Preloaded into iron-audit by test_audit_journal.py: a disk that is slow to sync (SHIM_SYNC_MS), or of which the syncs
 * numbered SHIM_FAIL_FROM to SHIM_FAIL_TO fail. */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long setting(const char *name)
{
	const char *value = getenv(name);

	return value ? atol(value) : 0;
}

int fdatasync(int fd)
{
	static long n;
	long ms = setting("SHIM_SYNC_MS");

	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
	n++;
	if (n >= setting("SHIM_FAIL_FROM") && n <= setting("SHIM_FAIL_TO")) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}
