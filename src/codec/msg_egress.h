#pragma once
/* irond and iron-control -> iron-egress; writers <-> iron-audit. */
#include "codec/wire.h"

/* irond -> iron-egress, with 4 descriptors: the TPROXY TCP listener, the UDP 53 socket, the NFLOG socket, the memfd of
 * the VM's name table. Answered by msg_result. Nothing passes until a policy is committed. */
#define MSG_VM_ATTACH_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, generation, 0) F(T, str, name, 63)
WIRE_DECLARE(msg_vm_attach, MSG_VM_ATTACH_FIELDS);
/* Connections are cut, descriptors closed, records written; then answered. */
#define MSG_VM_DETACH_FIELDS(F, T) F(T, u64, vm, 0)
WIRE_DECLARE(msg_vm_detach, MSG_VM_DETACH_FIELDS);

/* A rule as the API shows it, in canonical form: host lower-case ASCII or a literal address; ports, methods and paths
 * empty where the rule has none; tls 0 intercept 1 passthrough; action 0 allow 1 deny. The same record is a rule's row
 * in the API and in the store. */
#define REC_RULE_FIELDS(F, T)                                                                                          \
	F(T, u64, id, 0)                                                                                               \
	F(T, flag, workspace_wide, 0)                                                                                  \
	F(T, str, name, 63)                                                                                            \
	F(T, str, host, 255)                                                                                           \
	F(T, str, cidr, 49)                                                                                            \
	F(T, list, ports, 1536) /* u64 items */                                                                        \
	F(T, list, methods, 1024)                                                                                      \
	F(T, list, paths, 32768)                                                                                       \
	F(T, u8, tls, 1)                                                                                               \
	F(T, u8, action, 1)                                                                                            \
	F(T, list, addresses, 4096)                                                                                    \
	F(T, str, preset, 63)                                                                                          \
	F(T, str, comment, 255)                                                                                        \
	F(T, i64, created_at, 0)
WIRE_DECLARE(rec_rule, REC_RULE_FIELDS);

/* A VM's whole policy, replaced at commit: begin, rules × n, commit. version grows. mode: 0 enforce, 1 warn.
 * Commit is answered by msg_result once it holds for new work and connections it no longer allows are cut;
 * -ESTALE for an older version, -EPROTO for a wrong count. */
#define MSG_POLICY_BEGIN_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, version, 0) F(T, u8, mode, 1) F(T, u32, rules, 10000)
WIRE_DECLARE(msg_policy_begin, MSG_POLICY_BEGIN_FIELDS);
/* rule: an encoded rec_rule. */
#define MSG_POLICY_RULE_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, version, 0) F(T, str, rule, 49152)
WIRE_DECLARE(msg_policy_rule, MSG_POLICY_RULE_FIELDS);
#define MSG_POLICY_COMMIT_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, version, 0)
WIRE_DECLARE(msg_policy_commit, MSG_POLICY_COMMIT_FIELDS);

/* records: list of items, each u16 record type (codec/record.h) and the encoded record. txn is not 0. */
#define MSG_AUDIT_BATCH_FIELDS(F, T) F(T, flag, durable, 0) F(T, list, records, 126976)
WIRE_DECLARE(msg_audit_batch, MSG_AUDIT_BATCH_FIELDS);
/* The batch is in the journal's file (durable: and synced). The i-th record has sequence first_seq + i.
 * code: 0, or why nothing of the batch was written (-ENOSPC, -EBADMSG …). -EDQUOT: vm is over its budget of the journal (0:
 * the writer itself is, or has too much open); without that VM's records the batch may be sent again at once. */
#define MSG_AUDIT_ACK_FIELDS(F, T)                                                                                     \
	F(T, i64, code, 0) F(T, u64, first_seq, 0) F(T, u32, count, 0) F(T, u64, vm, 0)
WIRE_DECLARE(msg_audit_ack, MSG_AUDIT_ACK_FIELDS);
/* iron-audit -> iron-control: what is written so far. Sent at connect and after each turn that wrote. */
#define MSG_AUDIT_HEAD_FIELDS(F, T) F(T, u64, segment, 0) F(T, u64, offset, 0) F(T, u64, seq, 0)
WIRE_DECLARE(msg_audit_head, MSG_AUDIT_HEAD_FIELDS);
