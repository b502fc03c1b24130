#pragma once
/* The inside of a connection, for conn.c and conn_stream.c alone. */
#include <arpa/inet.h>
#include <event2/event.h>

#include "api/api_internal.h"
#include "api/conn.h"
#include "api/transport.h"

enum phase { HANDSHAKE, IDLE, HEAD, BODY, CALL, UPLOAD, ANSWER, FLUSH, LINGER, UPGRADED, FINISHING };

struct conn {
	struct api *api;
	struct conn *next, **prev;
	struct conn *idle_next, *idle_prev;
	bool is_idle;
	struct transport t;
	struct event *readable, *writable, *timer;
	enum phase phase;
	uint64_t phase_since_ms, phase_bytes;
	struct buf in, out, body;
	struct http1_scan scan;
	struct http1_body framing;
	struct call *call;
	bool keep_alive;
	bool to_head;	  /* the answer goes without its body */
	bool body_unread; /* bytes of the request are still to come: the connection cannot be used again */
	bool expects_continue;
	bool old;	   /* the client speaks HTTP/1.0 */
	bool chunked;	   /* a streamed answer's framing */
	bool bounded;	   /* it has a length, of which answer_left is still to be written */
	bool full;	   /* more than the client takes is waiting */
	uint64_t answer_left;
	uint32_t stall_ms; /* how long a streamed answer may stand still */
	bool eof_told;
	unsigned refused;
	bool metrics; /* of the listener of GET /metrics */
	const struct conn_user *ops;
	void *user;
	const struct conn_stream *stream; /* of a streamed body or answer */
	void *stream_user;
	bool reading;
	bool busy, again, dead;
	char peer[INET6_ADDRSTRLEN];
	char address_key[ADDRESS_KEY_SIZE];
};

/* conn.c */
void conn_turn(struct conn *c);
void conn_end(struct conn *c);
void conn_enter(struct conn *c, enum phase phase);
void conn_arm(struct conn *c, uint64_t ms);
void conn_head_begin(struct conn *c, unsigned status);
void conn_head_end(struct conn *c, const char *headers);

/* conn_stream.c. True when something changed, so that it is worth coming again. */
bool conn_work_upload(struct conn *c);
bool conn_work_answer(struct conn *c);
void conn_upload_late(struct conn *c);
