#pragma once
/* A directory tree of this machine that is filled by names and links that nobody vouches for. Whatever they are, nothing
 * outside the tree is made, changed or followed to:
 * - a path is relative; each of its parts is a name that copy_name_is_safe holds for, and is entered by openat with
 *   O_NOFOLLOW, so that a link on the way, sent or there before, ends the copy;
 * - a file is written under a name of its own and renamed, so that what is replaced is the name, never what it points to;
 * - a link may go up from where it lies no higher than the tree's root, and not up again after it went down: so it leads to
 *   a place in the tree, also by way of other such links;
 * - modes are cut to 0777, owners are this user. */
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/str.h"

struct local_tree;

/* The directory `path`, which is made when it is missing; its parent must be there. -errno with a sentence. */
int local_tree_open(const char *path, struct local_tree **ret, struct error *reterr);
void local_tree_close(struct local_tree *t);

/* Directories that are missing on the way are made. "", "." and "./" are the root itself. Each: 0 or -errno with a
 * sentence; -EPERM for what is refused. mtime_ms 0: now. */
int local_tree_directory(struct local_tree *t, struct str path, unsigned mode, struct error *reterr);
int local_tree_link(struct local_tree *t, struct str path, struct str target, struct error *reterr);
/* Another name for a file that is in the tree already. */
int local_tree_hard_link(struct local_tree *t, struct str path, struct str target, struct error *reterr);
/* A file is begun, written and ended; one at a time. */
int local_tree_file(struct local_tree *t, struct str path, struct error *reterr);
int local_tree_write(struct local_tree *t, const void *p, size_t n, struct error *reterr);
int local_tree_file_end(struct local_tree *t, unsigned mode, int64_t mtime_ms, struct error *reterr);
/* What could not be done while the tree was filled: modes that would have kept this user out. */
int local_tree_finish(struct local_tree *t, struct error *reterr);
