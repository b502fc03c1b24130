#pragma once
/* A borrowed run of bytes: not NUL-terminated, never owned. Whoever holds one must know whose memory it is. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
	const char *p;
	size_t len;
};

#define STR(lit) ((struct str){.p = (lit), .len = sizeof(lit) - 1})
#define STR_NONE ((struct str){0})
/* For printf: "%.*s", STR_ARG(s). */
#define STR_ARG(s) ((int)((s).len > 0x7fffffff ? 0x7fffffff : (s).len)), ((s).p ? (s).p : "")

static inline struct str str_make(const void *p, size_t len)
{
	return (struct str){.p = p, .len = len};
}

/* str_of: NULL counts as empty. */
static inline struct str str_of(const char *z)
{
	return (struct str){.p = z, .len = z ? strlen(z) : 0};
}

static inline bool str_eq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

/* ASCII case folding only. */
bool str_ieq(struct str a, struct str b);
bool str_has_prefix(struct str s, struct str prefix);
bool str_has_suffix(struct str s, struct str suffix);

/* Position of c, or -1. */
ptrdiff_t str_chr(struct str s, char c);

/* s without leading and trailing characters of `set`. */
struct str str_trim(struct str s, const char *set);

/* Splits at the first `sep`: *ret_head gets what is before it, *s what is after. False when s was empty at the start
 * (p == NULL): `a,,b` yields "a", "", "b". */
bool str_split(struct str *s, char sep, struct str *ret_head);

/* Heap copy with a NUL after it. A NUL inside s is copied too. */
char *str_dup(struct str s);

/* Copies into a fixed array and terminates. -EMSGSIZE when it does not fit, -EINVAL when s holds a NUL. */
int str_copy(struct str s, char *ret, size_t size);

/* Whole-string unsigned decimal: no sign, no spaces, no leading zeros but "0". -EINVAL, or -ERANGE above max. */
int str_parse_u64(struct str s, uint64_t max, uint64_t *ret);

/* Order for sorting, bytewise. */
int str_cmp(struct str a, struct str b);

/* No byte below 0x20, no 0x7f, valid UTF-8 without surrogates or C1 controls. */
bool str_is_printable_utf8(struct str s);

/* Constant time for equal lengths. */
bool mem_eq_ct(const void *a, const void *b, size_t n);
