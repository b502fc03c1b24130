#pragma once
/* The API's operations, declared once: iron-api routes and documents by this table, iron-control authorises by it.
 * O(id, method, path below /v1, scope, summary). A path's `:id` is a VM, `:rule`, `:key`, `:image`, `:exec` what they say, `:name` a
 * preset's. */
#include <stdint.h>

#include "model/scope.h"

#define OP_TABLE(O)                                                                                                    \
	O(VM_CREATE, "POST", "/vms", VM_ADMIN, "Create a VM")                                                          \
	O(VM_LIST, "GET", "/vms", VM_READ, "List VMs")                                                                 \
	O(VM_GET, "GET", "/vms/:id", VM_READ, "Show a VM, or wait for it")                                             \
	O(VM_DELETE, "DELETE", "/vms/:id", VM_ADMIN, "Destroy a VM")                                                   \
	O(VM_PATCH, "PATCH", "/vms/:id", VM_ADMIN, "Change a VM's name, labels or restart")                            \
	O(VM_SESSIONS, "GET", "/vms/:id/sessions", VM_READ, "When a VM ran, and what it used")                         \
	O(VM_STATS, "GET", "/vms/:id/stats", VM_READ, "What a VM uses: cpu, memory, disk and network")                 \
	O(VM_START, "POST", "/vms/:id/start", VM_ADMIN, "Start a VM")                                                  \
	O(VM_STOP, "POST", "/vms/:id/stop", VM_ADMIN, "Stop a VM")                                                     \
	O(VM_EXEC, "POST", "/vms/:id/exec", VM_RUN, "Run a command")                                                   \
	O(VM_EXEC_WS, "GET", "/vms/:id/exec", VM_RUN, "Run a command over a WebSocket")                                \
	O(VM_EXEC_LIST, "GET", "/vms/:id/execs", VM_RUN, "List what runs or ran in a VM")                              \
	O(VM_EXEC_GET, "GET", "/vms/:id/execs/:exec", VM_RUN, "A command's output from an offset, live, or attached")  \
	O(VM_EXEC_SIGNAL, "POST", "/vms/:id/execs/:exec/signal", VM_RUN, "Send a command a signal")                    \
	O(VM_EXEC_DELETE, "DELETE", "/vms/:id/execs/:exec", VM_RUN, "End a command and forget it")                     \
	O(VM_FILE_GET, "GET", "/vms/:id/files", VM_RUN, "Read a file of a VM")                                         \
	O(VM_FILE_PUT, "PUT", "/vms/:id/files", VM_RUN, "Write a file of a VM")                                        \
	O(VM_FILE_DELETE, "DELETE", "/vms/:id/files", VM_RUN, "Remove a file or a directory of a VM")                  \
	O(VM_FILE_LIST, "GET", "/vms/:id/files/list", VM_RUN, "List a directory of a VM")                              \
	O(VM_FILE_STAT, "GET", "/vms/:id/files/stat", VM_RUN, "What a path of a VM is")                                \
	O(VM_FILE_MKDIR, "POST", "/vms/:id/files/mkdir", VM_RUN, "Make a directory in a VM")                           \
	O(VM_FILE_MOVE, "POST", "/vms/:id/files/move", VM_RUN, "Move or rename a file of a VM")                        \
	O(VM_ARCHIVE_GET, "GET", "/vms/:id/files/archive", VM_RUN, "A tree of a VM as a tar archive")                  \
	O(VM_ARCHIVE_PUT, "PUT", "/vms/:id/files/archive", VM_RUN, "Unpack a tar archive in a VM")                     \
	O(VM_CONSOLE, "GET", "/vms/:id/console", VM_READ, "The last of a VM's serial console")                         \
	O(POLICY_GET, "GET", "/egress/policy", EGRESS_READ, "The workspace's egress mode")                             \
	O(POLICY_PUT, "PUT", "/egress/policy", EGRESS_WRITE, "Set the workspace's egress mode")                        \
	O(VM_POLICY_GET, "GET", "/vms/:id/egress/policy", EGRESS_READ, "A VM's egress mode")                           \
	O(VM_POLICY_PUT, "PUT", "/vms/:id/egress/policy", EGRESS_WRITE, "Set a VM's egress mode")                      \
	O(VM_POLICY_DELETE, "DELETE", "/vms/:id/egress/policy", EGRESS_WRITE, "Inherit the workspace's mode again")    \
	O(RULE_LIST, "GET", "/egress/rules", EGRESS_READ, "List the workspace's egress rules")                         \
	O(RULE_CREATE, "POST", "/egress/rules", EGRESS_WRITE, "Add an egress rule to the workspace")                   \
	O(RULE_DELETE, "DELETE", "/egress/rules/:rule", EGRESS_WRITE, "Remove an egress rule of the workspace")        \
	O(VM_RULE_LIST, "GET", "/vms/:id/egress/rules", EGRESS_READ, "List a VM's own egress rules")                   \
	O(VM_RULE_CREATE, "POST", "/vms/:id/egress/rules", EGRESS_WRITE, "Add an egress rule to a VM")                 \
	O(VM_RULE_DELETE, "DELETE", "/vms/:id/egress/rules/:rule", EGRESS_WRITE, "Remove an egress rule of a VM")      \
	O(PRESET_LIST, "GET", "/egress/presets", EGRESS_READ, "Named groups of egress rules")                          \
	O(PRESET_ADD, "POST", "/egress/presets/:name", EGRESS_WRITE, "Add a preset's rules to the workspace")          \
	O(PRESET_REMOVE, "DELETE", "/egress/presets/:name", EGRESS_WRITE, "Remove a preset's rules again")             \
	O(AUDIT_EGRESS, "GET", "/audit/egress", AUDIT_READ, "What left, or tried to")                                  \
	O(AUDIT_SUMMARY, "GET", "/audit/egress/summary", AUDIT_READ, "What left, or tried to, by host")                \
	O(AUDIT_EVENTS, "GET", "/audit/events", AUDIT_READ, "Everything on record that is not egress")                 \
	O(EGRESS_EXPLAIN, "POST", "/egress/explain", EGRESS_READ, "What a VM's request would meet, and why")           \
	O(IMAGE_LIST, "GET", "/images", VM_READ, "List images")                                                        \
	O(IMAGE_GET, "GET", "/images/:image", VM_READ, "Show an image")                                                \
	O(KEY_LIST, "GET", "/keys", KEYS, "List keys")                                                                 \
	O(KEY_CREATE, "POST", "/keys", KEYS, "Make a key")                                                             \
	O(KEY_DELETE, "DELETE", "/keys/:key", KEYS, "Revoke a key")                                                    \
	O(ME, "GET", "/me", NONE, "Whose key this is")                                                                 \
	O(HOST, "GET", "/host", VM_READ, "The host: accelerator, isolation, roles, room")                              \
	O(HEALTHZ, "GET", "/healthz", NONE, "Up")                                                                      \
	O(READYZ, "GET", "/readyz", NONE, "Every role answers")                                                        \
	O(OPENAPI, "GET", "/openapi.json", NONE, "This description")

#define OP_ENUM(id, method, path, scope, summary) OP_##id,
enum api_op { OP_TABLE(OP_ENUM) OP_COUNT };

struct op_info {
	const char *name, *method, *path, *summary;
	uint32_t scope;
};

/* NULL for a number out of range. */
const struct op_info *op_info_get(unsigned op);
