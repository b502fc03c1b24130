#pragma once
/* irond.log, kept bounded: past LOG_FILE_MAX_BYTES what it holds becomes irond.log.1, the one before it .2, and so on up to
 * LOG_FILE_KEPT. Every process of iron writes to the one open file (O_APPEND), so it is copied and then emptied, not
 * renamed under them; a line that is written between the two is lost, which a log may. */
#include <event2/event.h>

#define LOG_FILE_MAX_BYTES ((off_t)16 << 20)
#define LOG_FILE_KEPT 4

/* fd is the file at path, open for writing. 1: it was rotated; 0: it is not that large (or is another file, which is left
 * alone); -errno: it stays as it is. What is older than the last max_bytes of it is dropped. */
int log_file_rotate(const char *path, int fd, off_t max_bytes, unsigned kept);

/* Looks at irond.log below state_dir every few seconds, if stderr is that. NULL: it is not. Free with event_free. */
struct event *log_file_watch(struct event_base *base, const char *state_dir);
