#pragma once
/* One run of iron-worker for an image: as user iron-work, in a pid and mount namespace of its own, so that when it ends
 * nothing of it is left. */
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

struct image_worker {
	const char *libexec, *recipe, *what; /* what: "hash" or "build" */
	const char *dir;                     /* its working directory, its own */
	uid_t uid;
	gid_t gid;
	int log_fd;  /* its stderr; and stdout, but for "hash" */
	int stop_fd; /* when readable the job is ended */
};

/* on_line: for each line that the recipe says to people. Its output otherwise is in ret_output (at most 64 KiB) or the
 * log. -EINTR: told to stop; -ECHILD: it failed (the log says why). */
int image_worker_run(const struct image_worker *w, void (*on_line)(struct str line, void *user), void *user,
		     struct buf *ret_output, struct error *reterr);
