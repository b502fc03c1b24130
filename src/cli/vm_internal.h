#pragma once
/* Between the files of the VMs' commands. */
#include "cli/command.h"

#define WAIT_S 600

/* Polls until the VM is at `detail` ("ready", "stopped", "destroyed"), has failed, or seconds have passed. 0, EXIT_FAILED or
 * EXIT_TIMED_OUT, EXIT_INTERRUPTED; the last state seen is in *ret (owned), NULL when there is none. */
int vm_wait(struct context *c, const char *id, const char *detail, long seconds, struct progress *p, json_t **ret);
/* What creates a VM, of the options that `create` and `run` share. -EINVAL */
int vm_create_body(struct context *c, const char *name, json_t *body);
#define VM_CREATE_OPTIONS                                                                                              \
	{"image", 0, "IMAGE", "what it starts from (the host's default image)"}, {"cpus", 0, "N", "virtual CPUs, 1 to 32"}, \
		{"memory", 0, "MIB", "memory, 256 to 262144"}, {"disk", 0, "GIB", "disk, 4 to 2048 (10)"},               \
		{"label", 'l', "KEY=VALUE", "a label; may be repeated"},                                               \
		{"preset", 0, "PRESET", "a named group of egress rules of its own; may be repeated"}

/* As `iron show` prints it, or as JSON. */
void vm_show(struct context *c, const json_t *vm);

int run_create(struct context *c);
int run_start(struct context *c);
int run_stop(struct context *c);
int run_wait(struct context *c);
int run_destroy(struct context *c);
