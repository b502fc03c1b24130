#include "os/pidfd.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/fdutil.h"

#define IDTYPE_PIDFD ((idtype_t)3) /* P_PIDFD; the C library's header may be older */

int pidfd_get(pid_t pid, int *ret_fd)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		return -errno;
	*ret_fd = (int)fd;
	return 0;
}

int pidfd_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 && errno != ESRCH ? -errno : 0;
}

int pidfd_reap(int pidfd, int *ret_status)
{
	siginfo_t info = {0};

	if (waitid(IDTYPE_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0)
		return -errno;
	if (info.si_pid == 0)
		return -EAGAIN;
	*ret_status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
	return 0;
}

int pidfd_wait(int pidfd, int timeout_ms, int *ret_status)
{
	int r = fd_wait(pidfd, POLLIN, timeout_ms);

	return r < 0 ? r : pidfd_reap(pidfd, ret_status);
}

int pidfd_get_fd(int pidfd, int number, int *ret_fd)
{
	long fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);

	if (fd < 0)
		return -errno;
	*ret_fd = (int)fd;
	return 0;
}

void wait_status_format(int status, char ret[WAIT_TEXT_SIZE])
{
	if (WIFSIGNALED(status))
		snprintf(ret, WAIT_TEXT_SIZE, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		snprintf(ret, WAIT_TEXT_SIZE, "exited with status %d", WEXITSTATUS(status));
	else
		snprintf(ret, WAIT_TEXT_SIZE, "ended");
}
