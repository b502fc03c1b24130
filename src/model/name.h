#pragma once
/* What names, labels and other small texts of the API may hold. Each answers 0, or -EINVAL with a
 * sentence that names `field` and says what is expected. */
#include "base/error.h"
#include "base/str.h"

#define LABELS_MAX 64
#define LABEL_KEY_MAX 63
#define LABEL_VALUE_MAX 255

/* The prefixes that ids carry; no name begins with one. */
bool name_is_like_id(struct str s);

/* [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?, a host name's label; not like an id. */
int vm_name_check(const char *field, struct str s, struct error *reterr);
/* Names of rules and keys: 1 to 63 printable bytes, no space at either end, not like an id. */
int object_name_check(const char *field, struct str s, struct error *reterr);
/* Comments: printable, at most max bytes, may be empty. */
int text_check(const char *field, struct str s, size_t max, struct error *reterr);
/* "k=v": key 1 to 63 bytes without "=", value 0 to 255, both printable. */
int label_parse(struct str s, struct str *ret_key, struct str *ret_value, struct error *reterr);
/* One line of an OpenSSH public key without options: type, base64, optional comment. s is trimmed already. */
int public_key_check(const char *field, struct str s, struct error *reterr);
