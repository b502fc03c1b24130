#pragma once
/* Between the parts of an image's build: image_build.c (the order of it), image_files.c (what lies in its directories),
 * image_recipe.c (what an operator's recipe adds), image_scripts.c (its scripts, in a VM). */
#include "base/id.h"
#include "base/str.h"
#include "broker/image_store.h"
#include "broker/image_worker.h"
#include "conf/recipe.h"

#define BUILD_HASH_CHARS 64

struct build {
	const struct image_builder *by;
	const struct recipe *recipe; /* NULL: base or mini itself */
	const char *name;
	char *images, *work, *fresh; /* directories: all images, the job's, the new image's */
	int lock_fd, log_fd, stop_fd;
	bool locked;
	uid_t uid; /* of iron-work */
	gid_t gid;
	uint64_t started_ms;
	struct image image;
	char cmdline[IMAGE_CMDLINE_MAX + 1];
};

/* The whole of it, from the lock to the list. recipe: NULL for base and mini. */
int build_run(const struct image_builder *by, const char *name, const struct recipe *recipe, struct error *reterr);

/* A line of progress, escaped. */
void build_say(const struct build *b, struct str line);
void build_sayf(const struct build *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Runs a program of libexec as iron-work (image_worker.h); why it failed is the end of what it wrote to the log. */
int build_job(struct build *b, const struct image_worker *w, struct buf *ret_output, struct error *reterr);

/* --- image_files.c --- */

/* Holes stay holes: a disk image is mostly those. to: empty. */
int build_data_copy(int from, int to, off_t size);
/* A regular file, no link, by its path into a directory of root's, synced. *bytes grows by what it takes there. */
int build_file_copy(const char *from_path, const char *to_path, mode_t mode, uint64_t *bytes, struct error *reterr);
/* An empty directory of root's. */
int build_directory_make(const char *path, mode_t mode, uid_t uid, gid_t gid, struct error *reterr);

/* --- image_recipe.c --- */

/* What the job needs of the recipe, into work/extra. from: the image that it begins with, NULL for base. */
int build_recipe_hand_over(struct build *b, const struct image *from, struct error *reterr);
/* The recipe and what it names, into fresh/recipe: as image_recipe_load reads it. */
int build_recipe_keep(struct build *b, struct error *reterr);
/* "recipe tools, from base; packages jq, …" before what is in made_from already. */
void build_recipe_describe(struct build *b, const struct image *from);
/* The recipe that an image was made by. -ENOENT: by none. */
int image_recipe_load(const char *state_dir, const struct image *image, struct recipe **ret, struct error *reterr);

/* --- image_scripts.c --- */

/* Whether something of the recipe is done in a VM. */
bool build_needs_vm(const struct build *b);
/* Makes fresh the image of what the recipe's VM left: from fresh as it is, or from an image. Needs a running irond. Leaves
 * no VM, no key and no image of its own, however it ends. */
int build_scripts_run(struct build *b, const struct image *from, struct error *reterr);
/* What a build that was killed left of that. */
void build_scripts_sweep(struct build *b);
