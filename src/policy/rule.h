#pragma once
/* From a rule as someone asked for it to the one canonical form that is stored, shown, sent to workers and compiled. */
#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "codec/hostname.h"
#include "codec/msg_egress.h"

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
 *   host XOR cidr   host: lower-case ASCII (IDNA), no final dot; "*", "*.suffix" or a literal, by ip_format
 *   cidr            by cidr_format; bits below the prefix must be zero
 *   ports           1 to 65535, sorted, without repeats
 *   methods         tokens in upper case, sorted, without repeats
 *   paths           begin with "/", as policy/path.h takes them, sorted, without repeats
 *   tls             passthrough excludes methods and paths
 *   addresses       CIDRs, with a host that is not a literal only, and only in an allow rule
 *   name, comment, preset   printable
 *
 * -EINVAL with a sentence that begins with the field's name. id, workspace_wide and created_at are kept as given. */
int rule_canonicalise(const struct rec_rule *asked, bool tls_given, struct buf *out, struct error *reterr);

/* A host pattern, as in rules and private_allow: exact name, "*.suffix", "*", or a literal. */
enum host_pattern_kind { HOST_EXACT, HOST_SUFFIX, HOST_ANY, HOST_LITERAL };
struct host_pattern {
	enum host_pattern_kind kind;
	struct host host; /* EXACT: the name; SUFFIX: what follows "*."; LITERAL: the address */
};
/* Takes what people write (IDNA). -EINVAL with a sentence without the field's name. */
int host_pattern_parse(struct str s, struct host_pattern *ret, struct error *reterr);
/* name is canonical. "*.x.com" covers x.com too. A literal pattern covers no name. */
bool host_pattern_covers(const struct host_pattern *p, struct str name);
/* 256 bytes hold "*." and any name. */
#define HOST_PATTERN_SIZE 256
void host_pattern_format(const struct host_pattern *p, char ret[HOST_PATTERN_SIZE]);
