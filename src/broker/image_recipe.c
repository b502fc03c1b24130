#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/image_build_impl.h"
#include "os/fdutil.h"

#define DESCRIPTION_BYTES 600

static int file_make(const char *dir, const char *name, struct str content, mode_t mode, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = fd < 0 ? -errno : 0;

	for (size_t done = 0; r == 0 && done < content.len;) {
		ssize_t n = write(fd, content.p + done, content.len - done);
		if (n < 0 && errno != EINTR)
			r = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		r = -errno;
	return r < 0 ? error_set(reterr, r, "%s: %s", path, strerror(-r)) : 0;
}

/* --- for the job --- */

static int files_hand_over(const struct recipe *r, const char *dir, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf index = {0};
	int e = 0;

	for (size_t i = 0; e == 0 && i < r->files.n; i++) {
		const struct recipe_file *f = &r->files.v[i];
		char number[24];
		snprintf(number, sizeof number, "%zu", i);
		buf_printf(&index, "%zu %04o %s:%s %s\n", i, f->mode, f->user, f->group, f->path);
		e = file_make(dir, number, buf_str(&f->content), 0444, reterr);
	}
	return e < 0 ? e : file_make(dir, "files", buf_str(&index), 0444, reterr);
}

static int scripts_hand_over(const struct recipe *r, const char *dir, struct error *reterr)
{
	int e = 0;

	for (size_t i = 0; e == 0 && i < r->scripts.n; i++) {
		char name[32];
		snprintf(name, sizeof name, "script-%zu", i);
		e = file_make(dir, name, buf_str(&r->scripts.v[i].text), 0444, reterr);
	}
	return e;
}

int build_recipe_hand_over(struct build *b, const struct image *from, struct error *reterr)
{
	_cleanup_free_ char *dir = xasprintf("%s/extra", b->work);
	_cleanup_(buf_finish) struct buf packages = {0};
	const struct recipe *recipe = b->recipe;
	char disk[16];
	int r;

	for (size_t i = 0; i < recipe->packages.n; i++)
		buf_printf(&packages, "%s\n", recipe->packages.v[i]);
	snprintf(disk, sizeof disk, "%u\n", recipe->disk_gib);
	if ((r = build_directory_make(dir, 0755, 0, 0, reterr)) < 0 ||
	    (r = file_make(dir, "recipe", buf_str(&recipe->text), 0444, reterr)) < 0 ||
	    (r = file_make(dir, "packages", buf_str(&packages), 0444, reterr)) < 0 ||
	    (r = files_hand_over(recipe, dir, reterr)) < 0 || (r = scripts_hand_over(recipe, dir, reterr)) < 0)
		return r;
	if (from)
		return file_make(dir, "from", str_of(from->hash), 0444, reterr);
	return recipe->disk_gib ? file_make(dir, "disk_gib", str_of(disk), 0444, reterr) : 0;
}

/* --- with the image --- */

static int source_keep(const char *dir, const char *source, const struct buf *content, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, source);
	char *slash = strrchr(path, '/');

	*slash = '\0';
	int r = dir_make_parents(path);
	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	_cleanup_free_ char *whole = xasprintf("%s/%s", path, slash + 1);
	if (access(whole, F_OK) == 0) /* named twice */
		return 0;
	return file_make(path, slash + 1, buf_str(content), 0400, reterr);
}

int build_recipe_keep(struct build *b, struct error *reterr)
{
	_cleanup_free_ char *dir = xasprintf("%s/recipe", b->fresh);
	_cleanup_free_ char *sources = xasprintf("%s/files", dir);
	const struct recipe *recipe = b->recipe;
	int r;

	if ((r = build_directory_make(dir, 0700, 0, 0, reterr)) < 0 ||
	    (r = build_directory_make(sources, 0700, 0, 0, reterr)) < 0 ||
	    (r = file_make(dir, "recipe.yaml", buf_str(&recipe->text), 0400, reterr)) < 0)
		return r;
	for (size_t i = 0; r == 0 && i < recipe->files.n; i++)
		if (recipe->files.v[i].source)
			r = source_keep(sources, recipe->files.v[i].source, &recipe->files.v[i].content, reterr);
	for (size_t i = 0; r == 0 && i < recipe->scripts.n; i++)
		if (recipe->scripts.v[i].source)
			r = source_keep(sources, recipe->scripts.v[i].source, &recipe->scripts.v[i].text, reterr);
	return r;
}

int image_recipe_load(const char *state_dir, const struct image *image, struct recipe **ret, struct error *reterr)
{
	_cleanup_free_ char *images = image_directory(state_dir);
	char id[ID_TEXT_SIZE];

	id_format("img_", image->id, id);
	_cleanup_free_ char *path = xasprintf("%s/%s/recipe/recipe.yaml", images, id);
	_cleanup_free_ char *sources = xasprintf("%s/%s/recipe/files", images, id);
	return recipe_load(path, sources, ret, reterr);
}

void build_recipe_describe(struct build *b, const struct image *from)
{
	_cleanup_(buf_finish) struct buf text = {0};
	const struct recipe *r = b->recipe;
	size_t shown = 0;

	buf_printf(&text, "recipe %s, from %s", r->name, r->from);
	for (; shown < r->packages.n && text.len < DESCRIPTION_BYTES - 100; shown++)
		buf_printf(&text, "%s%s", shown ? " " : "; packages ", r->packages.v[shown]);
	if (shown < r->packages.n)
		buf_printf(&text, " and %zu more", r->packages.n - shown);
	if (r->files.n)
		buf_printf(&text, "; %zu file%s", r->files.n, r->files.n == 1 ? "" : "s");
	if (r->scripts.n)
		buf_printf(&text, "; %zu script%s", r->scripts.n, r->scripts.n == 1 ? "" : "s");
	const char *before = from ? from->made_from : b->image.made_from;
	_cleanup_free_ char *whole = xasprintf("%.*s; %s", STR_ARG(buf_str(&text)), before);
	/* cut where it does not fit, never inside a character: what it is made of is ASCII */
	snprintf(b->image.made_from, sizeof b->image.made_from, "%.1000s", whole);
}
