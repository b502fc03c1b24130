#pragma once
/* The file system in which QEMU runs: a tmpfs that holds, read-only, the binary, what it is linked with, its TCG module and
 * the firmware of its machine, and a /dev of two or three nodes and a /proc of its own pid namespace. */
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/vec.h"

struct qemu_root {
	VEC(char *) files; /* absolute paths, as the dynamic linker asks for them */
};

/* Asks the dynamic linker what QEMU needs: runs it, some milliseconds. -ENOENT: no QEMU on this host. */
int qemu_root_init(struct qemu_root *r, struct error *reterr);
void qemu_root_finish(struct qemu_root *r);

/* In a child with a mount and a pid namespace of its own: builds the root over `place`, a directory, and makes it the
 * process's root. kvm: /dev/kvm is in it, for uid. */
int qemu_root_enter(const struct qemu_root *r, const char *place, bool kvm, uid_t uid, struct error *reterr);
