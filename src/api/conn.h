#pragma once
/* One client's connection: transport, HTTP/1.1 with keep-alive, deadlines and bounds.
 *
 * One request at a time: while its call runs, what the client pipelines behind it waits in the buffer (bounded by it) and
 * the socket (then it is not read). A call is made when the head is there (call_create, call.h), fed the body, and
 * answers once, by conn_answer or by taking the connection over with conn_upgrade. Every wait has a deadline; each kind of
 * excess has its status: 408 for a head or a body that does not come, 431, 413, 503, 429.
 *
 * When a client closes while its call runs, the call is told by call_client_gone; a plain half-close (it sent FIN, but
 * may still read) is told by call_client_eof. */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "codec/http1.h"

struct api;
struct call;
struct conn;

#define ADDRESS_KEY_SIZE 48
/* Takes fd, which came from an accepting socket. peer: its address as text; address_key: what its connections are counted
 * by. metrics: it came to the listener of GET /metrics, and is served that in the clear. refused: a status to say instead
 * of serving anything, 0: none. */
void conn_create(struct api *api, int fd, const char *peer, const char *address_key, bool metrics, unsigned refused);
void conn_destroy(struct conn *c);
/* The longest idle one, closed to make room. False: there is none. */
bool conn_evict(struct api *api);
/* Opens and closes count (listener.c). */
void listener_conn_closed(struct api *api, const char *address_key, bool refused);

const char *conn_peer(const struct conn *c);
/* What its connections and calls are counted by: the address, or its /64. */
const char *conn_address_key(const struct conn *c);
bool conn_is_tls(const struct conn *c);
bool conn_is_metrics(const struct conn *c);

/* The answer: status line, headers and the body (its bytes are taken over; empty afterwards). headers: further lines, each
 * ending in CRLF, may be NULL. The call is over for the connection: it holds it no longer. */
void conn_answer(struct conn *c, unsigned status, const char *headers, struct buf *body);

/* Bodies of any size, in pieces, in bounded memory (conn_stream.c). All of it runs from the loop; whoever takes part is
 * told of the client's end by call_client_gone. */
#define CONN_PIECE_MAX ((size_t)32 << 10)
struct conn_stream {
	/* A request's body. ready: a piece can be taken (else conn_poke when it can). data: 1 to CONN_PIECE_MAX bytes, after
	 * ready. whole: that was all. broken: it cannot be read on (too slow, malformed): answer with this. */
	bool (*ready)(void *user);
	void (*data)(struct str data, void *user);
	void (*whole)(void *user);
	void (*broken)(unsigned status, const char *message, void *user);
	/* An answer: there is room again, after conn_answer_has_room said no. */
	void (*room)(void *user);
};
/* From a call that call_streams_body, started without it: the client is told to go on, and its body comes. */
void conn_body_begin(struct conn *c, const struct conn_stream *ops, void *user);

#define CONN_LENGTH_UNKNOWN UINT64_MAX
/* The head of an answer whose body comes in pieces. headers: as in conn_answer, with Content-Type. stall_ms: how long the
 * client may take none of it. The connection keeps the call until conn_answer_end. ops NULL: room is never told. */
void conn_answer_begin(struct conn *c, unsigned status, const char *headers, uint64_t length, uint32_t stall_ms,
		       const struct conn_stream *ops, void *user);
/* Any size; past the length that was said: -EMSGSIZE, and nothing is written. It goes out from the loop. */
int conn_answer_write(struct conn *c, struct str data);
bool conn_answer_has_room(const struct conn *c);
/* It has a length, and all of it is written. */
bool conn_answer_is_full(const struct conn *c);
/* whole false, or bytes missing of the length: the connection is cut, so that the client sees it. */
void conn_answer_end(struct conn *c, bool whole);
/* The client asked with HEAD: what is written is left out. */
bool conn_to_head(const struct conn *c);

/* From here on the bytes are someone else's. head: the 101 answer as it goes out. The callbacks run from the loop:
 * turn when there is input, room for output again, or after conn_poke; gone when the connection broke or ended (free your
 * state; the conn is freed afterwards). */
struct conn_user {
	void (*turn)(void *user);
	void (*gone)(void *user);
};
void conn_upgrade(struct conn *c, struct str head, const struct conn_user *ops, void *user);
struct buf *conn_in(struct conn *c);
struct buf *conn_out(struct conn *c);
/* The client sent FIN: no more input will come. */
bool conn_eof(const struct conn *c);
/* Lets the connection look again: writes what is in out, reads if reading. Safe from within turn. */
void conn_poke(struct conn *c);
/* Reading on or off (back-pressure); it also stops by itself when in is full. */
void conn_read_enable(struct conn *c, bool on);
/* Writes what is left, says goodbye, closes. gone is called then. */
void conn_finish(struct conn *c);
