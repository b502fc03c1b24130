#pragma once
/* What iron keeps about workspaces, keys, VMs, egress policy, images, and the index of the audit journal: one interface,
 * a database behind it (SQLite: store_sqlite*.c). No SQL and no type of a database's is seen outside; a second backend
 * implements the functions of this header. One thread uses a store.
 *
 * Shapes are the codec's (row_vm, rec_rule …). Whatever is read is copied into the caller's arena and lives as long as that
 * does. Times are ms since 1970, 0: absent. Ids are made by the caller (id_random).
 *
 * Errors, everywhere: -ENOENT no such object (or not of that workspace), -EEXIST an id or unique name is taken, -EINVAL a
 * malformed cursor or value, -ENOMEM the arena is full, -EBUSY somebody else holds the database, -ENOSPC, -EIO, -EROFS the
 * host's file system, -EUCLEAN the database is damaged, -ECANCELED a writing call without a transaction.
 *
 * Every change is made in a transaction, and says with it how durable it must be:
 *
 *	_cleanup_(store_tx_finish) struct store_tx tx = {0};
 *	r = store_begin(s, STORE_FULL, &tx);
 *	if (r == 0)
 *		r = store_key_create(s, …);
 *	if (r == 0)
 *		r = store_commit(&tx);
 *
 * A failed call leaves the transaction open and the calls before it in place: the caller decides. Reading needs none. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "codec/msg_api.h"
#include "codec/msg_broker.h"
#include "codec/msg_egress.h"
#include "codec/record.h"
#include "model/vm_state.h"

struct store;

/* location: the directory of the database's files; it exists. Creates or migrates the database, checks its integrity. A
 * database of a newer iron is refused (-EPROTONOSUPPORT). */
int store_open(const char *location, struct store **ret, struct error *reterr);
void store_close(struct store *s); /* NULL allowed */

/* FULL: keys, secrets, policy: on the disk when commit returns. NORMAL: job steps and the index: consistent after a power
 * cut, but the last ones may be missing, and are done again. */
enum store_durability { STORE_NORMAL, STORE_FULL };
struct store_tx {
	struct store *store; /* NULL: not begun, or over */
};
int store_begin(struct store *s, enum store_durability durability, struct store_tx *ret); /* -EALREADY: one is open */
int store_commit(struct store_tx *tx);	  /* on failure nothing of it holds, and it is over */
void store_tx_finish(struct store_tx *tx); /* rolls back what was not committed */

/* The end of a list. cursor: where the next page begins; empty when there is none (but see store_events_list). */
struct store_page {
	bool has_more;
	struct str cursor;
};

/* --- workspaces --- */

struct store_workspace {
	uint64_t id;
	struct str name;
	uint8_t mode; /* enum egress_mode */
	int64_t created_at;
};
/* The one that the first start makes ("default", enforce). */
int store_workspace_default(struct store *s, struct arena *a, struct store_workspace *ret);
int store_workspace_find(struct store *s, struct str name, struct arena *a, struct store_workspace *ret);
/* -EEXIST: the id or the name. */
int store_workspace_create(struct store *s, const struct store_workspace *w);
int store_workspace_get(struct store *s, uint64_t id, struct arena *a, struct store_workspace *ret);
/* All of them, oldest first, with what they hold. */
struct store_workspaces {
	struct msg_root_workspace *v;
	size_t n;
};
int store_workspaces_all(struct store *s, struct arena *a, struct store_workspaces *ret);
int store_workspace_set_mode(struct store *s, uint64_t id, uint8_t mode);

/* A number that was never given before: the versions of policies. */
int store_policy_version_next(struct store *s, uint64_t *ret);

/* --- keys --- */

