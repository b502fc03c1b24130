#pragma once
/* A JSON writer: values are appended to a buffer, commas and escapes are its own. Strings may hold anything: what is not
 * UTF-8 becomes U+FFFD (one for each byte that does not fit), so that an answer is always valid JSON. A full buffer shows
 * in out->failed. */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

struct json {
	struct buf *out;
	bool comma; /* something stands before the next value */
};

/* key NULL: an item of an array, or the outermost value. */
void json_object_begin(struct json *j, const char *key);
void json_object_end(struct json *j);
void json_array_begin(struct json *j, const char *key);
void json_array_end(struct json *j);
void json_str(struct json *j, const char *key, struct str value);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_i64(struct json *j, const char *key, int64_t value);
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);
/* A value that is JSON already. */
void json_raw(struct json *j, const char *key, struct str value);
/* A member whose key is not ours. */
void json_member(struct json *j, struct str key, struct str value);
/* ms since 1970 as RFC 3339; 0 is null. */
void json_time(struct json *j, const char *key, int64_t ms);
/* id 0 is "". */
void json_id(struct json *j, const char *key, const char *prefix, uint64_t id);
