#pragma once
/* What irond tells its roles at their start, and what iron-control may ask of irond. A request to irond carries ids and
 * bounded integers only: paths, uids, command lines and nft text are irond's own. */
#include "codec/wire.h"

/* Which process is at the other end of a channel (msg_peer.role). */
enum role { ROLE_IROND, ROLE_API, ROLE_CONTROL, ROLE_VM, ROLE_EGRESS, ROLE_VAULT, ROLE_AUDIT, ROLE_SSH, ROLE_WORKER };

/* The general answer. code: 0 or a negative errno; reason: one sentence for a person. */
#define MSG_RESULT_FIELDS(F, T) F(T, i64, code, 0) F(T, str, reason, 512) F(T, u64, value, 0)
WIRE_DECLARE(msg_result, MSG_RESULT_FIELDS);

/* irond -> role, with one descriptor: from now on that is the channel to `role` (id: the VM's or the workspace's, 0 for
 * a role there is one of). It replaces an earlier one to the same. */
#define MSG_PEER_FIELDS(F, T) F(T, u8, role, 8) F(T, u64, id, 0)
WIRE_DECLARE(msg_peer, MSG_PEER_FIELDS);

/* Answered by msg_result at once: the role's loop turns. */
#define MSG_PING_FIELDS(F, T)
WIRE_DECLARE(msg_ping, MSG_PING_FIELDS);

/* --- the life of a role --- */

/* Ends by itself, now. A role whose channel merely closes may wait for another irond (prog/role_parent.h). */
#define MSG_END_FIELDS(F, T)
WIRE_DECLARE(msg_end, MSG_END_FIELDS);
/* The first message of an irond that was started after the one that started the role. Answered by what it needs again
 * (iron-api: msg_listeners; iron-egress: one msg_door a VM), then msg_result; value: a bit set of enum role, whose
 * channels the role still has. From the answer on it takes new things again. */
#define MSG_ADOPT_FIELDS(F, T)
WIRE_DECLARE(msg_adopt, MSG_ADOPT_FIELDS);
/* The API's `n` listening sockets; metrics: the last of them is that of GET /metrics. */
#define MSG_LISTENERS_FIELDS(F, T) F(T, u8, n, 9) F(T, flag, metrics, 0)
WIRE_DECLARE(msg_listeners, MSG_LISTENERS_FIELDS);
/* A VM that is attached, with what msg_vm_attach gave: TCP listener, DNS socket, NFLOG socket. */
#define MSG_DOOR_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, generation, 0)
WIRE_DECLARE(msg_door, MSG_DOOR_FIELDS);
/* irond -> iron-vm, when QEMU is gone that was not its child, so that nobody told it how. Answered by msg_result once QMP
 * is closed; value 1: QEMU announced its end (power off, quit), 0: it was cut off. */
#define MSG_VM_END_GET_FIELDS(F, T)
WIRE_DECLARE(msg_vm_end_get, MSG_VM_END_GET_FIELDS);

/* Descriptors: certificate (PEM), private key (PEM), then `listeners` listening sockets; metrics: the last of them is
 * that of GET /metrics, in the clear. */
#define MSG_API_CONFIG_FIELDS(F, T)                                                                                    \
	F(T, u8, listeners, 9)                                                                                         \
	F(T, flag, metrics, 0)                                                                                         \
	F(T, flag, tls, 0)                                                                                             \
	F(T, str, public_host, 253)                                                                                    \
	F(T, u32, max_connections, 0)                                                                                  \
	F(T, u32, max_body_bytes, 0)                                                                                   \
	F(T, u32, idle_timeout_ms, 0)                                                                                  \
	F(T, u32, requests_per_key, 0)     /* a second; 0: no limit */                                                 \
	F(T, u32, requests_per_address, 0) /* the same */                                                              \
	F(T, u32, failures_per_address, 0) /* the same */
