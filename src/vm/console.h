#pragma once
/* The end of a machine's serial console: what its kernel and init said last. Hostile bytes; kept as they came. */
#include <event2/event.h>

#include "base/buf.h"

#define CONSOLE_KEPT ((size_t)64 << 10)

struct console;

/* Owns fd, a connected socket. */
struct console *console_create(struct event_base *base, int fd);
void console_destroy(struct console *c);

/* The kept bytes, oldest first. */
int console_copy(const struct console *c, struct buf *out);
/* The last line with something on it, escaped for a terminal and cut to max bytes; empty when there is none. */
int console_last_line(const struct console *c, size_t max, struct buf *out);
