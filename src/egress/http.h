#pragma once
/* Plain HTTP/1 through the door, between its two halves: http.c reads and judges requests, http_exchange.c carries an
 * allowed one upstream and the answer back. Only these two include this. */
#include "codec/http1.h"
#include "egress/door.h"

#define HTTP_HEAD_MAX 32768
#define HTTP_BUFFER 65536 /* bytes held of each direction; a head always fits */

enum http_stage {
	HTTP_HEAD,      /* a request head is read, or awaited */
	HTTP_RECORDING, /* judged; its open is on its way into the journal */
	HTTP_DIALING,
	HTTP_EXCHANGE, /* request out and answer back, both at once */
	HTTP_UPGRADED, /* after a 101: bytes */
};

/* Received bytes, of which the first `ready` were found valid and only wait for the other side's room. */
struct http_in {
	struct buf bytes;
	size_t ready;
	struct http1_scan scan;
};

struct exchange {
	struct policy_request request;
	char *text; /* what request.method and request.path point into */
	struct journal_entry *entry;
	struct http1_body request_body, response_body;
	bool request_whole;  /* read to its end (not: sent) */
	bool upstream_deaf;  /* took no more of the request: only its answer counts */
	bool response_begun; /* a final head, or a byte, went toward the guest */
	bool response_headed, response_whole;
	bool to_head, websocket, keep_client, keep_upstream, reused, may_repeat;
	struct buf repeat; /* the head again, where the upstream connection may have been closed meanwhile */
	uint64_t sent, received, since_ms;
	uint64_t told_ms, told_bytes;
	uint16_t status;
};

struct http {
	struct conn *c;
	enum http_stage stage;
	struct http_in client, upstream;
	struct buf to_client, to_upstream; /* heads and answers of our own, before the ready bytes */
	struct sock up;
	struct dial *dial;
	struct ip address;
	struct exchange x;
	struct relay relay;
	bool relaying;
	uint64_t first_seq;     /* of this connection's first request */
	uint64_t head_since_ms; /* an unfinished head is here since; 0: none */
	uint64_t moved, seen_moved;
};

/* Of each step: nothing to be done now; something was done; the phase is left or the connection gone: touch nothing. */
enum http_step { HTTP_STUCK, HTTP_MOVED, HTTP_GONE };

/* http.c */
void http_drive(struct http *h);
/* What may come of the guest is taken from its socket. */
enum http_step http_read_client(struct http *h);
/* Ends the exchange that is going on, and the connection, with an answer where none has begun, otherwise with a reset.
 */
struct refusal;
void http_fail(struct http *h, struct refusal *r, enum close_outcome outcome);
/* Record written, memory of the exchange freed. */
void http_end_exchange(struct http *h, enum close_outcome outcome, const char *reason);

/* http_exchange.c */
/* The request is in the journal: over the connection that is there, or a new one. */
void http_go_upstream(struct http *h);
enum http_step http_exchange_step(struct http *h);
enum http_step http_upgraded_step(struct http *h);
/* A connection that waits for its next request: closed by the upstream, or with bytes nobody asked for, it is of no
 * use. */
void http_check_idle_upstream(struct http *h);
/* First `head`, then in->ready bytes of in. MOVED, STUCK, or GONE for a socket error. */
enum http_step http_flush(struct buf *head, struct http_in *in, struct sock *to, uint64_t *counter);
