#pragma once
/* What a key may do. A key holds a set; `admin` holds every one. */
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

#define SCOPE_TABLE(S)                                                                                                 \
	S(VM_READ, "vm:read")                                                                                          \
	S(VM_RUN, "vm:run")                                                                                            \
	S(VM_ADMIN, "vm:admin")                                                                                        \
	S(EGRESS_READ, "egress:read")                                                                                  \
	S(EGRESS_WRITE, "egress:write")                                                                                \
	S(SECRETS_WRITE, "secrets:write")                                                                              \
	S(AUDIT_READ, "audit:read")                                                                                    \
	S(SNAPSHOTS, "snapshots")                                                                                      \
	S(KEYS, "keys")                                                                                                \
	S(ADMIN, "admin")

#define SCOPE_INDEX(id, text) SCOPE_INDEX_##id,
enum scope_index { SCOPE_TABLE(SCOPE_INDEX) SCOPE_COUNT };
#define SCOPE_BIT(id, text) SCOPE_##id = 1U << SCOPE_INDEX_##id,
enum scope { SCOPE_NONE = 0, SCOPE_TABLE(SCOPE_BIT) SCOPE_ALL = (1U << SCOPE_COUNT) - 1 };

/* 0 when the text names none. */
uint32_t scope_parse(struct str text);
/* Text of the i-th scope, i < SCOPE_COUNT. */
const char *scope_text(unsigned i);
/* Whether a key with `held` covers `needed` (one bit or SCOPE_NONE). */
int scope_covers(uint32_t held, uint32_t needed);
