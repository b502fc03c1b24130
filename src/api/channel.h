#pragma once
/* A call's byte channel into its VM: asked of iron-control (which authorises and records it), handed over by irond
 * (rendezvous.h), spoken with iron-vm (codec/stream.h). While iron-control or the VM's process is between two lives, it is
 * asked for again for a few seconds before the call fails. How it ended goes on record. */
#include "api/call_internal.h"
#include "api/vmstream.h"

/* Open at a time for one VM; more are 429. */
#define CHANNELS_MAX 64

struct channel;
struct channel_ops {
	/* iron-vm is at the other end: send the request. */
	void (*opened)(void *user);
	/* One datagram; data is borrowed. */
	void (*data)(enum stream_kind kind, struct str data, void *user);
	/* It takes one again. */
	void (*writable)(void *user);
	/* It was refused, did not come, or the other end is gone. Nothing is called after it. */
	void (*failed)(const struct msg_done *why, void *user);
};

/* By c->params, which begin with a msg_vm_open. Holds the call. All callbacks run from the loop. */
struct channel *channel_create(struct call *c, const struct channel_ops *ops, void *user);
/* The call was answered with what an earlier one like it was: ends the work that the channel is for. */
void channel_drop(struct channel *ch);
/* Allowed from within a callback. NULL allowed. */
void channel_destroy(struct channel *ch);

/* Of the channel, and of the command that EXEC starts on it. Set once it is opened. */
uint64_t channel_id(const struct channel *ch);
bool channel_can_send(const struct channel *ch);
int channel_send(struct channel *ch, enum stream_kind kind, struct str data);
int channel_send_record(struct channel *ch, enum stream_kind kind, const struct wire_type *t, const void *record);
void channel_read_enable(struct channel *ch, bool on);
/* For the record; unless told otherwise the client left. */
void channel_note_outcome(struct channel *ch, struct str outcome);

/* A msg_done of our own: code and message are borrowed. */
struct msg_done channel_failure(enum api_code code, const char *message);
/* What an ERROR of the VM's says, as the API says it: text is the space of its message. */
struct msg_done channel_error(struct str payload, char *text, size_t size);
