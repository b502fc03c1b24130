#pragma once
/* Between call.c and what a call may do beside asking iron-control: exec, files, the console. */
#include "api/answer.h"
#include "api/call.h"
#include "api/route.h"

struct channel;

struct call {
	struct api *api;
	struct conn *conn; /* NULL: answered, or the client is gone */
	struct arena arena;
	enum api_op op; /* OP_COUNT: none was found */
	const struct op_shape *shape;
	union params params;
	struct answer answer;
	bool has_key;
	uint8_t key_hash[32];
	uint32_t scopes; /* of the key, once they were asked for */
	char address[64], client[129], method[17], path[256];
	bool upgrades; /* to a WebSocket */
	struct str websocket_key;
	/* idempotency.h: the key, empty: none; what call it belongs to; iron-control waits to be told the answer */
	struct str idempotency_key;
	uint8_t fingerprint[32];
	bool owes_answer;
	ipc_answer *asked; /* call_ask's */
	uint16_t kept_status; /* an answer that was kept came in place of rows: 0, none */
	struct buf kept_body;
	bool wants_events; /* Accept: text/event-stream */
	struct str last_event; /* Last-Event-ID */
	uint64_t started_us;
	uint16_t fail_status; /* set: what it will answer, whatever comes */
	enum api_code fail_code;
	char fail_message[512];
	char headers[512];
	unsigned holds; /* of iron-control, which will answer, and of whoever works on it */
	bool ended;	/* answered and recorded */
	bool limited;	/* refused by rates.h: nobody is asked about it */
	bool metrics;	/* it came to the listener of GET /metrics, which has no key and no operations */
	struct scrape *scrape; /* metrics.c */
	bool vm_is_ready;
	/* What runs for it: to be told when the client leaves. It holds the call. */
	void *work;
	void (*cancel)(void *work);
	struct channel *channel; /* the work's; it holds the call too */
	bool outlives_eof; /* the work goes on when the client sends no more */
};

/* Who asks, for the front of a record. */
void call_identify(const struct call *c, struct msg_req *ret);
/* Sends a record that begins with who asks. Failing, it has answered. The answer (rows and done) comes to on_answer, for
 * which a hold is taken: it ends in call_release. */
int call_ask(struct call *c, enum msg_type type, const void *record, unsigned timeout_ms, ipc_answer *on_answer);
/* The same without either: neither an answer on failure nor a hold. */
int call_send(struct call *c, enum msg_type type, const void *record, unsigned timeout_ms, ipc_answer *on_answer);
void call_hold(struct call *c);
/* Gives a hold back: the last one frees it, unless the connection has it. */
void call_release(struct call *c);
/* Each answers once; afterwards the connection has let go. The call itself goes with call_release. */
void call_answer(struct call *c, unsigned status, struct buf *body);
void call_fail(struct call *c, enum api_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void call_fail_done(struct call *c, const struct msg_done *done);
/* Lines of the answer's head, CRLF included; no value may hold a control character. */
void call_add_header(struct call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An answer in pieces (conn_answer_begin, conn_answer_write on c->conn): begin, then end, which is the call's answer. */
void call_answer_begin(struct call *c, unsigned status, const char *type, uint64_t length, uint32_t stall_ms,
		       const struct conn_stream *ops, void *user);
void call_answer_end(struct call *c, unsigned status, bool whole);
/* For the record, when it ended otherwise than by an HTTP answer. */
void call_record(struct call *c, unsigned status);

/* exec_ws.c: an upgrade, once the key covers it. */
void exec_ws_start(struct call *c);
