#pragma once
/* QEMU's command line as a pure function of a VM's shape. Descriptors have fixed numbers in the child, devices have fixed
 * addresses: what a snapshot of one VM holds fits every VM of the same shape. */
#include "base/vec.h"
#include "broker/vmhost.h"

enum qemu_fd {
	QEMU_FD_QMP = 3,
	QEMU_FD_AGENT,
	QEMU_FD_CONSOLE,
	QEMU_FD_KERNEL,
	QEMU_FD_INITRD,
	QEMU_FD_TAP,     /* absent without a network */
	QEMU_FD_OVERLAY, /* absent without a disk */
	QEMU_FD_BASE,    /* absent without a disk of the image's */
	QEMU_FD_END
};

#define QEMU_BINARY "/usr/bin/qemu-system-x86_64"

typedef VEC(char *) qemu_argv; /* ends with a NULL that n counts */

/* cpu_model: of QEMU's named ones (qemu_cpu_model). */
void qemu_command_build(const struct qemu_args *a, const char *cpu_model, qemu_argv *ret);
void qemu_argv_finish(qemu_argv *argv);

/* The model that guests of this host see: constant under TCG; under KVM by vendor, so that it is the same on any host of
 * that vendor that can run it. */
const char *qemu_cpu_model(bool kvm);