WIRE_DECLARE(msg_api_config, MSG_API_CONFIG_FIELDS);
/* Another certificate and key. Descriptors: both, as in msg_api_config. */
#define MSG_API_TLS_FIELDS(F, T)
WIRE_DECLARE(msg_api_tls, MSG_API_TLS_FIELDS);

/* extra_ca: PEM of egress.extra_ca_files, for msg_contract.trust. shapes: list of rec_shape. synthetic_base/_prefix: IPv4, host order. private_allow: list of rec_private. */
#define REC_SHAPE_FIELDS(F, T) F(T, str, name, 63) F(T, u32, vcpus, 32) F(T, u32, memory_mib, 262144)
WIRE_DECLARE(rec_shape, REC_SHAPE_FIELDS);
#define REC_PRIVATE_FIELDS(F, T) F(T, str, cidr, 49) F(T, list, hosts, 16384)
WIRE_DECLARE(rec_private, REC_PRIVATE_FIELDS);
#define MSG_CONTROL_CONFIG_FIELDS(F, T)                                                                                \
	F(T, str, state_dir, 255)                                                                                      \
	F(T, list, shapes, 8192)                                                                                       \
	F(T, u32, synthetic_base, 0)                                                                                   \
	F(T, u8, synthetic_prefix, 32)                                                                                 \
	F(T, list, private_allow, 65536)                                                                               \
	F(T, list, never_dial, 32768)                                                                                  \
	F(T, u32, index_days, 0)                                                                                       \
	F(T, u32, max_vms, 0)                                                                                          \
	F(T, u32, max_vms_per_workspace, 0)                                                                            \
	F(T, u32, memory_budget_mib, 0)                                                                                \
	F(T, u32, boot_timeout_ms, 0)                                                                                  \
	F(T, u32, stop_timeout_ms, 0)                                                                                  \
	F(T, str, default_image, 63)                                                                                   \
	F(T, str, extra_ca, 49152)                                                                                     \
	F(T, list, packages, 8192)     /* egress.packages: NAME=HOST[:PORT] each */                                    \
	F(T, u32, restart_pause_ms, 0) /* before the first start of restart: always; 0: a second */
WIRE_DECLARE(msg_control_config, MSG_CONTROL_CONFIG_FIELDS);

/* Descriptors: connected sockets to QMP, the agent channel, the serial console. */
#define MSG_VM_CONFIG_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, generation, 0) F(T, u32, boot_timeout_ms, 0)
WIRE_DECLARE(msg_vm_config, MSG_VM_CONFIG_FIELDS);

/* resolvers: list of "address" or "address#port". never_dial: list of CIDRs. private_allow: list of rec_private. */
#define MSG_EGRESS_CONFIG_FIELDS(F, T)                                                                                 \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, list, resolvers, 1024)                                                                                    \
	F(T, list, never_dial, 32768)                                                                                  \
	F(T, list, private_allow, 65536)                                                                               \
	F(T, u32, synthetic_base, 0)                                                                                   \
	F(T, u8, synthetic_prefix, 32)                                                                                 \
	F(T, u32, max_connections_per_vm, 0)                                                                           \
	F(T, u32, peek_timeout_ms, 0)                                                                                  \
	F(T, u32, connect_timeout_ms, 0)                                                                               \
	F(T, u32, idle_timeout_ms, 0)                                                                                  \
	F(T, u32, total_timeout_ms, 0)
WIRE_DECLARE(msg_egress_config, MSG_EGRESS_CONFIG_FIELDS);

/* Descriptor: the journal's directory (O_PATH is not enough: segments are created in it with openat). */
#define MSG_AUDIT_CONFIG_FIELDS(F, T) F(T, u32, segment_bytes, 0) F(T, u32, sync_interval_ms, 0)
WIRE_DECLARE(msg_audit_config, MSG_AUDIT_CONFIG_FIELDS);

/* --- iron-control -> irond; each is answered by msg_result unless said otherwise --- */

/* A VM's uids, directory and top overlay are made. Again for the same VM: -EEXIST. -ENOENT: no such image.
 * -ENOSPC: no room or no uid left. */
