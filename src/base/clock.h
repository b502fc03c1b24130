#pragma once
/* Clocks and the text form of time. */
#include <stdint.h>

#include "base/str.h"

uint64_t mono_ms(void); /* CLOCK_MONOTONIC */
uint64_t mono_us(void);
int64_t real_ms(void); /* milliseconds since 1970, UTC */

/* RFC 3339 in UTC with milliseconds: "2026-01-31T12:00:00.000Z". */
#define RFC3339_SIZE 32
void rfc3339_format(int64_t ms, char ret[RFC3339_SIZE]);
/* Any offset, any number of fraction digits (cut to ms), "T" and "Z" in any case. -EINVAL. */
int rfc3339_parse(struct str s, int64_t *ret_ms);
