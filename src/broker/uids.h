#pragma once
/* Who runs as whom. Fixed roles are users of passwd; workers and VMs get uids of the configured range:
 * base + slot for egress workers (slot < UIDS_WORKERS), base + UIDS_WORKERS + 2n for iron-vm and + 2n + 1 for QEMU of
 * the VM in slot n (n < UIDS_VMS). The gid is the same number. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "codec/msg_broker.h"

#define UIDS_WORKERS 4096U
#define UIDS_VMS 16384U
#define UIDS_TOTAL (UIDS_WORKERS + 2 * UIDS_VMS)

struct uids;

/* Looks up the users of the roles and checks that nobody else owns a number of the range: passwd, group, subuid,
 * subgid. etc: "/etc" (tests use another, for subuid and subgid). users: NULL, or other names for iron-api, iron,
 * iron-audit, iron-work in that order (tests). The reason names the command that helps. */
int uids_create(uid_t base, const char *etc, const char *const users[4], struct uids **ret, struct error *reterr);
void uids_destroy(struct uids *u);

/* ROLE_API, ROLE_CONTROL, ROLE_AUDIT, ROLE_WORKER. */
void uids_role(const struct uids *u, enum role role, uid_t *ret_uid, gid_t *ret_gid);

/* Slots. A VM's is held as long as its directory exists. -ENOSPC: none is free. */
int uids_worker_take(struct uids *u, uint32_t *ret_slot);
/* The slot of a worker that runs, by its uid; -EEXIST, -ERANGE. */
int uids_worker_claim(struct uids *u, uid_t uid, uint32_t *ret_slot);
void uids_worker_release(struct uids *u, uint32_t slot);
int uids_vm_take(struct uids *u, uint32_t *ret_slot);
/* A slot known from a VM's file; -EEXIST when another has it, -ERANGE. */
int uids_vm_claim(struct uids *u, uint32_t slot);
void uids_vm_release(struct uids *u, uint32_t slot);

uid_t uids_worker(const struct uids *u, uint32_t slot);
uid_t uids_vm(const struct uids *u, uint32_t slot);
uid_t uids_qemu(const struct uids *u, uint32_t slot);