#define STORE_KEY_HASH_SIZE 32
struct store_key {
	struct row_key row; /* row.key is always empty: only the hash is kept */
	uint64_t workspace;
};
struct store_keys {
	struct store_key *v;
	size_t n;
	struct store_page page;
};
int store_key_create(struct store *s, const struct store_key *key, const uint8_t hash[STORE_KEY_HASH_SIZE]);
/* -ENOENT too for a revoked one. Whether it has expired is the caller's to judge. */
int store_key_find(struct store *s, const uint8_t hash[STORE_KEY_HASH_SIZE], struct arena *a, struct store_key *ret);
/* A revoked one as well: whose it was, for the record. It opens nothing. */
int store_key_find_any(struct store *s, const uint8_t hash[STORE_KEY_HASH_SIZE], struct arena *a, struct store_key *ret);
int store_key_get(struct store *s, uint64_t workspace, uint64_t id, struct arena *a, struct store_key *ret);
int store_key_touch(struct store *s, uint64_t id, int64_t now); /* last_used_at */
int store_key_revoke(struct store *s, uint64_t workspace, uint64_t id, int64_t now);
/* Those not revoked, newest first. q: cursor, limit (0: 50), name (exact; empty: all). */
int store_keys_list(struct store *s, uint64_t workspace, const struct msg_page *q, struct arena *a,
		    struct store_keys *ret);

/* --- VMs --- */

struct store_vm {
	struct row_vm row; /* status and status_detail are those of `state`; labels are sorted by key */
	uint64_t workspace;
	enum vm_state state;
	struct str public_key;
	uint64_t image;
	uint8_t egress_mode; /* 0 enforce, 1 warn, 2: the workspace's */
	bool egress_inherit; /* the workspace's rules hold for it */
	uint32_t job, job_step; /* what is being done to it and how far it got; the numbers are iron-control's, 0: none */
};
struct store_vms {
	struct store_vm *v;
	size_t n;
	struct store_page page;
};
/* row.labels: list of "k=v". -EEXIST: a VM of that workspace has this name and is not gone (VM_STATES_GONE), or the id. */
int store_vm_create(struct store *s, const struct store_vm *vm);
int store_vm_get(struct store *s, uint64_t workspace, uint64_t id, struct arena *a, struct store_vm *ret);
/* Of any workspace: for what irond and iron-vm report. */
int store_vm_lookup(struct store *s, uint64_t id, struct arena *a, struct store_vm *ret);
/* Writes state, row.{name, status_reason, generation, updated_at, started_at, stopped_at, restart}, egress_mode, egress_inherit, job
 * and job_step. What else a VM has does not change. -EEXIST: the name. */
int store_vm_update(struct store *s, const struct store_vm *vm);
int store_vm_set_job(struct store *s, uint64_t id, uint32_t job, uint32_t step);
int store_vm_set_labels(struct store *s, uint64_t id, struct str labels);
/* limit 0: 20. Sort 0: what is alive before what is destroyed or failed, newest first (`order` is then of no meaning). Else
 * by that field, order 0: descending for times, ascending for names. Leaves out the gone unless status, status_detail or
 * name is asked for. -EINVAL: the cursor, or no such status. */
int store_vms_list(struct store *s, uint64_t workspace, const struct msg_vm_list *q, struct arena *a,
		   struct store_vms *ret);
/* Every VM, of all workspaces, in one of these states (VM_STATE_BIT), by id. page is empty. */
int store_vms_in_states(struct store *s, uint32_t states, struct arena *a, struct store_vms *ret);

/* What VMs in these states take. workspace 0: of all. */
struct store_usage {
	uint64_t vms, vcpus, memory_mib;
};
int store_vm_usage(struct store *s, uint64_t workspace, uint32_t states, struct store_usage *ret);

/* --- what restart: always did, and how often --- */

/* How many starts of it were noted since then. */
int store_restarts_count(struct store *s, uint64_t vm, int64_t since, unsigned *ret);
/* One more; those before `since` are forgotten. */
int store_restart_note(struct store *s, uint64_t vm, int64_t now, int64_t since);

/* --- sessions: a VM's runs, one a generation --- */

