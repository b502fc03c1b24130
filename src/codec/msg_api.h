#pragma once
/* iron-api -> iron-control: one request an API call, already validated against the API's tables; answered by rows and
 * then msg_done, all with the request's txn. Every request begins with who asks. */
#include "codec/wire.h"

/* Which record carries which op, and the rows of its answer:
 *   VM_CREATE vm_create: vm · VM_LIST vm_list: vm* · VM_GET, VM_START object: vm · VM_STOP vm_stop: vm · VM_DELETE object
 *   VM_PATCH vm_patch: vm · VM_SESSIONS vm_page: session* · VM_STATS object: stats
 *   VM_EXEC…, VM_FILE…, VM_CONSOLE vm_open: value is the token · (VM_)POLICY_GET object, PUT policy_put, DELETE object: policy
 *   (VM_)RULE_LIST rule_list: rule* · CREATE rule_create: rule · DELETE object · AUDIT_EGRESS events_list: event*
 *   IMAGE_LIST page: image* · IMAGE_GET object: image · KEY_LIST page: key* · KEY_CREATE key_create: key · KEY_DELETE object
 *   PRESET_LIST page: preset* · PRESET_ADD preset: preset · PRESET_REMOVE preset
 *   AUDIT_SUMMARY summary_get: summary* · AUDIT_EVENTS generals_list: general* · EGRESS_EXPLAIN explain: explain, rule*
 *   ME page: me · HOST page: host, role* · HEALTHZ page · READYZ page: role* (then 200, or 503 that names who is silent)
 * DELETE ends with 204 and no row, VM_POLICY_DELETE too; CREATE with 201. An op in another record is a fault (500).
 *
 * key_hash: SHA-256 of the bearer key, empty when there was none. op: enum api_op (model/op.h), which decides the scope.
 * address: the client's; client: its User-Agent, cut.
 * idempotency_key: the header's value, empty: there was none (or the method is not POST). fingerprint: SHA-256 of method,
 * path, query and body, with it. */
#define REQ(F, T)                                                                                                      \
	F(T, str, key_hash, 32)                                                                                        \
	F(T, u16, op, 0)                                                                                               \
	F(T, str, address, 64)                                                                                         \
	F(T, str, client, 128)                                                                                         \
	F(T, str, idempotency_key, 255)                                                                                \
	F(T, str, fingerprint, 32)

/* The prefix of every request, to read before its own record. */
#define MSG_REQ_FIELDS(F, T) REQ(F, T)
WIRE_DECLARE(msg_req, MSG_REQ_FIELDS);

/* egress_mode: 0 enforce, 1 warn, 2 inherit. rules: list of rec_rule (ids 0), at most 64; rules_tls_given: bit i: tls of
 * the i-th was asked for. labels: list of "k=v". ports etc. are in canonical form only after policy/rule.h has been over them, which is iron-control's work. */
#define MSG_VM_CREATE_FIELDS(F, T)                                                                                     \
	REQ(F, T)                                                                                                      \
	F(T, str, name, 63)                                                                                            \
	F(T, str, public_key, 16384)                                                                                   \
	F(T, str, image, 63)                                                                                           \
	F(T, u32, vcpus, 32)          /* 0: the default shape's */                                                     \
	F(T, u32, memory_mib, 262144) /* 0: the default shape's */                                                     \
	F(T, u32, disk_gib, 2048)     /* 0: 10 */                                                                      \
	F(T, list, labels, 8192)                                                                                       \
	F(T, u8, egress_mode, 2)                                                                                       \
	F(T, flag, egress_inherit, 0)                                                                                  \
	F(T, list, rules, 98304)                                                                                       \
	F(T, u64, rules_tls_given, 0)                                                                                  \
	F(T, u8, restart, 1) /* enum vm_restart */                                                                     \
	F(T, list, presets, 1088) /* names (policy/preset.h), whose rules it gets too */
WIRE_DECLARE(msg_vm_create, MSG_VM_CREATE_FIELDS);

/* status, status_detail, label_key/label_value, name: filters, empty: none. cursor: as given, opaque. sort: 0
 * default, 1 created_at, 2 updated_at, 3 name. order: 0 default, 1 asc, 2 desc. */