#define MSG_VM_PREPARE_FIELDS(F, T)                                                                                    \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, workspace, 0)                                                                                        \
	F(T, u64, image, 0)                                                                                            \
	F(T, u32, vcpus, 32)                                                                                           \
	F(T, u32, memory_mib, 262144)                                                                                  \
	F(T, u32, disk_gib, 2048)
WIRE_DECLARE(msg_vm_prepare, MSG_VM_PREPARE_FIELDS);

/* Namespace, door, QEMU and iron-vm. Answered when all of them run; before the answer iron-control has been sent
 * msg_peer for the VM's iron-vm (and for the workspace's iron-egress when that is new). */
#define MSG_VM_START_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, generation, 0)
WIRE_DECLARE(msg_vm_start, MSG_VM_START_FIELDS);
/* SIGKILL to the VM's cgroup; answered when nothing of it runs. 0 too when it did not run. */
#define MSG_VM_KILL_FIELDS(F, T) F(T, u64, vm, 0)
WIRE_DECLARE(msg_vm_kill, MSG_VM_KILL_FIELDS);
/* Everything of a VM that does not run is removed: directory, overlay, uids. 0 too when there was nothing. */
#define MSG_VM_REMOVE_FIELDS(F, T) F(T, u64, vm, 0)
WIRE_DECLARE(msg_vm_remove, MSG_VM_REMOVE_FIELDS);
/* A byte channel to the VM's iron-vm (codec/stream.h) is handed to iron-api as msg_stream{token}, before the answer. */
#define MSG_VM_STREAM_FIELDS(F, T) F(T, u64, vm, 0) F(T, u64, token, 0)
WIRE_DECLARE(msg_vm_stream, MSG_VM_STREAM_FIELDS);
/* Answered by msg_segment with a read-only descriptor, or by msg_result -ENOENT. */
#define MSG_SEGMENT_OPEN_FIELDS(F, T) F(T, u64, number, 0)
WIRE_DECLARE(msg_segment_open, MSG_SEGMENT_OPEN_FIELDS);
#define MSG_SEGMENT_FIELDS(F, T) F(T, u64, number, 0)
WIRE_DECLARE(msg_segment, MSG_SEGMENT_FIELDS);
/* Answered by msg_host. */
#define MSG_HOST_GET_FIELDS(F, T)
WIRE_DECLARE(msg_host_get, MSG_HOST_GET_FIELDS);
/* isolation: "process" under TCG, "hardware" under KVM. sandbox: "full" or what is missing. accelerator_reason: why.
 * load_1m_percent: the kernel's load average of the last minute, in percent of one CPU (cpus * 100: all are in use). */
#define MSG_HOST_FIELDS(F, T)                                                                                          \
	F(T, str, version, 63)                                                                                         \
	F(T, str, accelerator, 15)                                                                                     \
	F(T, str, accelerator_reason, 255)                                                                             \
	F(T, str, isolation, 15)                                                                                       \
	F(T, str, sandbox, 255)                                                                                        \
	F(T, str, encryption, 63)                                                                                      \
	F(T, str, qemu_version, 127)                                                                                   \
	F(T, str, kernel, 127)                                                                                         \
	F(T, str, cgroup, 15)                                                                                          \
	F(T, u32, cpus, 0)                                                                                             \
	F(T, u64, memory_total_mib, 0)                                                                                 \
	F(T, u64, memory_available_mib, 0)                                                                             \
	F(T, u64, disk_total_mib, 0)                                                                                   \
	F(T, u64, disk_available_mib, 0)                                                                               \
	F(T, u32, load_1m_percent, 0)
WIRE_DECLARE(msg_host, MSG_HOST_FIELDS);
/* Whether an IPv4 address (host order) is one of the host's own. Answered by msg_result: value 1 when it is. */
#define MSG_LOCAL_GET_FIELDS(F, T) F(T, u32, address, 0)
WIRE_DECLARE(msg_local_get, MSG_LOCAL_GET_FIELDS);
/* Answered by one msg_role_row a role that is to run, then msg_result. irond has pinged each: state "ok" or "silent"; one
 * that is between two lives is "starting" or "down". */
