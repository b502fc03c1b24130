/* The rebuild of what is due: images age with the packages in them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "broker/image_build_impl.h"

#define DAY_MS ((int64_t)86400 * 1000)

struct rebuild {
	struct image image;
	struct recipe *recipe; /* NULL: base or mini */
	bool done, made;       /* done: looked at; made: it is another image now */
};

static int rebuild_one(const struct image_builder *by, struct rebuild *one, struct error *reterr)
{
	_cleanup_(image_list_finish) struct image_list after = {0};

	int r = build_run(by, one->image.name, one->recipe, reterr);
	if (r == 0)
		r = image_scan(by->conf->state_dir, &after, reterr);
	for (size_t i = 0; r == 0 && i < after.n; i++)
		if (strcmp(after.v[i].name, one->image.name) == 0) {
			one->made = after.v[i].id != one->image.id;
			break;
		}
	return r;
}

static struct rebuild *rebuild_of(struct rebuild *all, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(all[i].image.name, name) == 0)
			return &all[i];
	return NULL;
}

/* Those that a recipe is known of; the newest of each name. */
static size_t rebuilds_find(const struct image_builder *by, const struct image_list *images, struct rebuild *all)
{
	size_t n = 0;

	for (size_t i = 0; i < images->n; i++) {
		const struct image *image = &images->v[i];
		struct rebuild one = {.image = *image};
		bool own = strcmp(image->name, "base") == 0 || strcmp(image->name, "mini") == 0;
		if (image->name[0] == '.' || rebuild_of(all, n, image->name))
			continue;
		if (own || image_recipe_load(by->conf->state_dir, image, &one.recipe, NULL) == 0)
			all[n++] = one;
	}
	return n;
}

/* An image after the one that it is made from. */
static struct rebuild *rebuild_next(struct rebuild *all, size_t n)
{
	struct rebuild *any = NULL;

	for (size_t i = 0; i < n; i++) {
		if (all[i].done)
			continue;
		const struct rebuild *from = all[i].recipe ? rebuild_of(all, n, all[i].recipe->from) : NULL;
		if (!from || from->done)
			return &all[i];
		any = &all[i];
	}
	return any;
}

int image_rebuild(const struct image_builder *by, unsigned days, struct error *reterr)
{
	_cleanup_(image_list_finish) struct image_list images = {0};
	const int64_t before = real_ms() - days * DAY_MS;
	unsigned failed = 0;

	int r = image_scan(by->conf->state_dir, &images, reterr);
	if (r < 0)
		return r;
	struct rebuild *all = xcalloc(images.n + 1, sizeof *all);
	const size_t n = rebuilds_find(by, &images, all);
	for (struct rebuild *one; r != -EINTR && (one = rebuild_next(all, n)); one->done = true) {
		const struct rebuild *from = one->recipe ? rebuild_of(all, n, one->recipe->from) : NULL;
		struct error e = {0};
		if (one->image.created_at > before && !(from && from->made))
			continue;
		r = rebuild_one(by, one, &e);
		if (r < 0)
			fprintf(stderr, "irond: %s: %s\n", one->image.name, e.text);
		failed += r < 0;
	}
	for (size_t i = 0; i < n; i++)
		recipe_destroy(all[i].recipe);
	free(all);
	return failed ? error_set(reterr, -EIO, "%u of the images could not be made anew; those that there were stay", failed)
		      : 0;
}
