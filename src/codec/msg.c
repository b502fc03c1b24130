#include "codec/msg.h"

#include <endian.h>
#include <errno.h>

WIRE_DEFINE(msg_result, MSG_RESULT_FIELDS);
WIRE_DEFINE(msg_peer, MSG_PEER_FIELDS);
WIRE_DEFINE(msg_ping, MSG_PING_FIELDS);
WIRE_DEFINE(msg_end, MSG_END_FIELDS);
WIRE_DEFINE(msg_adopt, MSG_ADOPT_FIELDS);
WIRE_DEFINE(msg_listeners, MSG_LISTENERS_FIELDS);
WIRE_DEFINE(msg_door, MSG_DOOR_FIELDS);
WIRE_DEFINE(msg_vm_end_get, MSG_VM_END_GET_FIELDS);
WIRE_DEFINE(msg_api_config, MSG_API_CONFIG_FIELDS);
WIRE_DEFINE(rec_shape, REC_SHAPE_FIELDS);
WIRE_DEFINE(rec_private, REC_PRIVATE_FIELDS);
WIRE_DEFINE(msg_control_config, MSG_CONTROL_CONFIG_FIELDS);
WIRE_DEFINE(msg_vm_config, MSG_VM_CONFIG_FIELDS);
WIRE_DEFINE(msg_egress_config, MSG_EGRESS_CONFIG_FIELDS);
WIRE_DEFINE(msg_audit_config, MSG_AUDIT_CONFIG_FIELDS);
WIRE_DEFINE(msg_vm_prepare, MSG_VM_PREPARE_FIELDS);
WIRE_DEFINE(msg_vm_start, MSG_VM_START_FIELDS);
WIRE_DEFINE(msg_vm_kill, MSG_VM_KILL_FIELDS);
WIRE_DEFINE(msg_vm_remove, MSG_VM_REMOVE_FIELDS);
WIRE_DEFINE(msg_vm_stream, MSG_VM_STREAM_FIELDS);
WIRE_DEFINE(msg_segment_open, MSG_SEGMENT_OPEN_FIELDS);
WIRE_DEFINE(msg_segment, MSG_SEGMENT_FIELDS);
WIRE_DEFINE(msg_host_get, MSG_HOST_GET_FIELDS);
WIRE_DEFINE(msg_host, MSG_HOST_FIELDS);
WIRE_DEFINE(msg_roles_get, MSG_ROLES_GET_FIELDS);
WIRE_DEFINE(msg_api_lost, MSG_API_LOST_FIELDS);
WIRE_DEFINE(msg_role_row, MSG_ROLE_ROW_FIELDS);
WIRE_DEFINE(msg_image, MSG_IMAGE_FIELDS);
WIRE_DEFINE(msg_images_end, MSG_IMAGES_END_FIELDS);
WIRE_DEFINE(msg_vm_exited, MSG_VM_EXITED_FIELDS);
WIRE_DEFINE(msg_root_key_create, MSG_ROOT_KEY_CREATE_FIELDS);
WIRE_DEFINE(msg_root_workspaces_get, MSG_ROOT_WORKSPACES_GET_FIELDS);
WIRE_DEFINE(msg_root_workspace, MSG_ROOT_WORKSPACE_FIELDS);
WIRE_DEFINE(msg_vms_get, MSG_VMS_GET_FIELDS);
WIRE_DEFINE(msg_vm_row, MSG_VM_ROW_FIELDS);
WIRE_DEFINE(msg_egress_restart, MSG_EGRESS_RESTART_FIELDS);
WIRE_DEFINE(rec_vm_usage, REC_VM_USAGE_FIELDS);
WIRE_DEFINE(msg_vm_stats_get, MSG_VM_STATS_GET_FIELDS);
WIRE_DEFINE(msg_vm_stats, MSG_VM_STATS_FIELDS);
WIRE_DEFINE(msg_contract, MSG_CONTRACT_FIELDS);
WIRE_DEFINE(msg_vm_shutdown, MSG_VM_SHUTDOWN_FIELDS);
WIRE_DEFINE(msg_vm_state, MSG_VM_STATE_FIELDS);
WIRE_DEFINE(msg_stream_open, MSG_STREAM_OPEN_FIELDS);
WIRE_DEFINE(msg_stream, MSG_STREAM_FIELDS);
WIRE_DEFINE(msg_vm_attach, MSG_VM_ATTACH_FIELDS);
WIRE_DEFINE(msg_vm_detach, MSG_VM_DETACH_FIELDS);
WIRE_DEFINE(rec_rule, REC_RULE_FIELDS);
WIRE_DEFINE(msg_policy_begin, MSG_POLICY_BEGIN_FIELDS);
WIRE_DEFINE(msg_policy_rule, MSG_POLICY_RULE_FIELDS);
WIRE_DEFINE(msg_policy_commit, MSG_POLICY_COMMIT_FIELDS);
WIRE_DEFINE(msg_audit_batch, MSG_AUDIT_BATCH_FIELDS);
WIRE_DEFINE(msg_audit_ack, MSG_AUDIT_ACK_FIELDS);
WIRE_DEFINE(msg_audit_head, MSG_AUDIT_HEAD_FIELDS);
WIRE_DEFINE(record_open, RECORD_OPEN_FIELDS);
WIRE_DEFINE(record_progress, RECORD_PROGRESS_FIELDS);
WIRE_DEFINE(record_close, RECORD_CLOSE_FIELDS);
WIRE_DEFINE(record_dns, RECORD_DNS_FIELDS);
WIRE_DEFINE(record_drop, RECORD_DROP_FIELDS);
WIRE_DEFINE(record_event, RECORD_EVENT_FIELDS);
WIRE_DEFINE(msg_req, MSG_REQ_FIELDS);
WIRE_DEFINE(msg_vm_create, MSG_VM_CREATE_FIELDS);
WIRE_DEFINE(msg_vm_list, MSG_VM_LIST_FIELDS);
WIRE_DEFINE(msg_object, MSG_OBJECT_FIELDS);
WIRE_DEFINE(msg_vm_stop, MSG_VM_STOP_FIELDS);
WIRE_DEFINE(msg_vm_patch, MSG_VM_PATCH_FIELDS);
WIRE_DEFINE(msg_vm_page, MSG_VM_PAGE_FIELDS);
WIRE_DEFINE(msg_vm_open, MSG_VM_OPEN_FIELDS);
WIRE_DEFINE(msg_policy_put, MSG_POLICY_PUT_FIELDS);
WIRE_DEFINE(msg_rule_list, MSG_RULE_LIST_FIELDS);
WIRE_DEFINE(msg_rule_create, MSG_RULE_CREATE_FIELDS);
WIRE_DEFINE(msg_events_list, MSG_EVENTS_LIST_FIELDS);
WIRE_DEFINE(msg_key_create, MSG_KEY_CREATE_FIELDS);
WIRE_DEFINE(msg_page, MSG_PAGE_FIELDS);
WIRE_DEFINE(msg_metrics_get, MSG_METRICS_GET_FIELDS);
WIRE_DEFINE(row_vm_count, ROW_VM_COUNT_FIELDS);
WIRE_DEFINE(row_index, ROW_INDEX_FIELDS);
WIRE_DEFINE(msg_api_record, MSG_API_RECORD_FIELDS);
WIRE_DEFINE(msg_vm_closed, MSG_VM_CLOSED_FIELDS);
WIRE_DEFINE(msg_done, MSG_DONE_FIELDS);
WIRE_DEFINE(row_vm, ROW_VM_FIELDS);
WIRE_DEFINE(row_session, ROW_SESSION_FIELDS);
WIRE_DEFINE(row_stats, ROW_STATS_FIELDS);
WIRE_DEFINE(row_policy, ROW_POLICY_FIELDS);
WIRE_DEFINE(row_rule, ROW_RULE_FIELDS);
WIRE_DEFINE(msg_preset, MSG_PRESET_FIELDS);
WIRE_DEFINE(row_preset, ROW_PRESET_FIELDS);
WIRE_DEFINE(row_event, ROW_EVENT_FIELDS);
WIRE_DEFINE(row_key, ROW_KEY_FIELDS);
WIRE_DEFINE(row_image, ROW_IMAGE_FIELDS);
WIRE_DEFINE(row_host, ROW_HOST_FIELDS);
WIRE_DEFINE(row_role, ROW_ROLE_FIELDS);
WIRE_DEFINE(row_me, ROW_ME_FIELDS);
WIRE_DEFINE(msg_local_get, MSG_LOCAL_GET_FIELDS);
WIRE_DEFINE(msg_index_get, MSG_INDEX_GET_FIELDS);
WIRE_DEFINE(msg_index, MSG_INDEX_FIELDS);
WIRE_DEFINE(msg_summary_get, MSG_SUMMARY_GET_FIELDS);
WIRE_DEFINE(msg_generals_list, MSG_GENERALS_LIST_FIELDS);
WIRE_DEFINE(msg_explain, MSG_EXPLAIN_FIELDS);
WIRE_DEFINE(row_summary, ROW_SUMMARY_FIELDS);
WIRE_DEFINE(row_general, ROW_GENERAL_FIELDS);
WIRE_DEFINE(row_explain, ROW_EXPLAIN_FIELDS);
WIRE_DEFINE(msg_api_tls, MSG_API_TLS_FIELDS);
WIRE_DEFINE(msg_keep, MSG_KEEP_FIELDS);
WIRE_DEFINE(row_kept, ROW_KEPT_FIELDS);

