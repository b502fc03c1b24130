#pragma once
/* The records of the audit journal. Sequence, time and chain are the journal's frame (audit/journal.h); these are
 * the payloads. Strings are as the guest or peer sent them, bounded: whoever shows one escapes it. */
#include "codec/wire.h"

enum record_type { RECORD_OPEN = 1, RECORD_PROGRESS, RECORD_CLOSE, RECORD_DNS, RECORD_DROP, RECORD_EVENT };
enum egress_protocol { PROTO_HTTP = 1, PROTO_TLS, PROTO_TCP, PROTO_UDP, PROTO_DNS, PROTO_ICMP, PROTO_OTHER };
enum egress_verdict { VERDICT_ALLOWED = 1, VERDICT_DENIED, VERDICT_WARN };
enum egress_mode { MODE_ENFORCE, MODE_WARN };
/* How a connection or request ended. */
enum close_outcome { CLOSE_DONE = 1, CLOSE_DENIED, CLOSE_CUT, CLOSE_TIMEOUT, CLOSE_UPSTREAM, CLOSE_CLIENT, CLOSE_LIMIT, CLOSE_ABORTED };

/* Written before a byte goes upstream. host: the name or the literal asked for; address: the one dialled, empty when
 * nothing was; cidr: of the deciding rule. reason: why, for a person ("no rule allows api.example.com:443"). */
#define RECORD_OPEN_FIELDS(F, T)                                                                                       \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, u64, generation, 0)                                                                                       \
	F(T, u64, connection, 0) /* a later request of an HTTP connection: its first request's open; else 0 */         \
	F(T, str, host, 255)                                                                                           \
	F(T, str, cidr, 49)                                                                                            \
	F(T, str, address, 45)                                                                                         \
	F(T, u16, port, 0)                                                                                             \
	F(T, u8, protocol, 7)                                                                                          \
	F(T, str, method, 32)                                                                                          \
	F(T, str, path, 1024) /* without query, cut */                                                                 \
	F(T, u8, verdict, 3)                                                                                           \
	F(T, u8, mode, 1)                                                                                              \
	F(T, u64, rule, 0)                                                                                             \
	F(T, list, secrets, 2048)                                                                                      \
	F(T, str, reason, 255)
WIRE_DECLARE(record_open, RECORD_OPEN_FIELDS);
#define RECORD_PROGRESS_FIELDS(F, T) F(T, u64, open_seq, 0) F(T, u64, bytes_sent, 0) F(T, u64, bytes_received, 0)
WIRE_DECLARE(record_progress, RECORD_PROGRESS_FIELDS);
/* status: the HTTP status the guest got, 0 where there is none. address: where it was dialled at last. */
#define RECORD_CLOSE_FIELDS(F, T)                                                                                      \
	F(T, u64, open_seq, 0)                                                                                         \
	F(T, u64, bytes_sent, 0)                                                                                       \
	F(T, u64, bytes_received, 0)                                                                                   \
	F(T, u32, duration_ms, 0)                                                                                      \
	F(T, u16, status, 999)                                                                                         \
	F(T, u8, outcome, 8)                                                                                           \
	F(T, str, address, 45)                                                                                         \
	F(T, str, reason, 255)
WIRE_DECLARE(record_close, RECORD_CLOSE_FIELDS);
/* Counts since the last record of the same kind, at most one a second. answer: "address", "nxdomain", "empty",
 * "refused", "servfail". name: the last one asked. */
#define RECORD_DNS_FIELDS(F, T)                                                                                        \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, str, name, 255)                                                                                           \
	F(T, u16, qtype, 0)                                                                                            \
	F(T, str, answer, 15)                                                                                          \
	F(T, u32, count, 0)
WIRE_DECLARE(record_dns, RECORD_DNS_FIELDS);
#define RECORD_DROP_FIELDS(F, T)                                                                                       \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, u8, protocol, 7)                                                                                          \
	F(T, str, address, 45)                                                                                         \
	F(T, u16, port, 0)                                                                                             \
	F(T, str, reason, 63)                                                                                          \
	F(T, u32, count, 0)
WIRE_DECLARE(record_drop, RECORD_DROP_FIELDS);
/* The kinds of event, for who writes them and for who asks for one. */
#define EVENT_API "api"
#define EVENT_EXEC "exec"
#define EVENT_FILES "files"
#define EVENT_VM "vm"
#define EVENT_KEY "key"
#define EVENT_RULE "rule"
#define EVENT_POLICY "policy"
#define EVENT_IMAGE "image"
#define EVENT_AUDIT "audit"
#define EVENT_DAEMON "daemon"
#define EVENT_KINDS                                                                                                    \
	EVENT_API "|" EVENT_EXEC "|" EVENT_FILES "|" EVENT_VM "|" EVENT_KEY "|" EVENT_RULE "|" EVENT_POLICY            \
		  "|" EVENT_IMAGE "|" EVENT_AUDIT "|" EVENT_DAEMON

/* Everything on record that is not egress. kind: one of EVENT_KINDS. detail: a JSON object without secrets. */
#define RECORD_EVENT_FIELDS(F, T)                                                                                      \
	F(T, str, kind, 31)                                                                                            \
	F(T, str, action, 63)                                                                                          \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, key, 0)                                                                                              \
	F(T, str, address, 64)                                                                                         \
	F(T, str, outcome, 63)                                                                                         \
	F(T, str, detail, 8192)
WIRE_DECLARE(record_event, RECORD_EVENT_FIELDS);

/* The payload's description by record_type, NULL when unknown. */
const struct wire_type *record_wire(uint16_t type);
