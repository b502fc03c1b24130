/* Images: what irond says it has. One that is gone keeps its row, for the VMs that were made of it. */
#include "store/store_sqlite.h"

#define PAGE_DEFAULT 50
#define IMAGE_COLUMNS                                                                                                  \
	"SELECT id, name, hash, kernel, made_from, size_bytes, created_at FROM images WHERE present = 1"
/* Of those of one name the newest is meant; the older ones are there for the VMs that were made of them. */
#define IMAGE_IS_NEWEST                                                                                                \
	" AND NOT EXISTS (SELECT 1 FROM images AS newer WHERE newer.name = images.name AND newer.present = 1"          \
	" AND (newer.created_at, newer.id) > (images.created_at, images.id))"

int store_image_put(struct store *s, const struct msg_image *image)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "INSERT OR REPLACE INTO images (id, name, hash, kernel, made_from, size_bytes,"
				  " created_at, present) VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
				  &q);

	if (r)
		return r;
	bind_u64(&q, image->id);
	bind_str(&q, image->name);
	bind_str(&q, image->hash);
	bind_str(&q, image->kernel);
	bind_str(&q, image->made_from);
	bind_u64(&q, image->size_bytes);
	bind_i64(&q, image->created_at);
	return query_run(&q, NULL);
}

/* The ids that are present, in ret (arena). */
static int images_present(struct store *s, struct arena *a, uint64_t **ret, size_t *ret_n)
{
	_cleanup_(query_finish) struct query q = {0};
	uint64_t *v = NULL;
	size_t n = 0, cap = 0;
	int r = query_begin(s, "SELECT id FROM images WHERE present = 1", a, &q);

	while (r == 0 && (r = query_step(&q)) > 0) {
		uint64_t *id = rows_push(a, (void **)&v, &n, &cap, sizeof *id);
		r = id ? 0 : -ENOMEM;
		if (id)
			*id = column_u64(&q);
	}
	*ret = v;
	*ret_n = n;
	return r;
}

static int image_remove(struct store *s, uint64_t id)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "UPDATE images SET present = 0 WHERE id = ?", &q);

	if (r)
		return r;
	bind_u64(&q, id);
	return query_run(&q, NULL);
}

int store_images_retain(struct store *s, const uint64_t *ids, size_t n)
{
	_cleanup_(arena_finish) struct arena a = {0};
	uint64_t *present;
	size_t npresent;
	int r = images_present(s, &a, &present, &npresent);

	for (size_t i = 0; r == 0 && i < npresent; i++) {
		size_t k = 0;
		while (k < n && ids[k] != present[i])
			k++;
		if (k == n)
			r = image_remove(s, present[i]);
	}
	return r;
}

static int image_columns(struct query *q, struct row_image *ret)
{
	struct row_image image = {0};

	image.id = column_u64(q);
	image.name = column_str(q);
	image.hash = column_str(q);
	image.kernel = column_str(q);
	image.made_from = column_str(q);
	image.size_bytes = column_u64(q);
	image.created_at = column_i64(q);
	if (q->error)
		return q->error;
	*ret = image;
	return 0;
}

int store_image_get(struct store *s, uint64_t id, struct arena *a, struct row_image *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, IMAGE_COLUMNS " AND id = ?", a, &q);

	if (r)
		return r;
	bind_u64(&q, id);
	r = query_step(&q);
	return r <= 0 ? (r ? r : -ENOENT) : image_columns(&q, ret);
}

int store_image_find(struct store *s, struct str name, struct arena *a, struct row_image *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, IMAGE_COLUMNS IMAGE_IS_NEWEST " AND name = ? AND name NOT LIKE '.%'", a, &q);

	if (r)
		return r;
	bind_str(&q, name);
	r = query_step(&q);
	return r <= 0 ? (r ? r : -ENOENT) : image_columns(&q, ret);
}

int store_images_list(struct store *s, const struct msg_page *page, struct arena *a, struct store_images *ret)
{
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};
	size_t limit = page->limit ? page->limit : PAGE_DEFAULT, cap = 0;
	struct store_images images = {0};
	struct cursor c;
	bool given;

	int r = cursor_parse(page->cursor, CURSOR_IMAGES, 0, 0, a, &c, &given);
	if (r)
		return r;
	/* what begins with a dot is an image in the making: it is had by its id alone */
	select_add(&sel, IMAGE_COLUMNS IMAGE_IS_NEWEST " AND name NOT LIKE '.%'");
	if (page->name.len)
		select_str(&sel, " AND name = ?", page->name);
	if (given)
		select_str(&sel, " AND name > ?", c.text);
	select_i64(&sel, " ORDER BY name LIMIT ?", (int64_t)limit + 1);
	r = query_begin_select(s, &sel, a, &q);
	while (r == 0 && (r = query_step(&q)) > 0) {
		images.page.has_more = images.n == limit;
		if (images.page.has_more)
			break;
		struct row_image *image = rows_push(a, (void **)&images.v, &images.n, &cap, sizeof *image);
		r = image ? image_columns(&q, image) : -ENOMEM;
	}
	if (r < 0)
		return r;
	r = 0;
	if (images.page.has_more) {
		c = (struct cursor){.list = CURSOR_IMAGES, .text = images.v[images.n - 1].name};
		r = cursor_format(&c, a, &images.page.cursor);
	}
	if (r == 0)
		*ret = images;
	return r;
}
