#pragma once
/* Binary to text and back, and text made safe to show. */
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

int base64_encode(struct str in, struct buf *out); /* RFC 4648 section 4, padded. -EMSGSIZE */
int base64_decode(struct str in, struct buf *out); /* strict: padded, no white space, canonical. -EINVAL, -EMSGSIZE */

int hex_digit(char c); /* its value, -1 when it is none */
void hex_encode(const void *p, size_t n, char *ret); /* 2n + 1 bytes, lower case */
int hex_decode(struct str s, uint8_t *ret, size_t n); /* exactly n bytes, either case. -EINVAL */

/* For a terminal: printable UTF-8 as it is; control bytes (C0, DEL, C1), malformed UTF-8 and bidirectional
 * overrides as \xNN. Tab and newline are escaped too. -EMSGSIZE */
int escape_terminal(struct str in, struct buf *out);
