#pragma once
/* iron-control and irond <-> iron-vm. */
#include "codec/wire.h"

/* The contract of a boot (later: of a restore), run step by step against the agent as soon as it answers; the outcome is
 * msg_vm_state. environment: list of "K=V". trust: PEM of further authorities that the guest is to trust, put behind its own
 * bundle (row "trust"); empty: none. */
#define MSG_CONTRACT_FIELDS(F, T)                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, generation, 0)                                                                                       \
	F(T, str, hostname, 63)                                                                                        \
	F(T, str, machine_id, 32)                                                                                      \
	F(T, list, environment, 65536)                                                                                 \
	F(T, str, trust, 49152)                                                                                        \
	F(T, u32, deadline_ms, 0)
WIRE_DECLARE(msg_contract, MSG_CONTRACT_FIELDS);

/* The guest is asked to power off; QEMU is told to quit at the deadline. Answered by msg_result when it was asked. */
#define MSG_VM_SHUTDOWN_FIELDS(F, T) F(T, u64, vm, 0) F(T, u32, deadline_ms, 0)
WIRE_DECLARE(msg_vm_shutdown, MSG_VM_SHUTDOWN_FIELDS);

/* iron-vm -> iron-control. state: 1 booting (progress: step), 2 ready, 3 failed (step, reason), 4 the guest rebooted or
 * lost its agent, 5 powered off. ms: since iron-vm started. Sent at each change, and once to a new iron-control as soon
 * as its channel is there; a contract of the generation that has been fulfilled already is answered by state 2. */
enum vm_report { VM_REPORT_BOOTING = 1, VM_REPORT_READY, VM_REPORT_FAILED, VM_REPORT_LOST, VM_REPORT_OFF };
#define MSG_VM_STATE_FIELDS(F, T)                                                                                      \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, generation, 0)                                                                                       \
	F(T, u8, state, 5)                                                                                             \
	F(T, str, step, 63)                                                                                            \
	F(T, str, reason, 512)                                                                                         \
	F(T, u32, ms, 0)
WIRE_DECLARE(msg_vm_state, MSG_VM_STATE_FIELDS);

/* irond -> iron-vm: make a stream (codec/stream.h). Answered by msg_stream with a descriptor, or msg_result. */
#define MSG_STREAM_OPEN_FIELDS(F, T) F(T, u64, token, 0)
WIRE_DECLARE(msg_stream_open, MSG_STREAM_OPEN_FIELDS);
#define MSG_STREAM_FIELDS(F, T) F(T, u64, token, 0)
WIRE_DECLARE(msg_stream, MSG_STREAM_FIELDS);
