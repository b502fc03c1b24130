/* image list, image show. */
#include <string.h>

#include "cli/command.h"

static int run_image_list(struct context *c)
{
	static const struct column columns[] = {{"NAME", 6, 0, false},   {"AGE", 8, 0, false},
	                                        {"SIZE", 9, 1, true},    {"MADE FROM", 9, 2, false},
	                                        {"KERNEL", 8, 4, false}, {"ID", 17, 3, false}};
	json_t *data = NULL, *image;
	struct table t;
	size_t i;

	if (list_all(c, "/images?limit=200", &data))
		return EXIT_FAILED;
	table_init(&t, columns, ARRAY_SIZE(columns));
	json_array_foreach(data, i, image)
	{
		_cleanup_free_ char *age = out_age(json_object_get(image, "created_at")),
		                    *size = out_bytes(json_object_get(image, "size_bytes"));
		const char *cells[] = {get_string(image, "name"),
		                       age,
		                       size,
		                       get_string(image, "made_from"),
		                       get_string(image, "kernel"),
		                       get_string(image, "id")};
		for (size_t k = 0; k < ARRAY_SIZE(cells); k++)
			table_cell(&t, cells[k]);
	}
	if (c->json)
		out_json(data);
	else if (c->quiet)
		out_each(data, "name");
	else if (json_array_size(data))
		table_print(&t);
	else
		out_line("no images; sudo irond image build base makes one");
	table_finish(&t);
	json_decref(data);
	return 0;
}

static int run_image_show(struct context *c)
{
	_cleanup_free_ char *id = NULL;

	if (resolve_named(c, "/images?limit=200", "img_", "image", "iron image list", c->args.words[0], &id))
		return EXIT_FAILED;
	_cleanup_free_ char *path = xasprintf("/images/%s", id);
	return print_one(c, path);
}

static const struct arg_option none[] = {{0}};

const struct command image_commands[] = {
	{"image list", "", "list images: age, size, and what each was made from", NULL,
	 "iron image list\niron image list --json\n", none, 0, 0, 0, run_image_list},
	{"image show", "IMAGE", "show an image", NULL, "iron image show base\n", none, 1, 1, 0, run_image_show},
	{0},
};