#define MSG_VM_LIST_FIELDS(F, T)                                                                                       \
	REQ(F, T)                                                                                                      \
	F(T, str, status, 31)                                                                                          \
	F(T, str, status_detail, 31)                                                                                   \
	F(T, str, name, 63)                                                                                            \
	F(T, str, label_key, 63)                                                                                       \
	F(T, str, label_value, 255)                                                                                    \
	F(T, str, cursor, 255)                                                                                         \
	F(T, u32, limit, 100)                                                                                          \
	F(T, u8, sort, 3)                                                                                              \
	F(T, u8, order, 2)
WIRE_DECLARE(msg_vm_list, MSG_VM_LIST_FIELDS);

/* One object of a kind that op names. vm: the VM of a path /vms/:id and below, 0 for the workspace's. id: the rule, image or
 * key; 0 where the VM itself is meant. wait_ms: hold the answer until ready, or that long. force: DELETE
 * /vms/:id?force=true. */
#define MSG_OBJECT_FIELDS(F, T)                                                                                        \
	REQ(F, T) F(T, u64, vm, 0) F(T, u64, id, 0) F(T, u32, wait_ms, 25000) F(T, flag, force, 0)
WIRE_DECLARE(msg_object, MSG_OBJECT_FIELDS);

/* What is absent stays: name empty, labels_given false, restart 0 (else enum vm_restart + 1). */
#define MSG_VM_PATCH_FIELDS(F, T)                                                                                      \
	REQ(F, T)                                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, str, name, 63)                                                                                            \
	F(T, flag, labels_given, 0)                                                                                    \
	F(T, list, labels, 8192)                                                                                       \
	F(T, u8, restart, 2)
WIRE_DECLARE(msg_vm_patch, MSG_VM_PATCH_FIELDS);

/* A list that belongs to a VM and has no filters of its own. */
#define MSG_VM_PAGE_FIELDS(F, T) REQ(F, T) F(T, u64, vm, 0) F(T, str, cursor, 255) F(T, u32, limit, 200)
WIRE_DECLARE(msg_vm_page, MSG_VM_PAGE_FIELDS);

#define MSG_VM_STOP_FIELDS(F, T) REQ(F, T) F(T, u64, vm, 0)
WIRE_DECLARE(msg_vm_stop, MSG_VM_STOP_FIELDS);

/* A byte channel into a VM for what op says: a command, earlier ones, files, the console. Answered by msg_done with
 * value, its token: the stream comes (or came) to iron-api from irond as msg_stream{token}; a new command is listed under
 * that id. exec: the earlier one that is meant. user, argv, tty, detach, path, to: for the record only, cut to fit. */
#define MSG_VM_OPEN_FIELDS(F, T)                                                                                       \
	REQ(F, T)                                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, exec, 0)                                                                                             \
	F(T, str, user, 63)                                                                                            \
	F(T, list, argv, 4096)                                                                                         \
	F(T, flag, tty, 0)                                                                                             \
	F(T, flag, detach, 0)                                                                                          \
	F(T, str, path, 4096)                                                                                          \
	F(T, str, to, 4096)
WIRE_DECLARE(msg_vm_open, MSG_VM_OPEN_FIELDS);

/* vm 0: the workspace's. mode: 0 enforce, 1 warn; 255: absent. */
#define MSG_POLICY_PUT_FIELDS(F, T) REQ(F, T) F(T, u64, vm, 0) F(T, u8, mode, 255)
WIRE_DECLARE(msg_policy_put, MSG_POLICY_PUT_FIELDS);

#define MSG_RULE_LIST_FIELDS(F, T)                                                                                     \
	REQ(F, T)                                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, str, host, 255)                                                                                           \
	F(T, str, cidr, 49)                                                                                            \
	F(T, str, name, 63)                                                                                            \
	F(T, str, cursor, 255)                                                                                         \
	F(T, u32, limit, 200)                                                                                          \
	F(T, u8, sort, 2)                                                                                              \
	F(T, u8, order, 2)
WIRE_DECLARE(msg_rule_list, MSG_RULE_LIST_FIELDS);

/* rule: an encoded rec_rule as asked for (raw host, ports …; tls 0/1, or tls_given false). */
#define MSG_RULE_CREATE_FIELDS(F, T) REQ(F, T) F(T, u64, vm, 0) F(T, flag, tls_given, 0) F(T, str, rule, 49152)
WIRE_DECLARE(msg_rule_create, MSG_RULE_CREATE_FIELDS);

