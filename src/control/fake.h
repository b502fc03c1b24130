#pragma once
/* For tests: iron-control with a store in a temporary directory, and everyone it talks to played in the same loop, each
 * with its faults to order. A restart of iron-control keeps the store and what irond "runs". */
#include <event2/event.h>
#include <stdbool.h>

#include "base/map.h"
#include "base/vec.h"
#include "codec/msg.h"
#include "control/control.h"
#include "model/op.h"
#include "model/vm_state.h"
#include "os/ipc.h"

/* What a fake does with a kind of request: answer code (0), keep it unanswered until fake_release, or never. lose: what is
 * held is not done either, as if its doer had died before. */
struct fault {
	int code;
	bool hold, lose;
};

#define FAKE_LOCAL 0x5db8d801U /* 93.184.216.1: the host's own */

struct fake_vm {
	struct fake *fake;
	uint64_t id, workspace, generation, policy_version;
	bool prepared, running, exited;
	struct rec_vm_usage used; /* what irond tells of it */
	int64_t exit_status;
	struct ipc_peer *peer; /* plays iron-vm, NULL: none */
};

struct fake_worker {
	struct fake *fake;
	uint64_t workspace;
	struct ipc_peer *peer;
	unsigned commits, rules; /* of the last committed policy */
	uint8_t mode;
	unsigned pending_rules;
	uint8_t pending_mode;
};

struct fake_row {
	enum msg_type type;
	struct buf bytes; /* what the record borrows from */
	_Alignas(16) char record[MSG_RECORD_MAX];
};

struct fake_answer {
	bool done;
	struct msg_done end;
	struct buf end_bytes;
	VEC(struct fake_row *) rows;
};

struct held {
	struct ipc_peer *peer;
	uint32_t txn;
	int code;
	enum msg_type type;
	uint64_t vm;
};

struct fake {
	struct event_base *base;
	char dir[64];
	struct store *store;
	struct control *control;
	struct msg_control_config config;
	struct buf packages; /* config.packages */
	struct ipc_peer *irond, *api, *audit;
	struct map vms, workers;
	char key[64];		/* of the default workspace, every scope */
	uint8_t key_hash[32];
	struct fault prepare, start, kill, remove, stream, commit, contract, shutdown, journal;
	bool twice;		/* every answer comes a second time */
	bool silent_guest;	/* the contract gets no report */
	bool guest_fails;	/* the contract fails */
	bool restart_always;	/* what fake_vm_create asks for */
	uint64_t disk_mib;
	bool role_silent;	/* iron-audit does not answer irond's ping */
	int segments;		/* a directory of segments, -1: none */
	VEC(struct held) held;
	unsigned prepares, starts, kills, removes, shutdowns, contracts, restarts, streams;
	unsigned events, durable_events; /* at iron-audit */
	char last_event[64];	/* durable: "kind action outcome" */
	char last_soon[64];	/* the same of the others */
	uint64_t last_workspace, last_key; /* of any */
	unsigned api_lost;	/* how often iron-control gave iron-api up */
	bool ended;
};

struct fake *fake_create(void);
void fake_destroy(struct fake *f);
/* iron-control dies and comes back; channels are new, vms and store stay. */
void fake_stop_control(struct fake *f);
void fake_start_control(struct fake *f);
void fake_restart_control(struct fake *f);
/* The host was rebooted: nothing runs. */
void fake_reboot(struct fake *f);
void fake_turn(struct fake *f);
/* Turns until *flag, or 8 s (then the test fails). */
void fake_until(struct fake *f, const bool *flag);
/* Turns until the store has the VM in this state. */
void fake_until_state(struct fake *f, uint64_t vm, enum vm_state state);
enum vm_state fake_state(struct fake *f, uint64_t vm);

/* Asks; `ret` is filled as answers come. fake_answer_finish when done with it. */
void fake_ask(struct fake *f, enum msg_type type, const void *record, struct fake_answer *ret);
/* Asks and waits for the end: the HTTP status. */
unsigned fake_call(struct fake *f, enum msg_type type, const void *record, struct fake_answer *ret);
void fake_answer_finish(struct fake_answer *a);

/* Shorthands with the fake's own key. Those that give an id return 0 on any failure. */
struct str fake_hash(const struct fake *f);
void fake_key_use(struct fake *f, const char *key);
uint64_t fake_vm_create(struct fake *f, const char *name, unsigned *ret_status);
unsigned fake_object(struct fake *f, enum api_op op, uint64_t vm, uint64_t id, bool force);
unsigned fake_stop(struct fake *f, uint64_t vm);
unsigned fake_rule_create(struct fake *f, uint64_t vm, const char *name, const char *host, uint64_t *ret_id);

/* GET of a VM: the row is a->rows.v[0]. */
unsigned fake_show(struct fake *f, uint64_t vm, unsigned wait_ms, struct fake_answer *a);
void fake_assert_detail(struct fake *f, uint64_t vm, const char *status, const char *detail);
/* An error, with a message. */
void fake_assert_code(const struct fake_answer *a, unsigned status, const char *code);

/* The faults' held requests are answered with their code. */
void fake_release(struct fake *f);
/* iron-audit acknowledges what it held. */
void fake_journal_release(struct fake *f);
/* QEMU of the VM ends. */
void fake_exit(struct fake *f, uint64_t vm, int64_t status, const char *reason);
void fake_report(struct fake *f, uint64_t vm, enum vm_report state, const char *step, const char *reason);
/* irond hands a new worker over, or kills the one there is. */
void fake_worker_replace(struct fake *f, uint64_t workspace);
void fake_worker_kill(struct fake *f, uint64_t workspace);
/* iron-vm died, and irond hands its successor over. */
void fake_vm_replace(struct fake *f, uint64_t vm);
/* iron-api died, and irond hands its successor over. */
void fake_api_replace(struct fake *f);
void fake_wait_ms(struct fake *f, unsigned ms);
struct fake_worker *fake_worker_get(struct fake *f);
struct fake_vm *fake_vm_get(struct fake *f, uint64_t vm);
