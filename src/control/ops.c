#include "control/ops.h"

static const struct op_entry entries[] = {
	{OP_VM_CREATE, MSG_TYPE_msg_vm_create, op_vm_create, false, .keeps = true},
	{OP_VM_LIST, MSG_TYPE_msg_vm_list, op_vm_list, false},
	{OP_VM_GET, MSG_TYPE_msg_object, op_vm_get, false},
	{OP_VM_DELETE, MSG_TYPE_msg_object, op_vm_delete, false},
	{OP_VM_PATCH, MSG_TYPE_msg_vm_patch, op_vm_patch, false},
	{OP_VM_SESSIONS, MSG_TYPE_msg_vm_page, op_vm_sessions, false},
	{OP_VM_STATS, MSG_TYPE_msg_object, op_vm_stats, false},
	{OP_VM_START, MSG_TYPE_msg_object, op_vm_start, false},
	{OP_VM_STOP, MSG_TYPE_msg_vm_stop, op_vm_stop, false},
	{OP_VM_EXEC, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_EXEC_WS, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_EXEC_LIST, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_EXEC_GET, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_EXEC_SIGNAL, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_EXEC_DELETE, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_GET, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_PUT, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_DELETE, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_LIST, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_STAT, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_MKDIR, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_FILE_MOVE, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_ARCHIVE_GET, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_ARCHIVE_PUT, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_VM_CONSOLE, MSG_TYPE_msg_vm_open, op_vm_open, false},
	{OP_POLICY_GET, MSG_TYPE_msg_object, op_policy_get, false},
	{OP_POLICY_PUT, MSG_TYPE_msg_policy_put, op_policy_put, false},
	{OP_VM_POLICY_GET, MSG_TYPE_msg_object, op_policy_get, false},
	{OP_VM_POLICY_PUT, MSG_TYPE_msg_policy_put, op_policy_put, false},
	{OP_VM_POLICY_DELETE, MSG_TYPE_msg_object, op_policy_delete, false},
	{OP_RULE_LIST, MSG_TYPE_msg_rule_list, op_rule_list, false},
	{OP_RULE_CREATE, MSG_TYPE_msg_rule_create, op_rule_create, false, .keeps = true},
	{OP_RULE_DELETE, MSG_TYPE_msg_object, op_rule_delete, false},
	{OP_VM_RULE_LIST, MSG_TYPE_msg_rule_list, op_rule_list, false},
	{OP_VM_RULE_CREATE, MSG_TYPE_msg_rule_create, op_rule_create, false, .keeps = true},
	{OP_VM_RULE_DELETE, MSG_TYPE_msg_object, op_rule_delete, false},
	{OP_PRESET_LIST, MSG_TYPE_msg_page, op_preset_list, false},
	{OP_PRESET_ADD, MSG_TYPE_msg_preset, op_preset_add, false},
	{OP_PRESET_REMOVE, MSG_TYPE_msg_preset, op_preset_remove, false},
	{OP_AUDIT_EGRESS, MSG_TYPE_msg_events_list, op_audit_egress, false},
	{OP_AUDIT_SUMMARY, MSG_TYPE_msg_summary_get, op_audit_summary, false},
	{OP_AUDIT_EVENTS, MSG_TYPE_msg_generals_list, op_audit_events, false},
	{OP_EGRESS_EXPLAIN, MSG_TYPE_msg_explain, op_egress_explain, false},
	{OP_IMAGE_LIST, MSG_TYPE_msg_page, op_image_list, false},
	{OP_IMAGE_GET, MSG_TYPE_msg_object, op_image_get, false},
	{OP_KEY_LIST, MSG_TYPE_msg_page, op_key_list, false},
	{OP_KEY_CREATE, MSG_TYPE_msg_key_create, op_key_create, false, .keeps = true},
	{OP_KEY_DELETE, MSG_TYPE_msg_object, op_key_delete, false},
	{OP_ME, MSG_TYPE_msg_page, op_me, false},
	{OP_HOST, MSG_TYPE_msg_page, op_host, false},
	{OP_HEALTHZ, MSG_TYPE_msg_page, op_healthz, true},
	{OP_READYZ, MSG_TYPE_msg_page, op_readyz, true},
};

const struct op_entry *op_entry_find(unsigned op)
{
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
		if (entries[i].op == op)
			return &entries[i];
	return NULL;
}