#define MSG_ROLES_GET_FIELDS(F, T)
WIRE_DECLARE(msg_roles_get, MSG_ROLES_GET_FIELDS);

/* iron-control gave up its channel to an iron-api that lives on: it is started anew, and linked again. */
#define MSG_API_LOST_FIELDS(F, T)
WIRE_DECLARE(msg_api_lost, MSG_API_LOST_FIELDS);
#define MSG_ROLE_ROW_FIELDS(F, T)                                                                                      \
	F(T, str, name, 31)                                                                                            \
	F(T, u64, id, 0)                                                                                               \
	F(T, str, state, 15)                                                                                           \
	F(T, i64, pid, 0)                                                                                              \
	F(T, u32, restarts, 0)                                                                                         \
	F(T, i64, started_at, 0)
WIRE_DECLARE(msg_role_row, MSG_ROLE_ROW_FIELDS);

/* --- irond -> iron-control --- */

/* Sent for every image at start and after a reload, then msg_images_end: what was not sent is gone. */
#define MSG_IMAGE_FIELDS(F, T)                                                                                         \
	F(T, u64, id, 0)                                                                                               \
	F(T, str, name, 63)                                                                                            \
	F(T, str, hash, 64)                                                                                            \
	F(T, str, kernel, 127)                                                                                         \
	F(T, str, made_from, 1024)                                                                                     \
	F(T, u64, size_bytes, 0)                                                                                       \
	F(T, i64, created_at, 0)
WIRE_DECLARE(msg_image, MSG_IMAGE_FIELDS);
#define MSG_IMAGES_END_FIELDS(F, T)
WIRE_DECLARE(msg_images_end, MSG_IMAGES_END_FIELDS);
/* What a run has used, from its start to now or to its end; numbers that the host could not tell are 0. cpu: of QEMU's
 * group. memory: of the same, with its page cache; peak: the most since the start. disk: what the overlay occupies on the
 * host; read and written: what QEMU made the host read from and write to its own disks (not what was in its memory
 * already). net: as the guest's card sent and received it, with Ethernet headers. */
#define REC_VM_USAGE_FIELDS(F, T)                                                                                      \
	F(T, u64, cpu_us, 0)                                                                                           \
	F(T, u64, memory_bytes, 0)                                                                                     \
	F(T, u64, memory_peak_bytes, 0)                                                                                \
	F(T, u64, memory_limit_bytes, 0)                                                                               \
	F(T, u64, disk_bytes, 0)                                                                                       \
	F(T, u64, disk_limit_bytes, 0)                                                                                 \
	F(T, u64, disk_read_bytes, 0)                                                                                  \
	F(T, u64, disk_written_bytes, 0)                                                                               \
	F(T, u64, net_sent_bytes, 0)                                                                                   \
	F(T, u64, net_received_bytes, 0)
WIRE_DECLARE(rec_vm_usage, REC_VM_USAGE_FIELDS);
/* QEMU is gone. status: wait status; reason: a sentence ("QEMU killed by signal 9", "out of memory", "powered off"), or exactly
 * "killed" where irond itself did it: for msg_vm_kill, or because it is told to stop. usage: an encoded rec_vm_usage, or
 * empty. */
#define MSG_VM_EXITED_FIELDS(F, T)                                                                                     \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, generation, 0)                                                                                       \
	F(T, i64, status, 0)                                                                                           \
	F(T, str, reason, 512)                                                                                         \
	F(T, str, usage, 256)
WIRE_DECLARE(msg_vm_exited, MSG_VM_EXITED_FIELDS);
/* `irond key create` as root: a key of the workspace of that name, which is made when there is none (empty: the default
 * one). scopes: bit set of enum scope, 0: all. expires_at: ms, 0: never. Answered by msg_result: code 0 and reason holds
 * the key, the only time that it is told; else why not. */
