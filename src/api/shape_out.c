/* What answers hold: every member of every row, in the order it is shown. */
#include "api/shape.h"

#define F(kind_, name_, type, member, ...) {.name = name_, .kind = OUT_##kind_, .offset = offsetof(struct type, member), ##__VA_ARGS__}
#define KNOWN_IF(type, member) .known = 1 + offsetof(struct type, member)

static const struct out_field vm[] = {
	F(ID, "id", row_vm, id, .choices = "vm_"),
	F(TEXT, "name", row_vm, name),
	F(TEXT, "status", row_vm, status),
	F(TEXT, "status_detail", row_vm, status_detail),
	F(TEXT, "status_reason", row_vm, status_reason),
	F(TEXT, "image", row_vm, image),
	F(ID, "snapshot_id", row_vm, snapshot, .choices = "snap_"),
	F(ID, "parent_id", row_vm, parent, .choices = "vm_"),
	F(U64, "generation", row_vm, generation),
	F(U32, "vcpus", row_vm, vcpus),
	F(U32, "memory_mib", row_vm, memory_mib),
	F(U32, "disk_gib", row_vm, disk_gib),
	F(LABELS, "labels", row_vm, labels),
	F(TIME, "created_at", row_vm, created_at),
	F(TIME, "updated_at", row_vm, updated_at),
	F(TIME, "started_at", row_vm, started_at),
	F(TIME, "stopped_at", row_vm, stopped_at),
	F(CHOICE, "restart", row_vm, restart, .choices = "never|always"),
};

static const struct out_field session[] = {
	F(ID, "id", row_session, id, .choices = "ses_"),
	F(ID, "vm_id", row_session, vm, .choices = "vm_"),
	F(U64, "generation", row_session, generation),
	F(TIME, "started_at", row_session, started_at),
	F(TIME, "ended_at", row_session, ended_at),
	F(U64, "duration_ms", row_session, duration_ms),
	F(TEXT, "end_reason", row_session, end_reason),
	F(U64, "cpu_time_ms", row_session, cpu_time_ms),
	F(U64, "memory_peak_bytes", row_session, memory_peak_bytes),
	F(U64, "disk_bytes", row_session, disk_bytes),
	F(U64, "disk_read_bytes", row_session, disk_read_bytes),
	F(U64, "disk_written_bytes", row_session, disk_written_bytes),
	F(U64, "network_sent_bytes", row_session, network_sent_bytes),
	F(U64, "network_received_bytes", row_session, network_received_bytes),
};

static const struct out_field stats[] = {
	F(ID, "vm_id", row_stats, vm, .choices = "vm_"),
	F(U64, "generation", row_stats, generation),
	F(FLAG, "running", row_stats, running),
	F(U64, "cpu_time_ms", row_stats, cpu_time_ms),
	F(U64, "memory_bytes", row_stats, memory_bytes),
	F(U64, "memory_peak_bytes", row_stats, memory_peak_bytes),
	F(U64, "memory_limit_bytes", row_stats, memory_limit_bytes),
	F(U64, "disk_bytes", row_stats, disk_bytes),
	F(U64, "disk_limit_bytes", row_stats, disk_limit_bytes),
	F(U64, "disk_read_bytes", row_stats, disk_read_bytes),
	F(U64, "disk_written_bytes", row_stats, disk_written_bytes),
	F(U64, "network_sent_bytes", row_stats, network_sent_bytes),
	F(U64, "network_received_bytes", row_stats, network_received_bytes),
	F(U64, "uptime_ms", row_stats, uptime_ms),
};

static const struct out_field policy[] = {
	F(CHOICE, "mode", row_policy, mode, .choices = "enforce|warn"),
	F(FLAG, "inherited", row_policy, inherited),
};

