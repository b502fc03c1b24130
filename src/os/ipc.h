#pragma once
/* One end of a SOCK_SEQPACKET channel between two of iron's processes, on a libevent loop.
 *
 * What may arrive is a table (struct ipc_rule): anything else, a malformed record, a surplus descriptor or a full queue
 * closes the channel with a logged reason: a peer that breaks the protocol is a taken peer. Handlers run from the loop;
 * a handler may send, call and even destroy the peer. */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/msg.h"

struct ipc_peer;

struct ipc_msg {
	const struct msg_info *info;
	uint32_t txn;
	const void *record; /* struct <info's record>; borrowed, until the handler returns */
	int *fds;           /* take one with take_fd(m->fds[i]); what is left is closed */
	size_t nfds;
};

/* The record of a message, by its type's name: const struct msg_peer *p = IPC_RECORD(m, msg_peer); */
#define IPC_RECORD(m, name) ((const struct name *)(m)->record)

struct ipc_rule {
	uint16_t type; /* enum msg_type */
	uint8_t fds;   /* exact number of descriptors */
	enum { IPC_NOTICE = 1, IPC_REQUEST = 2, IPC_EITHER = 3 } form;
	void (*handle)(struct ipc_peer *peer, const struct ipc_msg *m, void *user);
};

/* The channel is gone: reason says why ("closed by peer", "protocol: …"). Pending calls were answered with NULL before.
 * The peer is still allocated; call ipc_peer_destroy here or later. */
typedef void ipc_closed(struct ipc_peer *peer, const char *reason, void *user);

/* Owns fd from now on, also on failure (then it is closed, and NULL returned). name: literal or long-lived, for logs. */
struct ipc_peer *ipc_peer_create(struct event_base *base, int fd, const char *name, const struct ipc_rule *rules,
				 size_t nrules, ipc_closed *closed, void *user);
void ipc_peer_destroy(struct ipc_peer *peer); /* NULL allowed; pending calls are answered with NULL */

/* Queued and sent as the socket takes it. Descriptors are duplicated: the caller keeps its own. -EMSGSIZE, -EINVAL (record
 * out of bounds), -EPIPE (closed), -ENOBUFS (queue full: nothing more is sent,
 * and the loop closes the channel, after the caller has returned). */
int ipc_notify(struct ipc_peer *peer, enum msg_type type, const void *record, const int *fds, size_t nfds);
int ipc_reply(struct ipc_peer *peer, uint32_t txn, enum msg_type type, const void *record, const int *fds, size_t nfds);
/* msg_result in short. */
int ipc_reply_result(struct ipc_peer *peer, uint32_t txn, int code, const char *reason, uint64_t value);

/* A request. on_answer runs once for each message with its txn until it returns true (that was the last), and once with
 * m == NULL when the channel closes or timeout_ms passed (then nothing comes any more, whatever it returns). When this
 * function itself fails on_answer is not called. Answers need no rule. timeout_ms 0: none. */
typedef bool ipc_answer(struct ipc_peer *peer, const struct ipc_msg *m, void *arg);
int ipc_call(struct ipc_peer *peer, enum msg_type type, const void *record, const int *fds, size_t nfds,
	     unsigned timeout_ms, ipc_answer *on_answer, void *arg);

bool ipc_peer_is_open(const struct ipc_peer *peer);
/* Bytes queued and not sent yet. */
size_t ipc_peer_queued(const struct ipc_peer *peer);
/* While more than this is queued nothing is read: a peer that asks faster than it takes the answers waits. For one end of
 * a channel alone: two that wait for each other wait for ever. */
void ipc_peer_pause_above(struct ipc_peer *peer, size_t bytes);

/* A pair with large buffers, both ends close-on-exec and non-blocking. */
int ipc_socketpair(int ret_fds[2]);

/* A channel by path, root's alone: a listener, which accepts one at a time, and the way to it. -EAGAIN: the last one has
 * not been accepted yet; -ECONNREFUSED: nobody listens. */
int ipc_listen(const char *path, int *ret_fd);
/* -EAGAIN: nobody is there; -EPERM: somebody who is not root was. */
int ipc_accept(int listener, int *ret_fd);
int ipc_connect(const char *path, int *ret_fd);

/* Blocking forms for start-up and tools: one message on a plain descriptor. ipc_recv_blocking: the record's strings
 * borrow from `space` (MSG_MAX bytes), timeout_ms < 0: none. -EBADMSG, -ETIMEDOUT, -EPIPE at end of file. */
int ipc_send_blocking(int fd, enum msg_type type, uint32_t txn, const void *record, const int *fds, size_t nfds);
int ipc_recv_blocking(int fd, int timeout_ms, void *space, const struct msg_info **ret_info, uint32_t *ret_txn,
		      void *ret_record, int ret_fds[MSG_MAX_FDS], size_t *ret_nfds);
