#pragma once
/* The parts of iron-recipe: its job (iron-recipe_job.c: the VM, the files, the scripts, the end) over commands in that VM
 * (iron-recipe_exec.c). */
#include <jansson.h>

#include "base/buf.h"
#include "cli/client.h"

struct job {
	json_t *spec; /* image_scripts.c writes it */
	struct settings settings;
	struct client *client;
	char vm[24]; /* vm_…, "" before there is one */
};

/* A line to whoever watches the build. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* argv (stolen) as root in the VM, input (NULL: none) as its standard input, bounded by timeout_s. Its output is said line by
 * line where shown, and its end kept in *tail. 0 and *ret_exit_code; negative with a reason when it could not be run or did not
 * end in time. */
int exec_run(struct job *j, json_t *argv, const struct buf *input, unsigned timeout_s, bool shown, struct buf *tail,
	     int *ret_exit_code, struct error *reterr);

/* Up to the stopped VM, whose id it prints. */
int job_run(struct job *j, struct error *reterr);
/* No VM of this job's is left, and no key. */
int job_clean(struct job *j, struct error *reterr);