#define MSG_INFO(number, record, fds) {(number), (fds), &record##_wire},
#define MSG_FITS(number, record, fds) _Static_assert(sizeof(struct record) <= MSG_RECORD_MAX, #record " is too large");
MSG_TABLE(MSG_FITS)

const struct msg_info *msg_info_find(uint16_t type)
{
	static const struct msg_info infos[] = {MSG_TABLE(MSG_INFO)};

	for (size_t i = 0; i < sizeof infos / sizeof infos[0]; i++)
		if (infos[i].type == type)
			return &infos[i];
	return NULL;
}

int msg_encode(enum msg_type type, uint32_t txn, const void *record, struct buf *out)
{
	const struct msg_info *info = msg_info_find((uint16_t)type);
	size_t start = out->len;

	if (!info)
		return -EINVAL;
	buf_append_u16(out, (uint16_t)type);
	buf_append_u16(out, 0);
	buf_append_u32(out, txn);
	int r = out->failed ? -EMSGSIZE : wire_encode(info->wire, record, out);
	if (r == 0 && out->len - start > MSG_MAX)
		r = -EMSGSIZE;
	if (r)
		out->len = start;
	return r;
}

int msg_decode(struct str in, const struct msg_info **ret_info, uint32_t *ret_txn, void *ret_record)
{
	uint16_t type, zero;
	uint32_t txn;

	if (in.len < MSG_HEADER_SIZE || in.len > MSG_MAX)
		return -EBADMSG;
	memcpy(&type, in.p, 2);
	memcpy(&zero, in.p + 2, 2);
	memcpy(&txn, in.p + 4, 4);
	const struct msg_info *info = msg_info_find(le16toh(type));
	if (!info || zero)
		return -EBADMSG;
	int r = wire_decode(info->wire, str_make(in.p + MSG_HEADER_SIZE, in.len - MSG_HEADER_SIZE), ret_record);
	if (r)
		return r;
	*ret_info = info;
	*ret_txn = le32toh(txn);
	return 0;
}

const struct wire_type *record_wire(uint16_t type)
{
	static const struct wire_type *const types[] = {
		[RECORD_OPEN] = &record_open_wire,   [RECORD_PROGRESS] = &record_progress_wire,
		[RECORD_CLOSE] = &record_close_wire, [RECORD_DNS] = &record_dns_wire,
		[RECORD_DROP] = &record_drop_wire,   [RECORD_EVENT] = &record_event_wire,
	};
	return type < sizeof types / sizeof types[0] ? types[type] : NULL;
}