#define STORE_SESSIONS_MAX 1000 /* a VM; the oldest go */
/* Again for the same generation changes nothing. */
int store_session_open(struct store *s, uint64_t vm, uint64_t generation, int64_t now);
/* Of the one that is open; a number never becomes less. -ENOENT: there is none. */
int store_session_sample(struct store *s, uint64_t vm, uint64_t generation, int64_t now, const struct rec_vm_usage *used);
/* Ends it. used NULL: nothing more is known than the last sample. now 0: when it ended is not known either: when it was
 * sampled last. 0 too when it has ended before (that holds) or there is none. reason: cut to 255 bytes. */
int store_session_close(struct store *s, uint64_t vm, uint64_t generation, int64_t now, struct str reason,
			const struct rec_vm_usage *used);
/* Every one of this VM that is open, but that of `running` (0: none runs), in the same way without numbers. */
int store_sessions_close(struct store *s, uint64_t vm, uint64_t running, struct str reason);
/* A VM's newest. -ENOENT: it never ran. */
int store_session_last(struct store *s, uint64_t vm, struct arena *a, struct row_session *ret);
struct store_sessions {
	struct row_session *v;
	size_t n;
	struct store_page page;
};
/* Newest first. limit 0: 50. duration_ms is that of those that have ended. -EINVAL: the cursor. */
int store_sessions_list(struct store *s, uint64_t vm, struct str cursor, uint32_t limit, struct arena *a,
			struct store_sessions *ret);

/* --- egress rules: vm 0 is the workspace's own --- */

struct store_rules {
	struct rec_rule *v;
	size_t n;
	struct store_page page;
};
/* rule: in canonical form (policy/rule.h). -EEXIST: another rule of that VM (of that workspace's own) has the name. An empty
 * name is none. -ENOENT: no such workspace or VM. */
int store_rule_create(struct store *s, uint64_t workspace, uint64_t vm, const struct rec_rule *rule);
int store_rule_get(struct store *s, uint64_t workspace, uint64_t vm, uint64_t id, struct arena *a, struct rec_rule *ret);
int store_rule_delete(struct store *s, uint64_t workspace, uint64_t vm, uint64_t id);
/* All rules of a VM that is being destroyed. */
int store_rules_delete_vm(struct store *s, uint64_t vm);
/* q->vm says whose. host, cidr, name: exact. limit 0: 50. Sort 0 and 1: created_at, newest first unless order is asc; 2 is
 * the same (rules do not change); 3: by name. */
int store_rules_list(struct store *s, uint64_t workspace, const struct msg_rule_list *q, struct arena *a,
		     struct store_rules *ret);
/* All of them, by id, for a policy. */
int store_rules_all(struct store *s, uint64_t workspace, uint64_t vm, struct arena *a, struct store_rules *ret);
int store_rule_count(struct store *s, uint64_t workspace, uint64_t vm, uint64_t *ret);

/* --- images, as irond reports them --- */

struct store_images {
	struct row_image *v;
	size_t n;
	struct store_page page;
};
/* Replaces what is known of that id. Of several with one name, find and list mean the newest (created_at), in whatever
 * order they came; get finds each. */
int store_image_put(struct store *s, const struct msg_image *image);
/* All others are gone: no longer found or listed. */
int store_images_retain(struct store *s, const uint64_t *ids, size_t n);
int store_image_get(struct store *s, uint64_t id, struct arena *a, struct row_image *ret);
int store_image_find(struct store *s, struct str name, struct arena *a, struct row_image *ret);
/* By name. q as for keys. */
int store_images_list(struct store *s, const struct msg_page *q, struct arena *a, struct store_images *ret);

/* --- answers kept for Idempotency-Key --- */