#define MSG_ROOT_KEY_CREATE_FIELDS(F, T)                                                                               \
	F(T, str, name, 63) F(T, u32, scopes, 0) F(T, i64, expires_at, 0) F(T, str, workspace, 63)
WIRE_DECLARE(msg_root_key_create, MSG_ROOT_KEY_CREATE_FIELDS);
/* For `irond status`: one msg_root_workspace each, oldest first, then msg_result. vms: those that are not destroyed. */
#define MSG_ROOT_WORKSPACES_GET_FIELDS(F, T)
WIRE_DECLARE(msg_root_workspaces_get, MSG_ROOT_WORKSPACES_GET_FIELDS);
#define MSG_ROOT_WORKSPACE_FIELDS(F, T)                                                                                \
	F(T, u64, id, 0) F(T, str, name, 63) F(T, u64, vms, 0) F(T, u64, running, 0) F(T, u64, keys, 0)
WIRE_DECLARE(msg_root_workspace, MSG_ROOT_WORKSPACE_FIELDS);

/* `irond audit reindex` as root, then how far it is: reset: the audit index is thrown away and built anew. Answered by
 * msg_index. */
#define MSG_INDEX_GET_FIELDS(F, T) F(T, flag, reset, 0)
WIRE_DECLARE(msg_index_get, MSG_INDEX_GET_FIELDS);
/* code: of the reset. skipped: what of the journal could not be read. */
#define MSG_INDEX_FIELDS(F, T) F(T, i64, code, 0) F(T, flag, whole, 0) F(T, u32, permille, 1000) F(T, u64, skipped, 0)
WIRE_DECLARE(msg_index, MSG_INDEX_FIELDS);

/* --- iron-control -> irond, at its start --- */

/* Which VMs irond knows, so that a new iron-control can compare: one msg_vm_row a prepared VM, then msg_result. */
#define MSG_VMS_GET_FIELDS(F, T)
WIRE_DECLARE(msg_vms_get, MSG_VMS_GET_FIELDS);
/* running: QEMU of `generation` runs, and usage is as of now. Otherwise status, reason and usage of its last exit as in
 * msg_vm_exited, when irond knows of it (exited). */
#define MSG_VM_ROW_FIELDS(F, T)                                                                                        \
	F(T, u64, vm, 0)                                                                                               \
	F(T, u64, generation, 0)                                                                                       \
	F(T, flag, running, 0)                                                                                         \
	F(T, flag, exited, 0)                                                                                          \
	F(T, i64, status, 0)                                                                                           \
	F(T, str, reason, 512)                                                                                         \
	F(T, str, usage, 256)
WIRE_DECLARE(msg_vm_row, MSG_VM_ROW_FIELDS);
/* A worker that did not acknowledge a policy in time: SIGKILL and start again, its VMs attached anew (their doors are
 * shut until iron-control commits a policy to the new one). Answered by msg_result when the old one is dead. */
#define MSG_EGRESS_RESTART_FIELDS(F, T) F(T, u64, workspace, 0)
WIRE_DECLARE(msg_egress_restart, MSG_EGRESS_RESTART_FIELDS);
/* Answered by msg_vm_stats, or by msg_result -ENOENT (no such VM). Of a VM that does not run (running 0) only the disk is
 * told. */
#define MSG_VM_STATS_GET_FIELDS(F, T) F(T, u64, vm, 0)
WIRE_DECLARE(msg_vm_stats_get, MSG_VM_STATS_GET_FIELDS);
#define MSG_VM_STATS_FIELDS(F, T)                                                                                      \
	F(T, u64, vm, 0) F(T, u64, generation, 0) F(T, flag, running, 0) REC_VM_USAGE_FIELDS(F, T)
WIRE_DECLARE(msg_vm_stats, MSG_VM_STATS_FIELDS);
