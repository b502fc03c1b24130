#pragma once
/* A tar archive looked at as it passes, either way: what an extractor would do with it outside of its directory is found
 * before it is handed on. It is not changed. */
#include "base/error.h"
#include "codec/tar.h"

struct archive {
	struct tar_reader reader;
	struct buf rest; /* less than a block of what came */
	bool ended;
};

/* from_guest: whoever unpacks it has a reader of their own, so only what a VM's agent writes (tar_write) is handed on.
 * A client's is read by tar.h on both sides. */
void archive_init(struct archive *a, bool from_guest);
void archive_finish(struct archive *a);
/* -EPERM: an entry leads out of the archive's directory (an absolute name, "..", a link to such), or is a device, a pipe or
 * a socket. -EBADMSG: no archive, or bytes behind its end. The reason begins with the code of a stream_error. */
int archive_push(struct archive *a, struct str data, struct error *reterr);
/* Its end came. */
bool archive_is_whole(const struct archive *a);
