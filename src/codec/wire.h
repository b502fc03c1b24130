#pragma once
/* Declared-once records for messages between iron's processes and for the audit journal.
 *
 * A record is an X-macro of fields F(T, kind, name, max); the struct, its encoding, its decoding with bounds, its dump for
 * tests and its fuzzing come from that one place. Encoding: fields in order, integers little-endian; str and list are a
 * u32 length and that many bytes. A decoded record borrows from the bytes it was decoded from and allocates nothing.
 *
 * Kinds: u8 u16 u32 u64 i64 (max: largest value allowed, 0 = any), flag (bool, 0 or 1), str (max bytes), list (max
 * bytes; a run of u32-length-prefixed items, walked with wire_list_next; items are strings or encoded records).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

enum wire_kind { WIRE_u8, WIRE_u16, WIRE_u32, WIRE_u64, WIRE_i64, WIRE_flag, WIRE_str, WIRE_list };

#define WIRE_CTYPE_u8 uint8_t
#define WIRE_CTYPE_u16 uint16_t
#define WIRE_CTYPE_u32 uint32_t
#define WIRE_CTYPE_u64 uint64_t
#define WIRE_CTYPE_i64 int64_t
#define WIRE_CTYPE_flag bool
#define WIRE_CTYPE_str struct str
#define WIRE_CTYPE_list struct str

struct wire_field {
	const char *name;
	enum wire_kind kind;
	size_t offset;
	uint64_t max;
};

struct wire_type {
	const char *name;
	size_t size;
	const struct wire_field *fields;
	size_t n;
};

/* A table is `#define FOO(F, T) F(T, u64, vm, 0) F(T, str, name, 63)`. */
#define WIRE_MEMBER(T, kind, name, max) WIRE_CTYPE_##kind name;
#define WIRE_FIELD(T, kind_, name_, max_)                                                                              \
	{.name = #name_, .kind = WIRE_##kind_, .offset = offsetof(struct T, name_), .max = (max_)},

/* In a header: struct NAME and its description NAME_wire. */
#define WIRE_DECLARE(NAME, FIELDS)                                                                                     \
	struct NAME {                                                                                                  \
		FIELDS(WIRE_MEMBER, NAME)                                                                              \
	};                                                                                                             \
	extern const struct wire_type NAME##_wire
/* In one .c file. */
#define WIRE_DEFINE(NAME, FIELDS)                                                                                      \
	static const struct wire_field NAME##_wire_fields[] = {FIELDS(WIRE_FIELD, NAME)};                              \
	const struct wire_type NAME##_wire = {.name = #NAME,                                                           \
					      .size = sizeof(struct NAME),                                             \
					      .fields = NAME##_wire_fields,                                            \
					      .n = sizeof NAME##_wire_fields / sizeof(struct wire_field)}

/* -EMSGSIZE: the buffer's ceiling. -EINVAL: a value above its max (a bug of the sender's). */
int wire_encode(const struct wire_type *t, const void *record, struct buf *out);
/* -EBADMSG: short, trailing bytes, a length or value out of bounds, a list that is not framed. *ret is all-or-nothing. */
int wire_decode(const struct wire_type *t, struct str in, void *ret);
/* As wire_decode, for a record followed by other bytes: *in is moved past it. */
int wire_decode_prefix(const struct wire_type *t, struct str *in, void *ret);

int wire_list_add(struct buf *list, struct str item);
int wire_list_add_z(struct buf *list, const char *item);
int wire_list_add_u64(struct buf *list, uint64_t v);
int wire_list_add_record(struct buf *list, const struct wire_type *t, const void *record);
/* True while an item was taken; the list is moved past it. */
bool wire_list_next(struct str *list, struct str *ret_item);
/* For lists of integers: false at the end or on an item that is not 8 bytes. */
bool wire_list_next_u64(struct str *list, uint64_t *ret);
size_t wire_list_count(struct str list);
