#pragma once
/* The names one VM has asked for, each with the synthetic address that stands for it. The table is a file of fixed
 * records that irond keeps and hands to the next worker (a memfd, later part of a snapshot), so what is found in it is
 * judged as if the guest had written it: a record that breaks a rule is cleared, a foreign header clears all.
 *
 * An address is given to another name only when the table is full, the name has no open connection, and neither a query
 * nor a connection used it for an hour. */
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

#define NAMES_MAX 16384
#define NAMES_REUSE_MS ((int64_t)3600 * 1000)

struct names;

/* fd: borrowed, writable; made large enough when it is not. base, prefix: the synthetic range, IPv4 in host order.
 * now_ms: real time. -EINVAL (range too small), or what mmap and ftruncate say. */
int names_open(int fd, uint32_t base, unsigned prefix, int64_t now_ms, struct names **ret, struct error *reterr);
void names_close(struct names *n); /* NULL allowed */

/* The address of a name (lower-case, valid, at most 253 bytes), given one now if it has none. -EBUSY: the table is full
 * and nothing in it may be recycled. */
int names_address(struct names *n, struct str name, int64_t now_ms, uint32_t *ret_addr);
bool names_in_range(const struct names *n, uint32_t addr);
/* Index of the name behind an address, -ENOENT when none stands behind it. *ret_name borrows until the next call of
 * names_address. */
int names_find(const struct names *n, uint32_t addr, struct str *ret_name);

/* A connection to the name begins and ends: pinned while one is open. index as from names_find. */
void names_hold(struct names *n, int index, int64_t now_ms);
void names_release(struct names *n, int index, int64_t now_ms);
unsigned names_count(const struct names *n);
