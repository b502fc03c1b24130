#include "broker/image_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "os/fdutil.h"

#define MANIFEST "manifest.json"
#define MANIFEST_MAX_BYTES ((size_t)16 << 10)
#define MAX_IMAGES 1024

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

char *image_directory(const char *state_dir)
{
	return xasprintf("%s/images", state_dir);
}

static int text_get(const json_t *j, const char *key, char *ret, size_t size)
{
	json_t *v = json_object_get(j, key);

	if (!json_is_string(v))
		return -EBADMSG;
	return str_copy(str_make(json_string_value(v), json_string_length(v)), ret, size);
}

static int manifest_decode(const json_t *j, struct image *ret, char cmdline[static IMAGE_CMDLINE_MAX + 1])
{
	struct image image = {0};
	char id[ID_TEXT_SIZE], created[RFC3339_SIZE];

	if (text_get(j, "id", id, sizeof id) < 0 || id_parse("img_", str_of(id), &image.id) < 0 ||
	    text_get(j, "created_at", created, sizeof created) < 0 ||
	    rfc3339_parse(str_of(created), &image.created_at) < 0 ||
	    text_get(j, "name", image.name, sizeof image.name) < 0 ||
	    text_get(j, "hash", image.hash, sizeof image.hash) < 0 ||
	    text_get(j, "kernel", image.kernel, sizeof image.kernel) < 0 ||
	    text_get(j, "made_from", image.made_from, sizeof image.made_from) < 0 ||
	    text_get(j, "cmdline", cmdline, IMAGE_CMDLINE_MAX + 1) < 0 ||
	    !json_is_integer(json_object_get(j, "size_bytes")) || !json_is_boolean(json_object_get(j, "disk")))
		return -EBADMSG;
	image.size_bytes = (uint64_t)json_integer_value(json_object_get(j, "size_bytes"));
	image.has_disk = json_is_true(json_object_get(j, "disk"));
	*ret = image;
	return 0;
}

static int manifest_read(const char *dir, struct image *ret, char cmdline[static IMAGE_CMDLINE_MAX + 1])
{
	_cleanup_free_ char *path = xasprintf("%s/" MANIFEST, dir);
	_cleanup_(buf_finish) struct buf text = {0};

	int r = file_read(path, MANIFEST_MAX_BYTES, &text);
	if (r < 0)
		return r;
	json_auto_t *j = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	return j ? manifest_decode(j, ret, cmdline) : -EBADMSG;
}

int image_manifest_write(const char *dir, const struct image *image, const char *cmdline, struct error *reterr)
{
	char id[ID_TEXT_SIZE], created[RFC3339_SIZE];

	id_format("img_", image->id, id);
	rfc3339_format(image->created_at, created);
	json_auto_t *j =
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:s}", "id", id, "name", image->name, "hash",
			  image->hash, "kernel", image->kernel, "cmdline", cmdline, "made_from", image->made_from,
			  "size_bytes", (json_int_t)image->size_bytes, "disk", image->has_disk, "created_at", created);
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	if (!text)
		return error_set(reterr, -EINVAL, "the image's description is not text");
	int r = file_replace(dir, MANIFEST, str_of(text), 0444);
	return r < 0 ? error_set(reterr, r, "%s/" MANIFEST ": %s", dir, strerror(-r)) : 0;
}

void image_files_close(struct image_files *f)
{
	closep(&f->kernel_fd);
	closep(&f->initrd_fd);
	closep(&f->disk_fd);
	f->kernel_fd = f->initrd_fd = f->disk_fd = -1;
}

static int file_open(const char *dir, const char *name, int *ret_fd, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	struct stat st;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return error_set(reterr, -EBADMSG, "%s is not a file with content", path);
	*ret_fd = take_fd(fd);
	return 0;
}

int image_open_directory(const char *dir, struct image_files *ret, struct error *reterr)
{
	_cleanup_(image_files_close) struct image_files f = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1};
	struct image image;

	int r = manifest_read(dir, &image, f.cmdline);
	if (r < 0)
		return error_set(reterr, r, "%s/" MANIFEST ": %s", dir, strerror(-r));
	if ((r = file_open(dir, "kernel", &f.kernel_fd, reterr)) < 0 ||
	    (r = file_open(dir, "initrd", &f.initrd_fd, reterr)) < 0 ||
	    (image.has_disk && (r = file_open(dir, "disk.raw", &f.disk_fd, reterr)) < 0))
		return r;
	*ret = f;
	f.kernel_fd = f.initrd_fd = f.disk_fd = -1;
	return 0;
}

int image_open(const char *state_dir, uint64_t id, struct image_files *ret, struct error *reterr)
{
	_cleanup_free_ char *images = image_directory(state_dir);
	char text[ID_TEXT_SIZE];

	id_format("img_", id, text);
	_cleanup_free_ char *dir = xasprintf("%s/%s", images, text);
	if (access(dir, F_OK) < 0)
		return error_set(reterr, -ENOENT, "there is no image %s", text);
	return image_open_directory(dir, ret, reterr);
}

int image_remove(const char *state_dir, uint64_t id)
{
	_cleanup_free_ char *images = image_directory(state_dir);
	char text[ID_TEXT_SIZE];

	id_format("img_", id, text);
	_cleanup_free_ char *dir = xasprintf("%s/%s", images, text);
	return dir_remove(dir);
}

static int newest_first(const void *a, const void *b)
{
	const struct image *x = a, *y = b;
	return x->created_at < y->created_at ? 1 : x->created_at > y->created_at ? -1 : 0;
}

/* A directory that is not a whole image of that id is left out. */
static void scan_one(const char *images, const char *entry, struct image_list *list)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s", images, entry);
	_cleanup_(image_files_close) struct image_files files = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1};
	struct error e = {0};
	struct image image;
	char cmdline[IMAGE_CMDLINE_MAX + 1];
	uint64_t id;

	if (id_parse("img_", str_of(entry), &id) < 0)
		return;
	if (manifest_read(dir, &image, cmdline) < 0 || image.id != id || image_open_directory(dir, &files, &e) < 0) {
		log_warn("damaged image left out", "image=%s reason=%s", log_quote(entry), log_quote(e.text));
		return;
	}
	list->v = xrealloc(list->v, (list->n + 1) * sizeof *list->v);
	list->v[list->n++] = image;
}

int image_scan(const char *state_dir, struct image_list *ret, struct error *reterr)
{
	_cleanup_free_ char *images = image_directory(state_dir);
	_cleanup_(closedirp) DIR *d = opendir(images);
	struct image_list list = {0};

	if (!d && errno != ENOENT)
		return error_set(reterr, -errno, "%s: %s", images, strerror(errno));
	for (struct dirent *e; d && list.n < MAX_IMAGES && (e = readdir(d));)
		scan_one(images, e->d_name, &list);
	if (list.n)
		qsort(list.v, list.n, sizeof *list.v, newest_first);
	*ret = list;
	return 0;
}

void image_list_finish(struct image_list *l)
{
	free(l->v);
	*l = (struct image_list){0};
}
