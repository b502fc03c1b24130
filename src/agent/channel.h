#pragma once
/* The agent's end of the channel (codec/agent.h): connection, frames in, frames out. It never blocks; what it may
 * hold is bounded: input by one frame and the credit of streams, output by CHANNEL_HIGH for data and CHANNEL_FULL in
 * all (past which nothing more is read). */
#include "codec/agent.h"

#define CHANNEL_HIGH ((size_t)512 << 10)
#define CHANNEL_FULL ((size_t)2 << 20)

struct channel {
	int fd; /* -1: none */
	bool synced, held;
	uint8_t nonce[AGENT_NONCE_SIZE];
	struct buf in, out;
	size_t out_at; /* bytes of out that are written */
	/* A well-formed frame; false: a violation. */
	bool (*on_frame)(struct channel *c, const struct agent_frame *f, void *user);
	/* The connection is over, or another began: end all streams. */
	void (*on_reset)(struct channel *c, void *user);
	void *user;
};

void channel_init(struct channel *c);
void channel_finish(struct channel *c);

/* Owns fd, which is non-blocking. */
void channel_attach(struct channel *c, int fd);
/* The other side is gone: streams end, what was queued is dropped; the descriptor stays. */
void channel_reset(struct channel *c);

bool channel_wants_input(const struct channel *c);
bool channel_wants_output(const struct channel *c);
bool channel_has_room(const struct channel *c); /* for more data of streams */

/* 0; -EPIPE: end of file, the host is not connected; another error: the descriptor is of no use any more. */
int channel_read(struct channel *c);
int channel_write(struct channel *c);

void channel_send(struct channel *c, enum agent_type type, uint32_t stream, struct str payload);
void channel_send_record(struct channel *c, enum agent_type type, uint32_t stream, const struct wire_type *t,
			 const void *record);
void channel_send_credit(struct channel *c, uint32_t stream, uint32_t bytes);
/* One data frame read from fd, at most `max` bytes. >0: bytes sent; 0: end of file; negative errno. */
ssize_t channel_send_from(struct channel *c, enum agent_type type, uint32_t stream, int fd, size_t max);
