#pragma once
/* A growable byte buffer with a ceiling. {0} is an empty buffer with the default ceiling (BUF_DEFAULT_MAX).
 * Appending past the ceiling changes nothing and answers -EMSGSIZE, and sets `failed`, so that a run of appends
 * can be checked once at its end. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

#define BUF_DEFAULT_MAX ((size_t)16 << 20)

struct buf {
	uint8_t *data;
	size_t len, cap;
	size_t max; /* 0: BUF_DEFAULT_MAX */
	bool failed;
};

#define BUF_MAX(n) ((struct buf){.max = (n)})

void buf_finish(struct buf *b);
/* Keeps the memory. */
void buf_clear(struct buf *b);
/* Drops the first n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);
/* Room for n more bytes at data + len, to be filled and then counted with buf_commit. NULL past the ceiling. */
void *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

int buf_append(struct buf *b, const void *p, size_t n);
int buf_append_str(struct buf *b, struct str s);
int buf_append_z(struct buf *b, const char *z);
int buf_append_byte(struct buf *b, uint8_t c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Little-endian integers. */
int buf_append_u16(struct buf *b, uint16_t v);
int buf_append_u32(struct buf *b, uint32_t v);
int buf_append_u64(struct buf *b, uint64_t v);

static inline struct str buf_str(const struct buf *b)
{
	return str_make(b->data, b->len);
}

/* The content as a NUL-terminated heap string; the buffer is empty afterwards. */
char *buf_take_z(struct buf *b);
