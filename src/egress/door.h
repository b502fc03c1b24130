#pragma once
/* The door of one workspace's VMs, as its parts see it: what they share (struct door), one VM (struct door_vm), and one
 * connection of a guest's (struct conn), which goes through phases:
 *
 *   first (first.c)   the first bytes are looked at: TLS, HTTP, neither
 *   tunnel (tunnel.c) TLS passed through, and raw TCP: record, dial, splice
 *   http (http*.c)    request by request through the codec
 *   dns (dns.c)       DNS over TCP
 *   farewell          a last answer is sent, then FIN, then what still comes is drained for a moment
 *
 * A phase owns the connection's callbacks while it lasts. conn_destroy ends everything. */
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "codec/msg.h"
#include "egress/dial.h"
#include "egress/journal.h"
#include "egress/names.h"
#include "egress/relay.h"
#include "egress/sock.h"
#include "egress/tally.h"
#include "policy/dial.h"
#include "policy/policy.h"

#define GUEST_GATEWAY 0x0a4d0001U /* 10.77.0.1 */
#define IRON_INTERNAL "iron.internal"

struct door {
	struct event_base *base;
	struct journal *journal;
	struct dialer *dialer;
	struct dial_limits *limits;
	struct pipe_pool pipes;
	struct map vms;
	struct event *tick; /* deadlines, four times a second */
	unsigned ticks;
	bool paused; /* by door_pause */
	uint64_t workspace;
	uint32_t synthetic_base;
	uint8_t synthetic_prefix;
	unsigned max_connections, peek_ms, connect_ms, idle_ms, total_ms;
};

#define DENIALS_KEPT 32

struct denial {
	int64_t at_ms;
	uint16_t port;
	uint8_t protocol;
	char host[HOSTNAME_SIZE];
	char reason[256];
};

struct door_vm {
	struct door *door;
	uint64_t id, generation;
	char name[64];
	struct policy *policy; /* NULL: nothing passes */
	uint64_t policy_version;
	struct policy *coming; /* between begin and commit */
	uint64_t coming_version;
	uint32_t coming_rules, coming_got;
	bool coming_broken;
	struct names *names;
	struct tally tally;
	struct conn *conns;
	unsigned nconns, ndns;
	struct denial denials[DENIALS_KEPT];
	unsigned ndenials; /* ever: the latest is at (ndenials - 1) % DENIALS_KEPT */
	int listener, udp, nflog;
	struct event listener_event, udp_event, nflog_event;
	bool paused; /* out of descriptors: not accepting until the next tick */
};

struct conn;
struct conn_phase {
	const char *name;
	void (*on_ready)(struct conn *c);                 /* the client's socket; may destroy the connection */
	void (*on_tick)(struct conn *c, uint64_t now_ms); /* may destroy the connection */
	void (*on_policy)(struct conn *c); /* the VM's policy is another one; may destroy the connection */
	void (*destroy)(struct conn *c);   /* frees c->state; writes what record is open as `cut` */
};

struct conn {
	struct conn *prev, *next;
	struct door_vm *vm;
	struct sock client;
	const struct conn_phase *phase;
	void *state;
	uint64_t opened_ms, active_ms; /* monotonic */
	struct policy_request target;  /* phase POLICY_CONNECT; name points into `name` */
	char name[HOSTNAME_SIZE];
	int name_index; /* in the VM's names; -1: a literal */
	bool inside;    /* iron.internal */
	bool nameless;  /* a synthetic address that stands for no name */
};

/* --- door.c --- */
/* Everything that the sandbox later forbids is opened here. -EINVAL says which key of the configuration is wrong. */
int door_create(struct event_base *base, const struct msg_egress_config *config, struct door **ret,
		struct error *reterr);
/* Every VM is detached. NULL allowed. */
void door_destroy(struct door *d);

/* Takes no new connection and answers no name, or does again. What is there goes on. */
void door_pause(struct door *d, bool pause);

/* --- vm.c --- */
void vm_accept(struct door_vm *vm);
void vm_pause(struct door_vm *vm, bool pause);

/* --- conn.c --- */
/* Takes fd, accepted on vm's listener. */
void conn_create(struct door_vm *vm, int fd);
void conn_enter(struct conn *c, const struct conn_phase *phase, void *state);
/* Everything of it goes, at once; the client gets a FIN, or a reset where sock_reset was called before. */
void conn_destroy(struct conn *c);
/* Reset and destroyed. */
void conn_abort(struct conn *c);
/* Sends `last` (taken over) and then ends the connection politely. Replaces the phase, whose state is destroyed. */
void conn_farewell(struct conn *c, struct buf *last);
bool conn_total_passed(const struct conn *c, uint64_t now_ms);
/* The host asked for, as text: the name or the literal. Rotating buffers. */
const char *conn_host(const struct conn *c);

/* What is on record about one connection or request. */
struct verdict {
	enum egress_verdict verdict;
	uint64_t rule;
	char cidr[CIDR_TEXT_SIZE];
	char reason[256];
	bool decided; /* by a rule or its absence; otherwise by the protocol (SNI, smuggling, limits) */
};
/* The policy's answer to r (r->phase says what is judged). Without a policy: denied. */
void conn_judge(const struct conn *c, const struct policy_request *r, struct verdict *ret,
		struct policy_decision *ret_d);
/* Denied for another cause than the rules. */
void verdict_refuse(struct verdict *v, const char *reason);

struct request_line {
	struct str method, path;
	uint64_t connection; /* sequence of the first open on this connection, 0 */
};
/* NULL: the journal takes nothing. line may be NULL. */
struct journal_entry *conn_record(struct conn *c, enum egress_protocol protocol, const struct verdict *v,
				  const struct request_line *line, journal_written *on_written, void *arg);
struct ending {
	uint64_t sent, received, since_ms;
	uint16_t status;
	enum close_outcome outcome;
	const struct ip *address; /* NULL: none was dialled */
	const char *reason;
};
void conn_record_end(struct journal_entry *e, const struct ending *end);
/* An open and its close for what was denied, and a place among the VM's latest denials. status 0: none. */
void conn_record_denied(struct conn *c, enum egress_protocol protocol, const struct verdict *v,
			const struct request_line *line, uint16_t status, enum close_outcome outcome);
void vm_note_denial(struct door_vm *vm, const struct conn *c, enum egress_protocol protocol, const char *reason);

/* Why an address may not be dialled for r: NULL when it may. */
const char *conn_refuse_address(const struct conn *c, const struct policy_request *r, const struct ip *address);

/* --- phases --- */
void first_enter(struct conn *c);
/* r: POLICY_TLS_OPAQUE or POLICY_RAW. Judged already. */
void tunnel_enter(struct conn *c, enum policy_phase phase, enum egress_protocol protocol, const struct verdict *v);
void http_enter(struct conn *c);
void dns_tcp_enter(struct conn *c);
