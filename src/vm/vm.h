#pragma once
/* One machine as its iron-vm sees it: QMP, the agent channel, the console, the contract, and the state that all of
 * these make, reported as msg_vm_state. */
#include <event2/event.h>

#include "base/error.h"
#include "codec/msg_vm.h"

struct vm;

struct vm_options {
	uint64_t id, generation;
	uint32_t boot_timeout_ms;     /* until the agent answers; 0: a minute */
	int qmp, agent, console;      /* connected sockets, owned by the vm from now on */
	void (*report)(const struct msg_vm_state *state, void *user);
	void *user;
};

struct vm *vm_create(struct event_base *base, const struct vm_options *o);
void vm_destroy(struct vm *vm);

/* Kept, and run as soon as the agent answers; run again when the guest has rebooted. -EINVAL: another machine's. */
int vm_set_contract(struct vm *vm, const struct msg_contract *m, struct error *reterr);
/* The guest is asked to power off; half-way to the deadline its power button is pressed; then QEMU is told to quit. */
void vm_shutdown(struct vm *vm, uint32_t deadline_ms);
/* *ret_fd: the client's end of a new stream, in any state of the machine: a request that the guest would have to
 * answer is refused there ("vm_gone") while it cannot. -EAGAIN: too many. */
int vm_stream_open(struct vm *vm, int *ret_fd, struct error *reterr);
/* QMP is closed, or QEMU has announced that it will be. */
bool vm_is_off(const struct vm *vm);
/* QEMU said that it ends (power off, quit) before it did. */
bool vm_announced_end(const struct vm *vm);
/* The latest report once more: its reader is new. */
void vm_report_again(struct vm *vm);
