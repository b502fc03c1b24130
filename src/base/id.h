#pragma once
/* Ids: 63 random bits, never 0, stored as integers; their text is a prefix and 13 characters of lower-case Crockford
 * base32 ("vm_0c3n9m5k2r7tq"). One id has one text. */
#include <stdint.h>

#include "base/str.h"

#define ID_TEXT_SIZE 20 /* prefix up to 5, 13 digits, NUL */

uint64_t id_random(void);
/* prefix with its underscore: "vm_", "egr_". */
void id_format(const char *prefix, uint64_t id, char ret[ID_TEXT_SIZE]);
/* -EINVAL for anything but the one text that id_format writes. */
int id_parse(const char *prefix, struct str s, uint64_t *ret);
