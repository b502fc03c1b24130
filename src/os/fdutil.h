#pragma once
/* Small files, directories and unix sockets, without the traps. All descriptors are close-on-exec. */
#include <sys/types.h>

#include "base/buf.h"
#include "base/str.h"

/* A whole file appended to out. -EFBIG above max bytes, or an errno. */
int file_read(const char *path, size_t max, struct buf *out);
/* One write(2) of text into an existing file (cgroup and proc files). */
int file_write(const char *path, const char *text);
/* dir/name replaced as a whole: temporary file, fsync, rename, fsync of the directory. A crash leaves the old or the
 * new one, and at most a "name.tmp" that the next call overwrites. */
int file_replace(const char *dir, const char *name, struct str content, mode_t mode);

/* Makes path (its parent exists), or accepts a directory that is there already; then sets owner and mode. A symbolic
 * link is refused (-ENOTDIR). */
int dir_make(const char *path, mode_t mode, uid_t uid, gid_t gid);
/* mkdir -p with 0755 for what is missing. */
int dir_make_parents(const char *path);
/* Removes a directory and everything below it, never following a link nor crossing into another mounted file system.
 * 0 when it was absent. */
int dir_remove(const char *path);

/* poll(2) of one descriptor, carried on over signals. 0: something of events, or an error or hang-up that the next call on
 * it will tell. -ETIMEDOUT; timeout_ms < 0 waits for ever. */
int fd_wait(int fd, short events, int timeout_ms);

/* Listening stream socket at path, replacing a stale one; mode is set before it accepts. -ENAMETOOLONG, -errno. */
int unix_listen(const char *path, mode_t mode, int *ret_fd);
/* Connected stream socket, blocking. */
int unix_connect(const char *path, int *ret_fd);
/* The same, non-blocking. -EAGAIN: the other side does not accept. */
int unix_connect_now(const char *path, int *ret_fd);