/* Of the workspace. */
#define MSG_PRESET_FIELDS(F, T) REQ(F, T) F(T, str, name, 63)
WIRE_DECLARE(msg_preset, MSG_PRESET_FIELDS);

/* verdict: 0 any, 1 allowed, 2 denied (denied and warn), 3 warn, 4 blocked. allowed, mode: 0 any, else value + 1.
 * protocol: 0 any. since, until: ms since 1970, 0: none. order: 0 default. */
#define MSG_EVENTS_LIST_FIELDS(F, T)                                                                                   \
	REQ(F, T)                                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u8, verdict, 4)                                                                                           \
	F(T, u8, allowed, 2)                                                                                           \
	F(T, u8, mode, 2)                                                                                              \
	F(T, u8, protocol, 7)                                                                                          \
	F(T, str, host, 255)                                                                                           \
	F(T, str, cidr, 49)                                                                                            \
	F(T, i64, since, 0)                                                                                            \
	F(T, i64, until, 0)                                                                                            \
	F(T, str, cursor, 255)                                                                                         \
	F(T, u32, limit, 500)                                                                                          \
	F(T, u8, order, 2)
WIRE_DECLARE(msg_events_list, MSG_EVENTS_LIST_FIELDS);

/* vm: 0 all. since, until: as above. */
#define MSG_SUMMARY_GET_FIELDS(F, T) REQ(F, T) F(T, u64, vm, 0) F(T, i64, since, 0) F(T, i64, until, 0)
WIRE_DECLARE(msg_summary_get, MSG_SUMMARY_GET_FIELDS);

/* kind: exact, empty: all. vm, key: 0 all. The rest as above. */
#define MSG_GENERALS_LIST_FIELDS(F, T)                                                                                 \
	REQ(F, T)                                                                                                      \
	F(T, str, kind, 31)                                                                                            \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, key, 0)                                                                                              \
	F(T, i64, since, 0)                                                                                            \
	F(T, i64, until, 0)                                                                                            \
	F(T, str, cursor, 255)                                                                                         \
	F(T, u32, limit, 500)                                                                                          \
	F(T, u8, order, 2)
WIRE_DECLARE(msg_generals_list, MSG_GENERALS_LIST_FIELDS);

/* host: a name or an address, as a person writes it. port 0: 443, or 80 for protocol http. protocol: 0 what the rest says,
 * 1 http, 2 tls, 3 tcp. method, path: empty: GET, "/". */
#define MSG_EXPLAIN_FIELDS(F, T)                                                                                       \
	REQ(F, T)                                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, str, host, 255)                                                                                           \
	F(T, u16, port, 0)                                                                                             \
	F(T, u8, protocol, 3)                                                                                          \
	F(T, str, method, 32)                                                                                          \
	F(T, str, path, 1024)
WIRE_DECLARE(msg_explain, MSG_EXPLAIN_FIELDS);

/* scopes: bit set of enum scope (model/scope.h). expires_at: ms, 0: never. */
#define MSG_KEY_CREATE_FIELDS(F, T) REQ(F, T) F(T, str, name, 63) F(T, u32, scopes, 0) F(T, i64, expires_at, 0)
WIRE_DECLARE(msg_key_create, MSG_KEY_CREATE_FIELDS);

/* A list without filters of its own (keys, images), or a call without parameters (host, ready, me). */
#define MSG_PAGE_FIELDS(F, T) REQ(F, T) F(T, str, cursor, 255) F(T, u32, limit, 200) F(T, str, name, 63)
WIRE_DECLARE(msg_page, MSG_PAGE_FIELDS);

/* For the record: an API call that ended in iron-api itself (401 without a key, 404, 422 …), or the latency and status
 * of one that did not. count: not a call, but so many of which nothing else is told, because iron-control was away.
 * Not answered. */
#define MSG_API_RECORD_FIELDS(F, T)                                                                                    \
	REQ(F, T) F(T, str, method, 16) F(T, str, path, 255) F(T, u16, status, 999) F(T, u32, duration_us, 0)  \
	F(T, u32, count, 0)
WIRE_DECLARE(msg_api_record, MSG_API_RECORD_FIELDS);

