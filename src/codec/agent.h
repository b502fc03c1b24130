#pragma once
/* The channel between a VM's iron-vm ("host") and the agent inside it ("guest"), over virtio-serial: a byte stream
 * that may lose its beginning, and whose two ends hold each other for hostile.
 *
 * A frame is a header of 12 bytes (u32 payload length, u16 type, u16 zero, u32 stream; little-endian) and the payload.
 * What may be sent by whom, on the channel (stream 0) or on a stream, and how long it may be, is AGENT_TABLE; a header
 * outside of it is -EBADMSG, and the end that sees one resets the connection: it has no resynchronisation but the
 * nonce.
 *
 * Connecting. The host sends HELLO with 16 random bytes, and repeats it, behind AGENT_FLUSH_SIZE bytes of 0xff (which
 * end any frame that an earlier connection left half-sent), until the guest echoes them in HELLO_ACK. The guest
 * answers every HELLO; one with a new nonce ends all streams (their processes get SIGHUP). Whoever is not in step
 * looks for the next HELLO (guest) or for the HELLO_ACK with its own nonce (host) and drops what comes before, with
 * agent_sync. The guest never speaks unasked outside of a stream, so whatever follows the echo belongs to this
 * connection.
 *
 * Streams. The host opens one with EXEC, or another request of codec/stream.h, under an id greater than any before in
 * this connection. The guest answers as described there and, at last, with exactly one of EXIT, DONE, ERROR or CLOSED;
 * the id is over then. EXEC_ROW and INFO use up the guest's credit like data, by the length of their payload. CLOSE
 * (host): nobody listens any more: SIGHUP to the process of an EXEC that is not detached, and a FILE that is not
 * through is undone; the guest answers CLOSED, or has sent another end already. The same at a new nonce. Frames for an
 * id that is over are dropped by the guest, for one that was never opened they are a violation.
 *
 * Credit. A stream begins with AGENT_WINDOW bytes each way (STDIN; STDOUT and STDERR together). Data uses it up,
 * CREDIT gives some back to the receiver of that frame; sending past it, or giving more than AGENT_WINDOW in all, is a
 * violation.
 *
 * Hold. Before a snapshot the host sends HOLD; HELD is the last thing that the guest says until RESUME or a HELLO. */
#include "codec/stream.h"
#include "codec/wire.h"

#define AGENT_VERSION 1
#define AGENT_HEADER_SIZE ((size_t)12)
#define AGENT_NONCE_SIZE ((size_t)16)
#define AGENT_MAGIC "iron-agent-sync\n"
#define AGENT_HELLO_SIZE ((size_t)36) /* magic, u32 version, nonce */
#define AGENT_DATA_MAX STREAM_DATA_MAX
#define AGENT_PAYLOAD_MAX STREAM_DATAGRAM_MAX
#define AGENT_FRAME_MAX (AGENT_HEADER_SIZE + AGENT_PAYLOAD_MAX)
#define AGENT_FLUSH_SIZE (AGENT_FRAME_MAX + AGENT_HEADER_SIZE)
#define AGENT_WINDOW ((uint32_t)512 << 10)
#define AGENT_STREAMS_MAX 256 /* open at a time in a connection */

enum agent_side { AGENT_HOST = 1, AGENT_GUEST = 2, AGENT_EITHER = 3 };
enum agent_scope { AGENT_CHANNEL, AGENT_STREAM };

/* A(number, name, sender, scope, least and most bytes of payload). 96-127 are kept for streams to the guest's local
 * ports. */
