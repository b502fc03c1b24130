#pragma once
/* One job of an image's build: iron-worker or iron-recipe, in a pid and mount namespace of its own, so that when it ends
 * nothing of it is left. The program gives up root itself, told as whom it is to go on. */
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

struct image_worker {
	const char *libexec, *program;
	const char *const *words; /* its arguments after --uid N --gid N, NULL-terminated */
	const char *dir;          /* its working directory */
	uid_t uid;
	gid_t gid;
	int stdin_fd; /* -1: /dev/null */
	int fds[2];   /* on 4 and 5; -1: closed */
	int log_fd;   /* its stderr; and stdout, where nobody asks for that */
	int stop_fd;  /* when readable the job is ended; -1: none */
};

/* on_line: for each line that the job says to people. Its output otherwise is in ret_output (at most 64 KiB) or the log.
 * -EINTR: told to stop; -ECHILD: it failed (the log says why). */
int image_worker_run(const struct image_worker *w, void (*on_line)(struct str line, void *user), void *user,
		     struct buf *ret_output, struct error *reterr);
