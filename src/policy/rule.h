#pragma once
/* From a rule as someone asked for it to the one canonical form that is stored, shown, sent to workers and compiled. */
#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "codec/msg_egress.h"
#include "policy/host_pattern.h"

#define RULE_PORTS_MAX 128
#define RULE_METHODS_MAX 32
#define RULE_PATHS_MAX 64
#define RULE_PATH_MAX 1024
#define RULE_ADDRESSES_MAX 64

enum rule_tls { RULE_INTERCEPT, RULE_PASSTHROUGH };
enum rule_action { RULE_ALLOW, RULE_DENY };

/* Checks `asked` and appends the encoding of its canonical form to out (decode it with rec_rule_wire; it borrows from
 * out). tls_given false: tls is what the kind of rule gets (intercept for a name, passthrough for a CIDR or a literal;
 * intercept where there are methods or paths).
 *
 *   host XOR cidr   host: lower-case ASCII (IDNA), no final dot; policy/host_pattern.h
 *   cidr            by cidr_format; bits below the prefix must be zero
 *   ports           1 to 65535, sorted, without repeats
 *   methods         tokens in upper case, sorted, without repeats; not CONNECT and TRACE, which never pass
 *   paths           begin with "/", as policy/path.h takes them, sorted, without repeats
 *   tls             passthrough excludes methods and paths
 *   addresses       CIDRs; only in an allow rule whose host is a name or "*.suffix"
 *   name            printable, and does not begin like an id
 *   comment, preset printable
 *
 * -EINVAL with a sentence that begins with the field's name. id, workspace_wide and created_at are kept as given. */
int rule_canonicalise(const struct rec_rule *asked, bool tls_given, struct buf *out, struct error *reterr);
