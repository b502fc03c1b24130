#pragma once
/* One request of the API: who asks, what, and its one answer.
 *
 * A request owns a copy of its message, so that it can wait (for the journal, for a VM, for the workers). Its handler
 * is a plain function that looks everything up anew each time it runs: it runs once on arrival, and once more after
 * each thing it waited for. So nothing that was checked before a wait is relied on after it. Handlers end in
 * request_done or request_fail, which free the request, or in one of the waits. */
#include <stdbool.h>

#include "codec/msg.h"
#include "control/control_internal.h"
#include "control/journal.h"
#include "model/code.h"
#include "model/op.h"

struct request {
	struct control *control;
	struct request *next, **prev; /* all requests that are open */
	uint32_t txn;
	const struct msg_info *info;
	struct buf bytes; /* what the record's strings borrow from */
	_Alignas(16) char record[MSG_RECORD_MAX];
	struct msg_req who;
	uint64_t key, workspace; /* 0: no key was asked for */
	uint32_t scopes;
	const struct op_entry *entry;
	uint64_t new_id; /* for what the request makes: the same in every run */
	bool recorded;	 /* it is in the journal */
	bool applied;	 /* the handler's own: its change is stored, what follows is waiting */
	uint64_t waits_vm;
	struct event *deadline;
	bool expired; /* the wait's deadline passed */
	bool woken;   /* the VM it waits for has changed */
	bool begun;   /* admitted, and at work */
	/* kept.h: it is the one at work for its Idempotency-Key; it waits for the one that is; it was begun before a crash, so
	 * what it asks for may have been done; the rows of its answer */
	bool keeps, waits_kept, resumed;
	struct buf kept_rows;
	bool waiting; /* a callback (journal, dist) holds a pointer to it: it may not be freed */
	bool dropped; /* freed by that callback, without an answer */
	struct event *again; /* request_again */
	void *work;	     /* the handler's own, kept between its runs; freed by work_free */
	void (*work_free)(void *work);
	bool root;    /* irond asks, for root at the host: the answer is msg_result */
	char root_answer[128], failure[512];
};

typedef void request_handler(struct request *r);
struct op_entry {
	enum api_op op;
	enum msg_type type;
	request_handler *handle;
	bool open_to_all; /* no key needed */
	/* With an Idempotency-Key: the handler calls request_keep in the transaction of its change, and answers with what new_id
	 * names when it finds `applied` set. Else doing it twice has the effect of doing it once; with `resumed` set, what is
	 * done already is no error. */
	bool keeps;
};
/* ops.c. NULL: an op that there is none of. */
const struct op_entry *op_entry_find(unsigned op);

/* The record of a request by its type: const struct msg_object *m = REQUEST_RECORD(r, msg_object); */
#define REQUEST_RECORD(r, name) ((const struct name *)(const void *)(r)->record)

/* From the channel of iron-api. */
void request_receive(struct control *c, const struct ipc_msg *m);
/* For GET /metrics. */
void request_receive_metrics(struct control *c, const struct ipc_msg *m);
void request_receive_root_key(struct control *c, const struct ipc_msg *m);
/* Drops all of the API's (or root's) that are open, without an answer. */
void requests_drop(struct control *c, bool root);
/* A VM changed: whoever waits for it looks again, from the loop. */
void requests_wake(struct control *c, uint64_t vm);
void requests_run_woken(struct control *c);

/* Frees one that was dropped while it was waiting. */
void request_discard(struct request *r);

/* In the transaction of the change that the request makes (op_entry.keeps): a later call with its Idempotency-Key finds it. */
int request_keep(struct request *r);
/* Ends with an answer that was kept. */
void request_replay(struct request *r, const struct msg_done *done);

void request_row(struct request *r, enum msg_type type, const void *row);
void request_done(struct request *r, uint16_t status);
/* With what a list's end says. */
void request_done_page(struct request *r, bool has_more, struct str cursor);
void request_done_value(struct request *r, uint64_t value);
void request_fail(struct request *r, enum api_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* For a store_ function's failure that the API has no word of its own for. */
void request_fail_store(struct request *r, int code, const char *what);
/* The same for a list of the store's, where -EINVAL is the cursor's. */
void request_fail_list(struct request *r, int code, const char *what);

/* True: it is on record (durably), go on. False: it is being written, and the handler runs again afterwards; or that
 * failed, and the request has been answered. detail: borrowed, may be NULL. */
bool request_on_record(struct request *r, const char *kind, const char *action, uint64_t vm, struct detail *detail);
/* The same for what need not survive a power cut (exec). */
bool request_on_record_soon(struct request *r, const char *kind, const char *action, uint64_t vm,
			    struct detail *detail);
/* How it ended, after all, when it was recorded before. */
void request_note_outcome(struct request *r, const char *kind, const char *action, uint64_t vm, const char *outcome);

/* The handler runs again when the VM has changed, or (with expired set) when wait_ms have passed since the first wait.
 */
#define REQUEST_WAITS_INDEX UINT64_MAX /* instead of a VM: until the audit index is whole */
void request_wait_vm(struct request *r, uint64_t vm, unsigned wait_ms);
/* The handler runs again once everything else that waits has had its turn. */
void request_again(struct request *r);
/* The store's egress policy has changed for the VM (0: for the workspace): the handler runs again when every worker
 * concerned has it. */
void request_wait_policy(struct request *r, uint64_t vm);
