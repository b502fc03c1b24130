#pragma once
/* An image's recipe, as iron-recipe(5) describes it: read whole, with the files and scripts that it names, and checked. Read
 * as root by `irond image build`: nothing outside the recipe's directory is opened for it, and everything has a bound. */
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/vec.h"

#define RECIPE_MAX_BYTES ((size_t)1 << 20)          /* of the recipe itself, and of a script */
#define RECIPE_FILE_MAX_BYTES ((size_t)8 << 20)     /* of a file */
#define RECIPE_TOTAL_MAX_BYTES ((size_t)32 << 20)   /* of all files and scripts */
#define RECIPE_NAME_MAX 48
#define RECIPE_MAX_DISK_GIB 64

struct recipe_file {
	char *path;         /* in the guest, absolute */
	char *user, *group; /* names in the guest */
	uint32_t mode;
	char *source;       /* below the sources' directory; NULL: the content stands in the recipe */
	bool given;         /* the content is; it may be empty */
	struct buf content;
};

struct recipe_script {
	char *source; /* NULL: the text stands in the recipe */
	struct buf text;
};

struct recipe {
	char *name, *from;
	VEC(char *) packages;
	VEC(char *) egress; /* hosts as rules have them */
	VEC(struct recipe_file) files;
	VEC(struct recipe_script) scripts;
	uint32_t disk_gib;          /* 0: that of `from` */
	uint32_t vcpus, memory_mib; /* of the VM in which scripts run; 0: the host's default */
	uint32_t timeout_s;         /* of each script */
	struct buf text;            /* the recipe as it was written */
};

/* sources: the directory that `source` is relative to; NULL: the recipe's own. reterr: "tools.yaml:7: files[0].path: …".
 * -ENOENT, -EACCES, -EINVAL, -EFBIG. */
int recipe_load(const char *path, const char *sources, struct recipe **ret, struct error *reterr);
/* The same from text; name is what errors call it, dir_fd the sources' directory (-1: none may be named). */
int recipe_parse(const char *name, struct str text, int dir_fd, struct recipe **ret, struct error *reterr);
void recipe_destroy(struct recipe *r);