static const struct out_field rule[] = {
	F(ID, "id", rec_rule, id, .choices = "egr_"),
	F(TEXT, "name", rec_rule, name),
	F(TEXT, "host", rec_rule, host),
	F(TEXT, "cidr", rec_rule, cidr),
	F(NUMBERS, "ports", rec_rule, ports),
	F(TEXTS, "methods", rec_rule, methods),
	F(TEXTS, "paths", rec_rule, paths),
	F(CHOICE, "tls", rec_rule, tls, .choices = "intercept|passthrough"),
	F(CHOICE, "action", rec_rule, action, .choices = "allow|deny"),
	F(TEXTS, "addresses", rec_rule, addresses),
	F(TEXT, "preset", rec_rule, preset),
	F(TEXT, "comment", rec_rule, comment),
	F(TIME, "created_at", rec_rule, created_at),
};

static const struct out_field preset_rule[] = {
	F(TEXT, "host", rec_rule, host),
	F(NUMBERS, "ports", rec_rule, ports),
	F(TEXTS, "methods", rec_rule, methods),
	F(TEXTS, "paths", rec_rule, paths),
	F(CHOICE, "tls", rec_rule, tls, .choices = "intercept|passthrough"),
	F(CHOICE, "action", rec_rule, action, .choices = "allow|deny"),
};

static const struct out_field preset[] = {
	F(TEXT, "name", row_preset, name),
	F(TEXT, "description", row_preset, description),
	F(FLAG, "added", row_preset, added, .doc = "The workspace has all of its rules"),
	F(RULES, "rules", row_preset, rules),
};

#define WHEN_CLOSED KNOWN_IF(row_event, closed)
static const struct out_field event[] = {
	F(ID, "id", row_event, seq, .choices = "ee_"),
	F(TIME, "timestamp", row_event, timestamp),
	F(ID, "vm_id", row_event, vm, .choices = "vm_"),
	F(TEXT, "host", row_event, host),
	F(TEXT, "cidr", row_event, cidr),
	F(TEXT, "address", row_event, address),
	F(U16, "port", row_event, port),
	F(CHOICE, "protocol", row_event, protocol, .base = 1, .choices = "http|tls|tcp|udp|dns|icmp|other"),
	F(TEXT, "method", row_event, method),
	F(TEXT, "path", row_event, path),
	F(STATUS, "status_code", row_event, status, WHEN_CLOSED),
	F(U64, "bytes_sent", row_event, bytes_sent, WHEN_CLOSED),
	F(U64, "bytes_received", row_event, bytes_received, WHEN_CLOSED),
	F(U32, "duration_ms", row_event, duration_ms, WHEN_CLOSED),
	F(CHOICE, "verdict", row_event, verdict, .base = 1, .choices = "allowed|denied|warn"),
	F(ALLOWED, "allowed", row_event, verdict),
	F(CHOICE, "mode", row_event, mode, .choices = "enforce|warn"),
	F(ID, "rule_id", row_event, rule, .choices = "egr_"),
	F(TEXTS, "secrets", row_event, secrets),
	F(TEXT, "reason", row_event, reason),
};

static const struct out_field summary[] = {
	F(TEXT, "host", row_summary, host, .doc = "Empty: the hosts that are not listed by themselves, together"),
	F(U64, "total", row_summary, total),
	F(U64, "allowed", row_summary, allowed),
	F(U64, "warned", row_summary, warned),
	F(U64, "denied", row_summary, denied),
	F(U64, "bytes_sent", row_summary, bytes_sent),
	F(U64, "bytes_received", row_summary, bytes_received),
};

static const struct out_field general[] = {
	F(ID, "id", row_general, seq, .choices = "op_"),
	F(TIME, "timestamp", row_general, timestamp),
	F(TEXT, "kind", row_general, kind),
	F(TEXT, "action", row_general, action),
	F(ID, "vm_id", row_general, vm, .choices = "vm_"),
	F(ID, "key_id", row_general, key, .choices = "key_"),
	F(TEXT, "key_name", row_general, key_name),
	F(TEXT, "address", row_general, address),
	F(TEXT, "client", row_general, client),
	F(TEXT, "outcome", row_general, outcome),
	F(JSON, "detail", row_general, detail),
};

/* "matched" comes after these (answer.c). */
static const struct out_field explain[] = {
	F(CHOICE, "verdict", row_explain, verdict, .base = 1, .choices = "allowed|denied|warn"),
	F(ALLOWED, "allowed", row_explain, verdict),
	F(CHOICE, "mode", row_explain, mode, .choices = "enforce|warn"),
	F(CHOICE, "protocol", row_explain, protocol, .base = 1, .choices = "http|tls|tcp"),
	F(TEXT, "reason", row_explain, reason),
	F(RULE, "rule", row_explain, rule),
};

