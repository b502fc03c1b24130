#pragma once
/* Children by descriptor: a pid may be another process tomorrow, a pidfd never is. pidfd_open(2), waitid(2). */
#include <stddef.h>
#include <sys/types.h>

/* Close-on-exec; readable once the process has ended. */
int pidfd_get(pid_t pid, int *ret_fd);
/* 0 too when it has ended already. */
int pidfd_signal(int pidfd, int sig);
/* Takes the end of a child. -EAGAIN: it still runs; -ECHILD: it is not ours, or taken already (of another
 * process's child only the descriptor tells the end). *ret_status as from waitpid(2). */
int pidfd_reap(int pidfd, int *ret_status);
/* The same, waiting up to timeout_ms. -ETIMEDOUT. */
int pidfd_wait(int pidfd, int timeout_ms, int *ret_status);

/* A copy of a descriptor of another process's (pidfd_getfd(2)). */
int pidfd_get_fd(int pidfd, int number, int *ret_fd);

/* "exited with status 3", "killed by signal 9 (Killed)", "ended". */
#define WAIT_TEXT_SIZE 64
void wait_status_format(int status, char ret[WAIT_TEXT_SIZE]);