#define AGENT_TABLE(A)                                                                                                 \
	A(1, HELLO, AGENT_HOST, AGENT_CHANNEL, AGENT_HELLO_SIZE, AGENT_HELLO_SIZE)                                     \
	A(2, HELLO_ACK, AGENT_GUEST, AGENT_CHANNEL, AGENT_HELLO_SIZE, AGENT_HELLO_SIZE)                                \
	A(3, PING, AGENT_HOST, AGENT_CHANNEL, 8, 8)        /* any 8 bytes, answered at once */                         \
	A(4, PONG, AGENT_GUEST, AGENT_CHANNEL, 8, 8)       /* the same 8 bytes */                                      \
	A(5, HOLD, AGENT_HOST, AGENT_CHANNEL, 0, 0)                                                                    \
	A(6, HELD, AGENT_GUEST, AGENT_CHANNEL, 0, 0)                                                                   \
	A(7, RESUME, AGENT_HOST, AGENT_CHANNEL, 0, 0)                                                                  \
	A(8, STEP, AGENT_HOST, AGENT_CHANNEL, 12, AGENT_PAYLOAD_MAX) /* agent_step */                                  \
	A(9, STEP_DONE, AGENT_GUEST, AGENT_CHANNEL, 16, 1024)       /* agent_step_done, one a STEP, in order */    \
	A(10, SHUTDOWN, AGENT_HOST, AGENT_CHANNEL, 0, 0)             /* power off; not answered */                     \
	A(32, EXEC, AGENT_HOST, AGENT_STREAM, 1, AGENT_PAYLOAD_MAX)  /* stream_exec */                                 \
	A(33, STARTED, AGENT_GUEST, AGENT_STREAM, 0, 0)                                                                \
	A(34, STDIN, AGENT_HOST, AGENT_STREAM, 1, AGENT_DATA_MAX)                                                      \
	A(35, STDIN_EOF, AGENT_HOST, AGENT_STREAM, 0, 0)                                                               \
	A(36, STDOUT, AGENT_GUEST, AGENT_STREAM, 1, AGENT_DATA_MAX) /* and all that a pty says */                      \
	A(37, STDERR, AGENT_GUEST, AGENT_STREAM, 1, AGENT_DATA_MAX)                                                    \
	A(38, SIGNAL, AGENT_HOST, AGENT_STREAM, 1, 1)  /* stream_signal */                                             \
	A(39, RESIZE, AGENT_HOST, AGENT_STREAM, 4, 4)  /* stream_resize */                                             \
	A(40, EXIT, AGENT_GUEST, AGENT_STREAM, 4, 4)   /* stream_exit; all output came before it */                    \
	A(41, ERROR, AGENT_GUEST, AGENT_STREAM, 8, 1024) /* stream_error; it did not start */                          \
	A(42, CREDIT, AGENT_EITHER, AGENT_STREAM, 4, 4)  /* u32 bytes */                                               \
	A(43, CLOSE, AGENT_HOST, AGENT_STREAM, 0, 0)                                                                   \
	A(44, CLOSED, AGENT_GUEST, AGENT_STREAM, 0, 0)                                                                 \
	A(64, ATTACH, AGENT_HOST, AGENT_STREAM, 1, 64)                /* stream_attach; opens a stream, as EXEC does */ \
	A(65, EXECS, AGENT_HOST, AGENT_STREAM, 0, 0)                  /* opens one */                                  \
	A(66, EXEC_SIGNAL, AGENT_HOST, AGENT_STREAM, 1, 64)           /* stream_exec_signal; opens one */              \
	A(67, EXEC_REMOVE, AGENT_HOST, AGENT_STREAM, 1, 64)           /* stream_exec_ref; opens one */                 \
	A(68, FILE, AGENT_HOST, AGENT_STREAM, 1, AGENT_PAYLOAD_MAX)   /* stream_file; opens one */                     \
	A(69, EXEC_ROW, AGENT_GUEST, AGENT_STREAM, 1, AGENT_DATA_MAX) /* stream_exec_row */                            \
	A(70, INFO, AGENT_GUEST, AGENT_STREAM, 1, AGENT_DATA_MAX)     /* stream_file_info */                           \
	A(71, DONE, AGENT_GUEST, AGENT_STREAM, 0, 0)                  /* an end, like EXIT */

#define AGENT_ENUM(number, name, sender, scope, least, most) AGENT_##name = (number),
enum agent_type { AGENT_TABLE(AGENT_ENUM) };

struct agent_frame {
	enum agent_type type;
	uint32_t stream;
	struct str payload; /* borrowed */
};

/* "STDOUT"; "?" for none of the table. */
const char *agent_type_name(unsigned type);

/* A frame appended to out. -EINVAL: not in the table (a bug of the caller's). -EMSGSIZE: the buffer's ceiling. */
int agent_frame_encode(enum agent_type type, uint32_t stream, struct str payload, struct buf *out);
/* The same for a payload that is a record. */
int agent_record_encode(enum agent_type type, uint32_t stream, const struct wire_type *t, const void *record,
			struct buf *out);
/* The header alone, for a payload of `len` bytes that is sent by other means. */
int agent_header_encode(enum agent_type type, uint32_t stream, size_t len, uint8_t ret[AGENT_HEADER_SIZE]);

