#pragma once
/* This end of a byte channel to a VM's iron-vm (codec/stream.h), on the loop. Memory is bounded: one datagram waits to be
 * sent, none is read ahead. */
#include <event2/event.h>
#include <stdbool.h>

#include "base/str.h"
#include "codec/stream.h"

struct vmstream;

struct vmstream_ops {
	/* One datagram; data is borrowed. */
	void (*data)(enum stream_kind kind, struct str data, void *user);
	/* It takes one again, after vmstream_send said that it did not. */
	void (*writable)(void *user);
	/* The other end is gone. Not called after vmstream_destroy. */
	void (*ended)(void *user);
};

/* Takes fd. NULL: no memory. */
struct vmstream *vmstream_create(struct event_base *base, int fd, const struct vmstream_ops *ops, void *user);
/* Allowed from within a callback. NULL allowed. */
void vmstream_destroy(struct vmstream *s);
/* Ready to take a datagram: none waits. */
bool vmstream_can_send(const struct vmstream *s);
/* Only while vmstream_can_send. 0, also when it has to wait. -EMSGSIZE. */
int vmstream_send(struct vmstream *s, enum stream_kind kind, struct str data);
int vmstream_send_record(struct vmstream *s, enum stream_kind kind, const struct wire_type *t, const void *record);
/* Back-pressure: while off, data is not called. */
void vmstream_read_enable(struct vmstream *s, bool on);
