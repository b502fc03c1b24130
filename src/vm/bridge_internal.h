#pragma once
/* What bridge.c (streams and their sockets), bridge_client.c (requests) and bridge_guest.c (answers) share. */
#include "vm/bridge.h"

enum bridge_state { WAITING, OPEN, ORPHAN, ENDING };

struct datagram {
	struct datagram *next;
	uint32_t len, size; /* of `bytes`: used, and there */
	uint8_t bytes[];
};

struct stream {
	struct stream *next;
	struct bridge *bridge;
	enum bridge_state state;
	bool dead;
	int fd;
	struct event *readable, *writable, *hung_up;
	uint32_t id;
	struct buf held;
	struct datagram *head, **last; /* queued; last: what points to the last one, where there is one */
	uint32_t may_send, may_receive, owed;

	/* What it was opened with, as far as it decides what may follow. */
	enum agent_type request;
	bool tty, detach, follow, takes_input, takes_signals;
	uint8_t op;     /* FILE */
	uint32_t limit; /* LIST */
	uint64_t exec;
	/* How far it is. */
	bool eof, started, more, counted; /* counted: as many bytes as the INFO said, no other number */
	uint32_t rows;
	uint64_t bytes_left;
	uint64_t offset; /* ATTACH: of the next byte of output */
	char name[256]; /* of the last row of a LIST */
};

struct bridge {
	struct event_base *base;
	struct agent_link *link;
	const struct bridge_ops *ops;
	void *user;
	struct stream *head;
	size_t n, queued; /* queued: memory of all datagrams */
	uint32_t last_id;
};

/* bridge.c */
/* A datagram to the client, now or when its socket takes it. */
void bridge_deliver(struct stream *s, enum stream_kind kind, struct str payload);
void bridge_deliver_error(struct stream *s, const char *code, const char *message);
/* Nobody listens any more: the guest is told. */
void bridge_orphan(struct stream *s);
/* Nothing more comes: closed as soon as the client has all. */
void bridge_end(struct stream *s);
/* The held datagram, if it fits now. */
void bridge_resume(struct stream *s);

/* bridge_client.c */
/* The client broke the protocol: it is told, and the guest's side loses its listener. */
void bridge_refuse(struct stream *s, const char *message);
/* Whether it can be handled now: credit for input, and room on the channel for what goes there. */
bool bridge_fits(const struct stream *s, struct str in);
void bridge_on_datagram(struct stream *s, struct str in);

/* bridge_guest.c */
bool bridge_on_guest(struct stream *s, enum agent_type type, struct str payload);