/* Takes one frame that `sender` may send off *in. 1: *ret is set and *in moved past it; 0: more bytes are needed;
 * -EBADMSG: as soon as a header shows it. */
int agent_frame_next(struct str *in, enum agent_side sender, struct agent_frame *ret);

int agent_hello_encode(enum agent_type type, const uint8_t nonce[AGENT_NONCE_SIZE], struct buf *out);
/* -EBADMSG: another magic. The version is the caller's to judge. */
int agent_hello_decode(struct str payload, uint32_t *ret_version, uint8_t ret_nonce[AGENT_NONCE_SIZE]);
/* Looks for the next whole HELLO or HELLO_ACK in any bytes. 1: found, *in is past it; 0: not yet, and *in is moved past
 * all that cannot be the beginning of one. */
int agent_sync(struct str *in, enum agent_type type, uint32_t *ret_version, uint8_t ret_nonce[AGENT_NONCE_SIZE]);

int agent_credit_encode(uint32_t stream, uint32_t bytes, struct buf *out);
/* -EBADMSG: 0, or more than a window. */
int agent_credit_decode(struct str payload, uint32_t *ret_bytes);

/* --- the contract: steps that the host asks for by name, each with a record of its own --- */

#define AGENT_STEP_FIELDS(F, T) F(T, u32, id, 0) F(T, str, name, 31) F(T, str, body, 90000)
WIRE_DECLARE(agent_step, AGENT_STEP_FIELDS);
/* code: 0 or a negative errno (Linux's numbers); reason: one sentence, hostile text. */
#define AGENT_STEP_DONE_FIELDS(F, T) F(T, u32, id, 0) F(T, i64, code, 0) F(T, str, reason, 400)
WIRE_DECLARE(agent_step_done, AGENT_STEP_DONE_FIELDS);

/* address, gateway: IPv4, host order. */
#define AGENT_NETWORK_FIELDS(F, T)                                                                                     \
	F(T, str, interface, 15) F(T, u32, address, 0) F(T, u8, prefix, 32) F(T, u32, gateway, 0)
WIRE_DECLARE(agent_network, AGENT_NETWORK_FIELDS);
/* servers: list of addresses as text. */
#define AGENT_DNS_FIELDS(F, T) F(T, list, servers, 256)
WIRE_DECLARE(agent_dns, AGENT_DNS_FIELDS);
/* real_us: microseconds since 1970, UTC, when it was sent. */
#define AGENT_CLOCK_FIELDS(F, T) F(T, i64, real_us, 0)
WIRE_DECLARE(agent_clock, AGENT_CLOCK_FIELDS);
/* seed: bytes of the host's own generator. */
#define AGENT_ENTROPY_FIELDS(F, T) F(T, str, seed, 512)
WIRE_DECLARE(agent_entropy, AGENT_ENTROPY_FIELDS);
#define AGENT_IDENTITY_FIELDS(F, T) F(T, str, hostname, 63) F(T, str, machine_id, 32)
WIRE_DECLARE(agent_identity, AGENT_IDENTITY_FIELDS);
/* environment: list of "K=V"; the whole of it: what was there before is gone. */
#define AGENT_ENVIRONMENT_FIELDS(F, T) F(T, list, environment, 65536)
WIRE_DECLARE(agent_environment, AGENT_ENVIRONMENT_FIELDS);
/* pem: authorities to be trusted beside the guest's own; the whole of them: what was there before is gone. */
#define AGENT_TRUST_FIELDS(F, T) F(T, str, pem, 49152)
WIRE_DECLARE(agent_trust, AGENT_TRUST_FIELDS);
#define AGENT_GENERATION_FIELDS(F, T) F(T, u64, generation, 0)
WIRE_DECLARE(agent_generation, AGENT_GENERATION_FIELDS);

/* S(name, its record): in the order of a boot. */
#define AGENT_STEPS(S)                                                                                                 \
	S(network, agent_network)                                                                                      \
	S(dns, agent_dns)                                                                                              \
	S(clock, agent_clock)                                                                                          \
	S(entropy, agent_entropy)                                                                                      \
	S(identity, agent_identity)                                                                                    \
	S(environment, agent_environment)                                                                              \
	S(trust, agent_trust)                                                                                          \
	S(generation, agent_generation)
