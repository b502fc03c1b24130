#pragma once
/* The handlers of the API's operations, by file. Which there are is ops.c's table. */
#include "codec/ip.h"
#include "control/request.h"
#include "policy/host_pattern.h"

/* ops_vm_create.c, ops_vm.c, ops_exec.c */
void op_vm_create(struct request *r);
void op_vm_list(struct request *r);
void op_vm_get(struct request *r);
void op_vm_delete(struct request *r);
void op_vm_start(struct request *r);
void op_vm_stop(struct request *r);
void op_vm_open(struct request *r);
/* iron-api tells how one ended: it goes on record. */
void op_vm_closed(struct control *c, const struct msg_vm_closed *m);
/* ops_vm_patch.c, ops_session.c */
void op_vm_patch(struct request *r);
void op_vm_sessions(struct request *r);
void op_vm_stats(struct request *r);
/* ops_egress.c */
void op_policy_get(struct request *r);
void op_policy_put(struct request *r);
void op_policy_delete(struct request *r);
void op_rule_list(struct request *r);
void op_rule_create(struct request *r);
void op_rule_delete(struct request *r);
/* ops_preset.c */
void op_preset_list(struct request *r);
void op_preset_add(struct request *r);
void op_preset_remove(struct request *r);
/* ops_audit.c, ops_explain.c */
void op_audit_egress(struct request *r);
void op_audit_summary(struct request *r);
void op_audit_events(struct request *r);
void op_egress_explain(struct request *r);
/* ops_host.c */
void op_image_list(struct request *r);
void op_image_get(struct request *r);
void op_me(struct request *r);
void op_host(struct request *r);
void op_healthz(struct request *r);
void op_readyz(struct request *r);
void op_metrics(struct request *r);
/* ops_keys.c */
void op_key_list(struct request *r);
void op_key_create(struct request *r);
void op_key_delete(struct request *r);

/* The VM of the request's workspace, its strings in a. False: the request has been answered. */
bool op_find_vm(struct request *r, uint64_t id, struct arena *a, struct store_vm *ret);
void op_vm_row(struct request *r, const struct store_vm *vm);
/* Whether the host and the workspace have room for one more of this size. False: answered. */
bool op_admit_vm(struct request *r, const struct vm_spec *spec);

/* No VM of the request's workspace that is not gone has the name. False: answered. */
bool op_name_is_free(struct request *r, struct str name);
/* A list of "k=v": how many, what they hold, no key twice. */
int op_check_labels(struct str labels, struct error *reterr);

/* A rule as asked for, in canonical form: its strings are in out. -EINVAL with a sentence that begins with the field.
 */
int op_take_rule(struct str encoded, bool tls_given, struct buf *out, struct rec_rule *ret, struct error *reterr);

/* The owner (vm 0: the workspace) may have n more rules. False: answered. */
bool op_rules_have_room(struct request *r, uint64_t vm, const struct rec_rule *more, size_t n);
/* "allow api.example.com", "deny 10.0.0.0/8" as the detail's "rules". */
void op_detail_of_rules(struct detail *d, const struct rec_rule *v, size_t n);

/* What a filter says, in the form in which hosts and CIDRs are stored and recorded; as it is where it is neither. */
struct str op_canonical_host(struct str asked, char ret[HOST_PATTERN_SIZE]);
struct str op_canonical_cidr(struct str asked, char ret[CIDR_TEXT_SIZE]);

/* POST /vms, start and stop hold their answer so long. */
#define HOLD_MS 1000
