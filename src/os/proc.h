#pragma once
/* What tells one process from the next of the same number: proc_pid_stat(5), proc_pid_status(5). */
#include <stdint.h>
#include <sys/types.h>

#define BOOT_ID_SIZE 37

/* In clock ticks since the host's boot. -ENOENT: no such process. */
int proc_start_time(pid_t pid, uint64_t *ret);
/* The effective uid. */
int proc_uid(pid_t pid, uid_t *ret);
/* This boot of the host, as text. */
int proc_boot_id(char ret[BOOT_ID_SIZE]);
