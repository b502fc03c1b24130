#pragma once
/* Host patterns of rules and of private_allow: an exact name, "*.suffix" (the suffix itself and all below it), "*", or
 * a literal address. */
#include <stdbool.h>

#include "base/error.h"
#include "codec/hostname.h"

enum host_pattern_kind { HOST_EXACT, HOST_SUFFIX, HOST_ANY, HOST_LITERAL };
struct host_pattern {
	enum host_pattern_kind kind;
	struct host host; /* EXACT: the name; SUFFIX: what follows "*."; LITERAL: the address */
};

/* parse_name: hostname_parse (ASCII in any case), or hostname_parse_idn for what people write; a parameter, so that a
 * worker that only ever sees canonical names is not linked with IDNA. -EINVAL with a sentence, without the field. */
int host_pattern_parse(struct str s, int (*parse_name)(struct str s, char ret[HOSTNAME_SIZE]), struct host_pattern *ret,
		       struct error *reterr);
/* name is canonical. A literal pattern covers no name. */
bool host_pattern_covers(const struct host_pattern *p, struct str name);

#define HOST_PATTERN_SIZE 256 /* "*.", a name, NUL */
void host_pattern_format(const struct host_pattern *p, char ret[HOST_PATTERN_SIZE]);