static const struct out_field key[] = {
	F(ID, "id", row_key, id, .choices = "key_"),
	F(TEXT, "name", row_key, name),
	F(TEXT, "key", row_key, key),
	F(TEXT, "hint", row_key, hint),
	F(SCOPES, "scopes", row_key, scopes),
	F(TIME, "created_at", row_key, created_at),
	F(TIME, "expires_at", row_key, expires_at),
	F(TIME, "last_used_at", row_key, last_used_at),
};

static const struct out_field image[] = {
	F(ID, "id", row_image, id, .choices = "img_"),
	F(TEXT, "name", row_image, name),
	F(TEXT, "hash", row_image, hash),
	F(TEXT, "kernel", row_image, kernel),
	F(TEXT, "made_from", row_image, made_from),
	F(U64, "size_bytes", row_image, size_bytes),
	F(TIME, "created_at", row_image, created_at),
};

static const struct out_field me[] = {
	F(ID, "workspace_id", row_me, workspace, .choices = "ws_"),
	F(TEXT, "workspace", row_me, workspace_name),
	F(ID, "key_id", row_me, key, .choices = "key_"),
	F(TEXT, "key_name", row_me, key_name),
	F(SCOPES, "scopes", row_me, scopes),
	F(TIME, "expires_at", row_me, expires_at),
};

static const struct out_field host[] = {
	F(TEXT, "version", msg_host, version),
	F(TEXT, "accelerator", msg_host, accelerator),
	F(TEXT, "accelerator_reason", msg_host, accelerator_reason),
	F(TEXT, "isolation", msg_host, isolation),
	F(TEXT, "sandbox", msg_host, sandbox),
	F(TEXT, "encryption", msg_host, encryption),
	F(TEXT, "qemu_version", msg_host, qemu_version),
	F(TEXT, "kernel", msg_host, kernel),
	F(TEXT, "cgroup", msg_host, cgroup),
	F(U32, "cpus", msg_host, cpus),
	F(U32, "load_1m_percent", msg_host, load_1m_percent),
	F(U64, "memory_total_mib", msg_host, memory_total_mib),
	F(U64, "memory_available_mib", msg_host, memory_available_mib),
	F(U64, "disk_total_mib", msg_host, disk_total_mib),
	F(U64, "disk_available_mib", msg_host, disk_available_mib),
};

static const struct out_field host_counts[] = {
	F(U32, "vms_running", row_host, vms_running),
	F(U32, "vms_total", row_host, vms_total),
	F(U64, "memory_committed_mib", row_host, memory_committed_mib),
	F(U64, "memory_budget_mib", row_host, memory_budget_mib),
};

static const struct out_field role[] = {
	F(TEXT, "name", msg_role_row, name),
	F(ROLE_ID, "id", msg_role_row, id),
	F(TEXT, "state", msg_role_row, state),
	F(I64, "pid", msg_role_row, pid),
	F(U32, "restarts", msg_role_row, restarts),
	F(TIME, "started_at", msg_role_row, started_at),
};

/* exec.c writes it. */
static const struct out_field exec[] = {
	{.name = "exit_code", .kind = OUT_U32, .doc = "The command's; 128 + the signal that ended it"},
	{.name = "stdout", .kind = OUT_TEXT, .doc = "The first MiB; each byte that is not UTF-8 is U+FFFD"},
	{.name = "stderr", .kind = OUT_TEXT, .doc = "The same"},
	{.name = "truncated", .kind = OUT_FLAG, .doc = "One of the two was longer"},
	{.name = "timed_out", .kind = OUT_FLAG, .doc = "timeout_s passed"},
};
static const struct out_field exec_started[] = {
	{.name = "exec_id", .kind = OUT_ID, .choices = "exec_", .doc = "It runs on: GET …/execs/:exec"},
};
const struct out_shape exec_started_shape = {.name = "ExecStarted", .v = exec_started, .n = ARRAY_SIZE(exec_started)};
const struct out_shape exec_shape = {.name = "ExecResult", .v = exec, .n = ARRAY_SIZE(exec)};