/* What a call with an Idempotency-Key was answered with, where iron-api alone knows it (exec, files): to be kept. status 0:
 * nothing was done, the key is free again. body: the whole answer's, or an empty one when it is too large to be kept. Not
 * answered. */
#define KEPT_BODY_MAX 65536
#define MSG_KEEP_FIELDS(F, T) REQ(F, T) F(T, u16, status, 999) F(T, str, body, KEPT_BODY_MAX)
WIRE_DECLARE(msg_keep, MSG_KEEP_FIELDS);

/* For the record: how what came of a msg_vm_open ended. exec: the command's id. outcome: "0" (an exit status), "done", or
 * the code of an error. sent: bytes into the VM. Not answered. */
#define MSG_VM_CLOSED_FIELDS(F, T)                                                                                     \
	REQ(F, T)                                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, exec, 0)                                                                                             \
	F(T, str, path, 4096)                                                                                          \
	F(T, str, outcome, 63)                                                                                         \
	F(T, u64, sent, 0)                                                                                             \
	F(T, u64, received, 0)
WIRE_DECLARE(msg_vm_closed, MSG_VM_CLOSED_FIELDS);

/* --- iron-control -> iron-api --- */

/* A kept answer of iron-api's own, in place of whatever the call would have got: then msg_done. */
#define ROW_KEPT_FIELDS(F, T) F(T, u16, status, 999) F(T, str, body, KEPT_BODY_MAX)
WIRE_DECLARE(row_kept, ROW_KEPT_FIELDS);

/* replayed: the answer is one that was kept (Idempotency-Key). status: the HTTP status; 200-299: the rows before it are the answer. code, message: the error object's. cursor "" is
 * null. value: exec's token. retry_after_s: 0, none. */
#define MSG_DONE_FIELDS(F, T)                                                                                          \
	F(T, u16, status, 999)                                                                                         \
	F(T, str, code, 63)                                                                                            \
	F(T, str, message, 512)                                                                                        \
	F(T, flag, has_more, 0)                                                                                        \
	F(T, str, cursor, 255)                                                                                         \
	F(T, u64, value, 0)                                                                                            \
	F(T, u32, retry_after_s, 0)                                                                                    \
	F(T, flag, replayed, 0)
WIRE_DECLARE(msg_done, MSG_DONE_FIELDS);

/* Times are ms since 1970, 0: absent. */
#define ROW_VM_FIELDS(F, T)                                                                                            \
	F(T, u64, id, 0)                                                                                               \
	F(T, str, name, 63)                                                                                            \
	F(T, str, status, 31)                                                                                          \
	F(T, str, status_detail, 31)                                                                                   \
	F(T, str, status_reason, 512)                                                                                  \
	F(T, str, image, 63)                                                                                           \
	F(T, u64, snapshot, 0)                                                                                         \
	F(T, u64, parent, 0)                                                                                           \
	F(T, u64, generation, 0)                                                                                       \
	F(T, u32, vcpus, 0)                                                                                            \
	F(T, u32, memory_mib, 0)                                                                                       \
	F(T, u32, disk_gib, 0)                                                                                         \
	F(T, list, labels, 8192)                                                                                       \
	F(T, i64, created_at, 0)                                                                                       \
	F(T, i64, updated_at, 0)                                                                                       \
	F(T, i64, started_at, 0)                                                                                       \
	F(T, i64, stopped_at, 0)                                                                                       \
	F(T, u8, restart, 1) /* enum vm_restart */
WIRE_DECLARE(row_vm, ROW_VM_FIELDS);

/* One run of a VM, from QEMU's start to its end, and what it used: all of it when it has ended, until the last sample (a
 * minute old at most) while it runs. duration_ms: until now while it runs. */
#define ROW_SESSION_FIELDS(F, T)                                                                                       \
	F(T, u64, id, 0)                                                                                               \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, generation, 0)                                                                                       \
	F(T, i64, started_at, 0)                                                                                       \
	F(T, i64, ended_at, 0)                                                                                         \
	F(T, u64, duration_ms, 0)                                                                                      \
	F(T, str, end_reason, 255)                                                                                     \
	F(T, u64, cpu_time_ms, 0)                                                                                      \
	F(T, u64, memory_peak_bytes, 0)                                                                                \
	F(T, u64, disk_bytes, 0)                                                                                       \
	F(T, u64, disk_read_bytes, 0)                                                                                  \
	F(T, u64, disk_written_bytes, 0)                                                                               \
	F(T, u64, network_sent_bytes, 0)                                                                               \
	F(T, u64, network_received_bytes, 0)