struct store_kept {
	uint64_t workspace;
	struct str key;		/* the client's: at most 255 bytes */
	struct str fingerprint; /* 32 bytes */
	uint8_t state;		/* iron-control's own (control/idempotency.h) */
	uint64_t made;		/* the id of what the call makes */
	struct str answer;	/* empty: not known yet */
	int64_t created_at;
};
int store_kept_get(struct store *s, uint64_t workspace, struct str key, struct arena *a, struct store_kept *ret);
/* -EEXIST. */
int store_kept_add(struct store *s, const struct store_kept *k);
/* State and answer of one that there is. */
int store_kept_set(struct store *s, uint64_t workspace, struct str key, uint8_t state, struct str answer);
int store_kept_remove(struct store *s, uint64_t workspace, struct str key);
/* Those older than before_ms go, at most `most` of them. */
int store_kept_trim(struct store *s, int64_t before_ms, unsigned most);
int store_kept_usage(struct store *s, uint64_t workspace, uint64_t *ret_n, uint64_t *ret_bytes);

/* --- the index of the audit journal --- */

/* How far the journal is indexed: segment and offset of the first record that is not, and the sequence of the last that is.
 * All 0 at first. */
int store_index_position(struct store *s, struct msg_audit_head *ret);
/* One record of the journal, in the order of the journal; record: the decoded struct of `type` (codec/record.h). Again for
 * the same record changes nothing. An open becomes an event; progress and close complete it; dns, drop and general
 * events are rows of their own. A type that it does not know is passed over. */
int store_index_put(struct store *s, uint64_t seq, int64_t time_ms, uint16_t type, const void *record);
/* In the same transaction as what was put before it. */
int store_index_advance(struct store *s, const struct msg_audit_head *position);
/* When the segment at the position was begun (its header): tells one journal from another. 0 at first. */
int store_index_segment(struct store *s, int64_t *ret_created_ns);
int store_index_set_segment(struct store *s, int64_t created_ns);
/* The index is thrown away and begun anew, its position all 0: for building it again. Not inside a transaction (-EALREADY). On
 * failure there may be no index; call it again. */
int store_index_reset(struct store *s);
/* What the journal's last sequence was when the index was begun anew: until that is reached lists are not whole. 0: they are. */
int store_index_target(struct store *s, uint64_t *ret);
int store_index_set_target(struct store *s, uint64_t seq);
/* Events older than before_ms are forgotten, at most `most` of them a call. ret_n: how many were. */
int store_index_trim(struct store *s, int64_t before_ms, unsigned most, uint64_t *ret_n);

struct store_events {
	struct row_event *v;
	size_t n;
	struct store_page page;
};
/* Egress events, one a connection or request, in the journal's order. limit 0: 50. order 0: desc, asc when there is a
 * `since`. host: exact, or "*.x.com" for what is below x.com and itself. protocol dns is listed only when asked for.
 * A cursor is a position in the journal. asc: the cursor is never empty; the same call with it answers what was appended
 * since, each event once, whether it is closed by then or not. desc: it is empty on the last page. A page may hold fewer
 * events than there is room for and still have_more: a call looks at a bounded part of the index. */
int store_events_list(struct store *s, uint64_t workspace, const struct msg_events_list *q, struct arena *a,
		      struct store_events *ret);

/* General events (RECORD_EVENT), listed as egress events are. daemons: also those of no workspace. */
struct store_generals {
	struct row_general *v;
	size_t n;
	struct store_page page;
};
int store_generals_list(struct store *s, uint64_t workspace, bool daemons, const struct msg_generals_list *q,
			struct arena *a, struct store_generals *ret);

/* Egress by host, DNS apart. It is counted in steps, of a bounded time each: 1, there is more to do; 0, it is done. The rows
 * are then those of most events first, at most `most` hosts and, with an empty host, the sum of all others; they live as
 * long as the summary. */
struct store_summary;
struct store_summary *store_summary_create(struct store *s, uint64_t workspace, const struct msg_summary_get *q);
void store_summary_destroy(struct store_summary *x); /* NULL allowed */
int store_summary_step(struct store_summary *x, unsigned most_ms);
int store_summary_rows(struct store_summary *x, size_t most, struct row_summary **ret, size_t *ret_n);