static const struct out_field health[] = {
	{.name = "status", .kind = OUT_TEXT},
	{.name = "version", .kind = OUT_TEXT},
};
const struct out_shape health_shape = {.name = "Health", .v = health, .n = ARRAY_SIZE(health)};

#define EXEC_FIELDS \
	F(ID, "id", exec_view, id, .choices = "exec_"), \
	F(ID, "vm_id", exec_view, vm, .choices = "vm_"), \
	F(TEXTS, "argv", exec_view, argv), \
	F(TEXT, "command", exec_view, command), \
	F(TEXT, "user", exec_view, user), \
	F(FLAG, "tty", exec_view, tty), \
	F(FLAG, "detached", exec_view, detached), \
	F(CHOICE, "status", exec_view, status, .choices = "running|exited"), \
	F(U16, "exit_code", exec_view, exit_code, KNOWN_IF(exec_view, ended)), \
	F(FLAG, "timed_out", exec_view, timed_out), \
	F(TIME, "started_at", exec_view, started_at), \
	F(TIME, "ended_at", exec_view, ended_at), \
	F(U64, "output_bytes", exec_view, output), \
	F(U64, "kept_from", exec_view, kept_from),
static const struct out_field exec_row[] = {EXEC_FIELDS};
/* execs.c writes the rest of it. */
static const struct out_field exec_output[] = {
	EXEC_FIELDS
	{.name = "offset", .kind = OUT_U64, .doc = "Of the first byte below, over stdout and stderr together"},
	{.name = "next_offset", .kind = OUT_U64, .doc = "To go on from"},
	{.name = "stdout", .kind = OUT_TEXT, .doc = "At most 1 MiB with stderr; each byte that is not UTF-8 is U+FFFD"},
	{.name = "stderr", .kind = OUT_TEXT, .doc = "The same"},
	{.name = "truncated", .kind = OUT_FLAG, .doc = "There is more from next_offset on"},
};
const struct out_shape exec_output_shape = {.name = "ExecOutput", .v = exec_output, .n = ARRAY_SIZE(exec_output)};

static const struct out_field file[] = {
	F(TEXT, "name", file_view, name),
	F(CHOICE, "type", file_view, type, .base = 1, .choices = "file|directory|link|other"),
	F(U64, "size_bytes", file_view, size),
	F(TEXT, "mode", file_view, mode),
	F(TEXT, "owner", file_view, owner),
	F(TEXT, "group", file_view, group),
	F(TIME, "modified_at", file_view, modified_at),
	F(TEXT, "target", file_view, target),
};

#define SHAPE(type, fields, ...) {.row = MSG_TYPE_##type, .v = fields, .n = ARRAY_SIZE(fields), ##__VA_ARGS__}
static const struct out_shape shapes[] = {
	SHAPE(row_vm, vm),
	SHAPE(row_session, session),
	SHAPE(row_stats, stats),
	SHAPE(row_policy, policy),
	SHAPE(row_rule, rule, .inner = &rec_rule_wire),
	SHAPE(row_preset, preset),
	SHAPE(row_event, event),
	SHAPE(row_summary, summary),
	SHAPE(row_general, general),
	SHAPE(row_explain, explain),
	SHAPE(row_key, key),
	SHAPE(row_image, image),
	SHAPE(row_me, me),
	SHAPE(row_host, host, .inner = &msg_host_wire, .outer = host_counts, .nouter = ARRAY_SIZE(host_counts)),
	SHAPE(row_role, role, .inner = &msg_role_row_wire),
	{.row = ROW_EXEC, .v = exec_row, .n = ARRAY_SIZE(exec_row), .name = "Exec"},
	{.row = ROW_FILE, .v = file, .n = ARRAY_SIZE(file), .name = "FileInfo"},
	{.row = ROW_PRESET_RULE, .v = preset_rule, .n = ARRAY_SIZE(preset_rule), .name = "PresetRule"},
};

const struct out_shape *out_shape_get(uint16_t row)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
		if (shapes[i].row == row)
			return &shapes[i];
	return NULL;
}