WIRE_DECLARE(row_session, ROW_SESSION_FIELDS);

/* What a VM uses now, and has used since its machine started; of one that does not run, what its last run used. */
#define ROW_STATS_FIELDS(F, T)                                                                                         \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, generation, 0)                                                                                       \
	F(T, flag, running, 0)                                                                                         \
	F(T, u64, cpu_time_ms, 0)                                                                                      \
	F(T, u64, memory_bytes, 0)                                                                                     \
	F(T, u64, memory_peak_bytes, 0)                                                                                \
	F(T, u64, memory_limit_bytes, 0)                                                                               \
	F(T, u64, disk_bytes, 0)                                                                                       \
	F(T, u64, disk_limit_bytes, 0)                                                                                 \
	F(T, u64, disk_read_bytes, 0)                                                                                  \
	F(T, u64, disk_written_bytes, 0)                                                                               \
	F(T, u64, network_sent_bytes, 0)                                                                               \
	F(T, u64, network_received_bytes, 0)                                                                           \
	F(T, u64, uptime_ms, 0)
WIRE_DECLARE(row_stats, ROW_STATS_FIELDS);

#define ROW_POLICY_FIELDS(F, T) F(T, u8, mode, 1) F(T, flag, inherited, 0)
WIRE_DECLARE(row_policy, ROW_POLICY_FIELDS);

/* rule: an encoded rec_rule. */
#define ROW_RULE_FIELDS(F, T) F(T, str, rule, 49152)
WIRE_DECLARE(row_rule, ROW_RULE_FIELDS);

/* added: the workspace has all of its rules. rules: list of encoded rec_rule, of no id. */
#define ROW_PRESET_FIELDS(F, T)                                                                                        \
	F(T, str, name, 63) F(T, str, description, 255) F(T, flag, added, 0) F(T, list, rules, 16384)
WIRE_DECLARE(row_preset, ROW_PRESET_FIELDS);

/* closed: status_code, bytes and duration are known. */
#define ROW_EVENT_FIELDS(F, T)                                                                                         \
	F(T, u64, seq, 0)                                                                                              \
	F(T, i64, timestamp, 0)                                                                                        \
	F(T, u64, vm, 0)                                                                                               \
	F(T, str, host, 255)                                                                                           \
	F(T, str, cidr, 49)                                                                                            \
	F(T, str, address, 45)                                                                                         \
	F(T, u16, port, 0)                                                                                             \
	F(T, u8, protocol, 7)                                                                                          \
	F(T, str, method, 32)                                                                                          \
	F(T, str, path, 1024)                                                                                          \
	F(T, flag, closed, 0)                                                                                          \
	F(T, u16, status, 999)                                                                                         \
	F(T, u64, bytes_sent, 0)                                                                                       \
	F(T, u64, bytes_received, 0)                                                                                   \
	F(T, u32, duration_ms, 0)                                                                                      \
	F(T, u8, verdict, 3)                                                                                           \
	F(T, u8, mode, 1)                                                                                              \
	F(T, u64, rule, 0)                                                                                             \
	F(T, list, secrets, 2048)                                                                                      \
	F(T, str, reason, 255)
WIRE_DECLARE(row_event, ROW_EVENT_FIELDS);

/* host empty: all hosts that are not listed by themselves, together. */
#define ROW_SUMMARY_FIELDS(F, T)                                                                                       \
	F(T, str, host, 255)                                                                                           \
	F(T, u64, total, 0)                                                                                            \
	F(T, u64, allowed, 0)                                                                                          \
	F(T, u64, warned, 0)                                                                                           \
	F(T, u64, denied, 0)                                                                                           \
	F(T, u64, bytes_sent, 0)                                                                                       \
	F(T, u64, bytes_received, 0)
WIRE_DECLARE(row_summary, ROW_SUMMARY_FIELDS);

