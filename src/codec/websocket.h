#pragma once
/* WebSocket frames (RFC 6455), both ends: bytes in, values out. No extensions, so a reserved bit is an error. Messages are
 * put together from fragments here, bounded; control frames may come between fragments. */
#include <stdbool.h>

#include "base/buf.h"

enum ws_opcode { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

/* Close codes, section 7.4.1. */
enum ws_close {
	WS_CLOSE_NORMAL = 1000,
	WS_CLOSE_GOING_AWAY = 1001,
	WS_CLOSE_PROTOCOL = 1002,
	WS_CLOSE_UNSUPPORTED = 1003,
	WS_CLOSE_INVALID = 1007,
	WS_CLOSE_POLICY = 1008,
	WS_CLOSE_TOO_BIG = 1009,
	WS_CLOSE_INTERNAL = 1011,
	WS_CLOSE_TRY_LATER = 1013,
};

struct ws_decoder {
	bool peer_masks;    /* we are the server: every frame must be masked; the client: none may be */
	size_t max_message; /* bytes of one message, all fragments together */
	struct buf message; /* what has come of the present message */
	enum ws_opcode opcode; /* of the message being put together; WS_CONTINUATION: none */
	bool delivered;     /* message belongs to the last event: emptied at the next call */
	struct buf control; /* the last control frame's payload */
};

void ws_decoder_init(struct ws_decoder *d, bool peer_masks, size_t max_message);
void ws_decoder_finish(struct ws_decoder *d);

struct ws_event {
	enum ws_opcode opcode; /* WS_TEXT or WS_BINARY: a whole message; WS_CLOSE, WS_PING, WS_PONG */
	struct str payload;    /* borrowed until the next call; text is valid UTF-8 */
	uint16_t close_code;   /* WS_CLOSE: 1005 when it carried none; payload is then the reason */
};

/* Takes whole frames from the front of *in, moving it past them. 1: *ret is an event; 0: more bytes are needed (nothing
 * of an unfinished frame was taken, so *in must be kept). -EPROTO: close with WS_CLOSE_PROTOCOL; -EMSGSIZE: with
 * WS_CLOSE_TOO_BIG; -EILSEQ (text that is not UTF-8): with WS_CLOSE_INVALID. */
int ws_decode(struct ws_decoder *d, struct str *in, struct ws_event *ret);

/* Bytes that a frame may take at most beyond its payload. */
#define WS_FRAME_OVERHEAD 14

/* One unfragmented frame appended. mask: NULL (server) or 4 fresh random bytes (client). -EMSGSIZE. */
int ws_encode(enum ws_opcode opcode, struct str payload, const uint8_t mask[4], struct buf *out);
int ws_encode_close(uint16_t code, const char *reason, const uint8_t mask[4], struct buf *out);

/* Sec-WebSocket-Accept for a key (28 characters and a NUL). -EINVAL when the key is not 16 bytes in base64. */
int ws_accept(struct str key, char ret[29]);
