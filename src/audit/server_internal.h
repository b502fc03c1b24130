#pragma once
/* What server.c (channels, batches, acknowledgements) and server_open.c (opens and their ends) share. */
#include "audit/budget.h"
#include "audit/openset.h"
#include "audit/server.h"
#include "base/buf.h"
#include "base/map.h"
#include "os/ipc.h"

struct client {
	struct audit_server *server;
	struct client *next, **prev;
	struct ipc_peer *peer;
	enum role role;
	uint64_t id;
	struct openset open;
	struct budget budget;
	uint64_t over_budget; /* the VM that the batch at hand failed for */
	unsigned waiting; /* durable batches that are not acknowledged */
	char name[40];
};

struct waiting {
	struct waiting *next;
	struct client *client; /* NULL: gone */
	uint32_t txn, count;
	uint64_t first_seq;
};

struct audit_server {
	struct event_base *base;
	struct audit_journal *journal;
	struct event *disk, *told, *sweep;
	struct client *clients;
	struct waiting *waiting, **waiting_end; /* in the order of their sequences */
	/* orphans: of an earlier life, until orphans_until_ms; ended: to be closed as aborted as soon as that can be written */
	struct openset orphans, ended;
	uint64_t orphans_until_ms;
	struct budget budget; /* what each writer begins with */
	size_t nopen; /* of all clients */
	bool ending;  /* the writers live on: their opens are the next life's to adopt */
	struct audit_entry entries[AUDIT_BATCH_RECORDS_MAX];
	struct buf rewritten; /* payloads that differ from what came */
};

void server_tell_head(struct audit_server *s);

/* --- server_open.c --- */

void opens_replay(const struct segment_record *record, void *server);
/* The entry a progress or close of this client speaks of, adopted where it may be; NULL: not its to speak of. */
struct open_entry *opens_find(struct client *c, uint64_t seq);
/* What is left open when a client goes. */
void opens_abandon(struct client *c);
/* Closes what is to be closed; what cannot be written now stays. */
void opens_sweep(struct audit_server *s);