/* detail: a JSON object. client: what the caller's User-Agent said, where an API call caused it. */
#define ROW_GENERAL_FIELDS(F, T)                                                                                       \
	F(T, u64, seq, 0)                                                                                              \
	F(T, i64, timestamp, 0)                                                                                        \
	F(T, str, kind, 31)                                                                                            \
	F(T, str, action, 63)                                                                                          \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, key, 0)                                                                                              \
	F(T, str, key_name, 63)                                                                                        \
	F(T, str, address, 64)                                                                                         \
	F(T, str, client, 128)                                                                                         \
	F(T, str, outcome, 63)                                                                                         \
	F(T, str, detail, 8192)
WIRE_DECLARE(row_general, ROW_GENERAL_FIELDS);

/* protocol: what it was judged as (1 http, 2 tls, 3 tcp). rule: the encoded rec_rule that decides, empty where none does.
 * Followed by a row_rule for each that matched. */
#define ROW_EXPLAIN_FIELDS(F, T)                                                                                       \
	F(T, u8, verdict, 3)                                                                                           \
	F(T, u8, mode, 1)                                                                                              \
	F(T, u8, protocol, 3)                                                                                          \
	F(T, str, reason, 512)                                                                                         \
	F(T, str, rule, 49152)
WIRE_DECLARE(row_explain, ROW_EXPLAIN_FIELDS);

/* key: the key itself, in the answer to its creation only. */
#define ROW_KEY_FIELDS(F, T)                                                                                           \
	F(T, u64, id, 0)                                                                                               \
	F(T, str, name, 63)                                                                                            \
	F(T, str, key, 127)                                                                                            \
	F(T, str, hint, 31)                                                                                            \
	F(T, u32, scopes, 0)                                                                                           \
	F(T, i64, created_at, 0)                                                                                       \
	F(T, i64, expires_at, 0)                                                                                       \
	F(T, i64, last_used_at, 0)
WIRE_DECLARE(row_key, ROW_KEY_FIELDS);

/* Whose key this is. */
#define ROW_ME_FIELDS(F, T)                                                                                            \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, str, workspace_name, 63)                                                                                  \
	F(T, u64, key, 0)                                                                                              \
	F(T, str, key_name, 63)                                                                                        \
	F(T, u32, scopes, 0)                                                                                           \
	F(T, i64, expires_at, 0)
WIRE_DECLARE(row_me, ROW_ME_FIELDS);

#define ROW_IMAGE_FIELDS(F, T)                                                                                         \
	F(T, u64, id, 0)                                                                                               \
	F(T, str, name, 63)                                                                                            \
	F(T, str, hash, 64)                                                                                            \
	F(T, str, kernel, 127)                                                                                         \
	F(T, str, made_from, 1024)                                                                                     \
	F(T, u64, size_bytes, 0)                                                                                       \
	F(T, i64, created_at, 0)
WIRE_DECLARE(row_image, ROW_IMAGE_FIELDS);

/* host: an encoded msg_host; the rest is iron-control's own count. Followed by row_role rows. */
#define ROW_HOST_FIELDS(F, T)                                                                                          \
	F(T, str, host, 4096)                                                                                          \
	F(T, u32, vms_running, 0)                                                                                      \
	F(T, u32, vms_total, 0)                                                                                        \
	F(T, u64, memory_committed_mib, 0)                                                                             \
	F(T, u64, memory_budget_mib, 0)
WIRE_DECLARE(row_host, ROW_HOST_FIELDS);

/* For GET /metrics, which has no key and is no operation of the API: row_vm_count a state, row_index, then as HOST. */
#define MSG_METRICS_GET_FIELDS(F, T)
WIRE_DECLARE(msg_metrics_get, MSG_METRICS_GET_FIELDS);
/* state: enum vm_state. */
#define ROW_VM_COUNT_FIELDS(F, T) F(T, u8, state, 0) F(T, u64, vms, 0)
WIRE_DECLARE(row_vm_count, ROW_VM_COUNT_FIELDS);
/* The audit index: sequence of the last record that is in it, and of the journal's last. */
#define ROW_INDEX_FIELDS(F, T)                                                                                         \
	F(T, u64, indexed, 0)                                                                                          \
	F(T, u64, written, 0)                                                                                          \
	F(T, u64, skipped, 0)                                                                                          \
	F(T, flag, whole, 0)
WIRE_DECLARE(row_index, ROW_INDEX_FIELDS);
/* role: an encoded msg_role_row. */
#define ROW_ROLE_FIELDS(F, T) F(T, str, role, 512)
WIRE_DECLARE(row_role, ROW_ROLE_FIELDS);
