#pragma once
/* The client's end of the exec WebSocket: one text frame that says what to run, then binary frames whose first byte is a
 * channel. RFC 6455 over a connection of client_connect_raw. */
#include "base/str.h"
#include "cli/client.h"

struct ws;

enum channel { CHANNEL_STDIN = 0, CHANNEL_STDOUT = 1, CHANNEL_STDERR = 2, CHANNEL_CONTROL = 3 };

/* path: below /v1. first: sent as the text frame (borrowed). An API error instead of 101 is -EREMOTEIO with its message. */
int ws_open(struct client *c, const char *path, const json_t *first, struct ws **ret, struct error *reterr);
void ws_destroy(struct ws *w);

/* To poll: readable when there may be something for ws_receive. */
int ws_fd(const struct ws *w);
/* Queues one binary frame and sends what the peer takes: it never waits, since a peer that waits for us to receive takes
 * nothing. While ws_wants_write, poll for writing too, call ws_flush, and give nothing new but what is short. -EIO. */
int ws_send(struct ws *w, enum channel channel, const void *p, size_t n);
int ws_send_control(struct ws *w, json_t *control); /* steals control */
bool ws_wants_write(const struct ws *w);
int ws_flush(struct ws *w);

/* 1 with one message (borrowed until the next call), 0 when there is none yet, -EPIPE at the end of the stream, -EIO or
 * -EPROTO with a reason. Pings are answered inside. */
int ws_receive(struct ws *w, enum channel *ret_channel, struct str *ret, struct error *reterr);
