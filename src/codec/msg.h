#pragma once
/* The messages between iron's processes: one table of {number, record, most descriptors}. Who may send which to whom is
 * in the receiving program's own table (os/ipc.h, struct ipc_rule).
 *
 * A message on the wire: u16 type, u16 zero, u32 txn, then the record. txn 0: a notice; otherwise a request, and its
 * answer carries the same txn. A message is one SOCK_SEQPACKET datagram of at most MSG_MAX bytes.
 */
#include "codec/msg_api.h"
#include "codec/msg_broker.h"
#include "codec/msg_egress.h"
#include "codec/msg_vm.h"
#include "codec/record.h"
#include "codec/wire.h"

#define MSG_MAX ((size_t)128 << 10)
#define MSG_HEADER_SIZE 8
#define MSG_MAX_FDS 12

/* M(number, record, most descriptors) */
#define MSG_TABLE(M)                                                                                                   \
	/* any */                                                                                                      \
	M(1, msg_result, 1)                                                                                            \
	M(2, msg_peer, 1)                                                                                              \
	M(3, msg_ping, 0)                                                                                              \
	M(4, msg_end, 0)                                                                                               \
	M(5, msg_adopt, 0)                                                                                             \
	M(6, msg_listeners, 9)                                                                                         \
	M(7, msg_door, 3)                                                                                              \
	M(8, msg_vm_end_get, 0)                                                                                        \
	/* irond -> role, once, first */                                                                               \
	M(10, msg_api_config, 11)                                                                                      \
	M(11, msg_control_config, 0)                                                                                   \
	M(12, msg_vm_config, 3)                                                                                        \
	M(13, msg_egress_config, 0)                                                                                    \
	M(14, msg_audit_config, 1)                                                                                     \
	/* irond -> iron-api */                                                                                        \
	M(15, msg_api_tls, 2)                                                                                          \
	/* iron-control -> irond */                                                                                    \
	M(20, msg_vm_prepare, 0)                                                                                       \
	M(21, msg_vm_start, 0)                                                                                         \
	M(22, msg_vm_kill, 0)                                                                                          \
	M(23, msg_vm_remove, 0)                                                                                        \
	M(24, msg_vm_stream, 0)                                                                                        \
	M(25, msg_segment_open, 0)                                                                                     \
	M(26, msg_host_get, 0)                                                                                         \
	M(27, msg_segment, 1)                                                                                          \
	M(28, msg_host, 0)                                                                                             \
	M(29, msg_roles_get, 0)                                                                                        \
	/* irond -> iron-control */                                                                                    \
	M(30, msg_image, 0)                                                                                            \
	M(31, msg_images_end, 0)                                                                                       \
	M(32, msg_vm_exited, 0)                                                                                        \
	M(33, msg_role_row, 0)                                                                                         \
	M(34, msg_root_key_create, 0)                                                                                  \
	M(35, msg_vms_get, 0)                                                                                          \
	M(36, msg_vm_row, 0)                                                                                           \
	M(37, msg_egress_restart, 0)                                                                                   \
	M(38, msg_vm_stats_get, 0)                                                                                     \
	M(39, msg_vm_stats, 0)                                                                                         \
	/* iron-control <-> iron-vm, irond -> iron-vm */                                                               \
	M(40, msg_contract, 0)                                                                                         \
	M(41, msg_vm_shutdown, 0)                                                                                      \
	M(42, msg_vm_state, 0)                                                                                         \
	M(43, msg_stream_open, 0)                                                                                      \
	M(44, msg_stream, 1)                                                                                           \
	/* irond, iron-control -> iron-egress */                                                                       \
	M(50, msg_vm_attach, 4)                                                                                        \
	M(51, msg_vm_detach, 0)                                                                                        \
	M(52, msg_policy_begin, 0)                                                                                     \
	M(53, msg_policy_rule, 0)                                                                                      \
	M(54, msg_policy_commit, 0)                                                                                    \
	/* writers <-> iron-audit, iron-audit -> iron-control */                                                       \
	M(60, msg_audit_batch, 0)                                                                                      \
	M(61, msg_audit_ack, 0)                                                                                        \
	M(62, msg_audit_head, 0)                                                                                       \
	/* iron-api -> iron-control */                                                                                 \
	M(70, msg_vm_create, 0)                                                                                        \
	M(71, msg_vm_list, 0)                                                                                          \
	M(72, msg_object, 0)                                                                                           \
	M(73, msg_vm_stop, 0)                                                                                          \
	M(74, msg_vm_open, 0)                                                                                          \
	M(75, msg_policy_put, 0)                                                                                       \
	M(76, msg_rule_list, 0)                                                                                        \
	M(77, msg_rule_create, 0)                                                                                      \
	M(78, msg_events_list, 0)                                                                                      \
	M(79, msg_key_create, 0)                                                                                       \
	M(80, msg_page, 0)                                                                                             \
	M(81, msg_api_record, 0)                                                                                       \
	M(120, msg_vm_patch, 0)                                                                                        \
	M(121, msg_vm_page, 0)                                                                                         \
	M(89, msg_vm_closed, 0)                                                                                        \
	/* iron-control -> iron-api: rows, then done */                                                                \
	M(90, msg_done, 0)                                                                                             \
	M(91, row_vm, 0)                                                                                               \
	M(92, row_policy, 0)                                                                                           \
	M(93, row_rule, 0)                                                                                             \
	M(94, row_event, 0)                                                                                            \
	M(95, row_key, 0)                                                                                              \
	M(96, row_image, 0)                                                                                            \
	M(97, row_host, 0)                                                                                             \
	M(98, row_role, 0)                                                                                             \
	M(122, row_session, 0)                                                                                         \
	M(124, msg_root_workspaces_get, 0)                                                                             \
	M(125, msg_root_workspace, 0)                                                                                  \
	M(123, row_stats, 0)                                                                                           \
	M(99, row_me, 0)                                                                                               \
	/* the record, read: iron-api -> iron-control, and its rows */                                                 \
	M(137, msg_local_get, 0)                                                                                       \
	M(126, msg_api_lost, 0)                                                                                        \
	M(138, msg_index_get, 0)                                                                                       \
	M(139, msg_index, 0)                                                                                           \
	M(140, msg_summary_get, 0)                                                                                     \
	M(141, msg_generals_list, 0)                                                                                   \
	M(142, msg_explain, 0)                                                                                         \
	M(145, row_summary, 0)                                                                                         \
	M(146, row_general, 0)                                                                                         \
	M(147, row_explain, 0)                                                                                         \
	/* Idempotency-Key */                                                                                          \
	M(150, msg_keep, 0)                                                                                            \
	M(151, row_kept, 0)                                                                                            \
	/* presets */                                                                                                  \
	M(152, msg_preset, 0)                                                                                          \
	M(153, row_preset, 0)                                                                                          \
	/* GET /metrics */                                                                                             \
	M(160, msg_metrics_get, 0)                                                                                     \
	M(161, row_vm_count, 0)                                                                                        \
	M(162, row_index, 0)

#define MSG_ENUM(number, record, fds) MSG_TYPE_##record = (number),
enum msg_type { MSG_TABLE(MSG_ENUM) };

struct msg_info {
	uint16_t type;
	uint16_t max_fds;
	const struct wire_type *wire;
};

/* NULL for an unknown number. */
const struct msg_info *msg_info_find(uint16_t type);

/* Largest decoded record; decode into a union or a buffer of this size and alignment 16. */
#define MSG_RECORD_MAX 1024

/* Header and record appended to out. -EMSGSIZE, -EINVAL. */
int msg_encode(enum msg_type type, uint32_t txn, const void *record, struct buf *out);
/* -EBADMSG. Strings in ret_record borrow from `in`. ret_record has room for MSG_RECORD_MAX bytes. */
int msg_decode(struct str in, const struct msg_info **ret_info, uint32_t *ret_txn, void *ret_record);
