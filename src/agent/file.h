#pragma once
/* Small files of the guest's. */
#include <sys/types.h>

#include "base/buf.h"

/* Appends the whole file. -EMSGSIZE: past out's ceiling. */
int file_read(const char *path, struct buf *out);
/* Written beside it and renamed over it, so that a reader sees the old or the new and a symbolic link is replaced, not
 * followed; in place where something is mounted on the file. Missing directories above are made. */
int file_write(const char *path, struct str content, mode_t mode);
/* mkdir -p, 0755. */
int file_make_dirs(const char *path);
/* One write to a file that exists (sysfs, cgroupfs, procfs). */
int file_poke(const char *path, const char *text);
