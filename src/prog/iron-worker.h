#pragma once
/* The jobs of iron-worker besides recipes (iron-worker.c). */
#include <stdint.h>
#include <sys/types.h>

/* Descriptor 4 is a VM's overlay, 5 a copy of the disk below it that may be written: makes 5 what the VM saw, bytes long.
 * In all walls of a role, since QEMU wrote the overlay. Answers the exit status; says why on stderr. */
int flatten_run(uid_t uid, gid_t gid, uint64_t bytes);
