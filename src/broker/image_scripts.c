/* Theory of operation
 *
 * A recipe's scripts run in a VM like any other: made through the public API, in the default workspace, with its own egress
 * rules and nothing inherited, on the record. iron-recipe (an API client without privileges) does that, with a key that irond
 * makes for it and that is revoked when it is done. The VM boots from the image that the recipe begins with, or from what
 * mmdebstrap has just made, which for that time is an image of its own whose name begins with a dot: it is not listed, and
 * can be named by its id alone. When the scripts are through and the VM has stopped, iron-worker writes its overlay over a copy
 * of the disk below it, and that is the new image's disk. The host interprets neither.
 *
 * However this ends, `iron-recipe clean` destroys the VM and revokes the key, and the image with the dot goes. A build that was
 * killed has that done by the next one (build_scripts_sweep; the key expires by itself), and irond removes it when it starts. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "broker/image_build_impl.h"
#include "broker/state.h"
#include "codec/hostname.h"
#include "model/scope.h"
#include "os/fdutil.h"

#define DEFAULT_VCPUS 2
#define DEFAULT_MEMORY_MIB 1024
#define MIN_DISK_GIB 4
#define KEY_LIFE_MS ((int64_t)12 * 3600 * 1000)
#define CERT_MAX_BYTES ((size_t)256 << 10)
#define JOB_MAX_BYTES ((size_t)64 << 20)
#define GIB ((uint64_t)1 << 30)

struct stage {
	struct build *b;
	uint64_t image;        /* what the VM boots from */
	char *dir;             /* that image's directory */
	bool own;              /* it was made for this */
	struct image_files files;
	uint64_t disk_gib;
	char key[512];
	int job_fd;            /* iron-recipe's job, -1: none yet */
	uint64_t vm;
};

bool build_needs_vm(const struct build *b)
{
	return b->recipe && (b->recipe->scripts.n > 0 || strcmp(b->recipe->from, "base") != 0);
}

static void ignore_line(const char *line, void *user)
{
}

static int ask(const struct build *b, const char *const *words, void (*print)(const char *, void *), void *user,
	       struct error *reterr)
{
	return b->by->request ? b->by->request(b->by->conf, words, print, user, reterr) : -ENOENT;
}

static int rescan(const struct build *b, struct error *reterr)
{
	const char *words[] = {"rescan", NULL};

	return ask(b, words, ignore_line, NULL, reterr);
}

/* --- the image that the VM boots from --- */

static int stage_publish(struct stage *s, struct error *reterr)
{
	struct build *b = s->b;
	struct image image = b->image;
	char id[ID_TEXT_SIZE];
	int r;

	image.id = s->image = id_random();
	image.created_at = real_ms();
	snprintf(image.name, sizeof image.name, ".%s", b->name);
	id_format("img_", image.id, id);
	if ((r = image_manifest_write(b->fresh, &image, b->cmdline, reterr)) < 0)
		return r;
	s->dir = xasprintf("%s/%s", b->images, id);
	if (rename(b->fresh, s->dir) < 0)
		return error_set(reterr, -errno, "%s: %s", s->dir, strerror(errno));
	s->own = true;
	return rescan(b, reterr);
}

static int stage_open(struct stage *s, struct error *reterr)
{
	struct stat st;
	int r = image_open_directory(s->dir, &s->files, reterr);

	if (r < 0)
		return r;
	if (fstat(s->files.disk_fd, &st) < 0)
		return error_set(reterr, -errno, "%s: %s", s->dir, strerror(errno));
	s->disk_gib = MAX(((uint64_t)st.st_size + GIB - 1) / GIB, (uint64_t)MAX(s->b->recipe->disk_gib, MIN_DISK_GIB));
	return 0;
}

static int stage_begin(struct stage *s, const struct image *from, struct error *reterr)
{
	char id[ID_TEXT_SIZE];
	int r;

	if (!from) {
		r = stage_publish(s, reterr);
	} else {
		s->image = from->id;
		id_format("img_", from->id, id);
		s->dir = xasprintf("%s/%s", s->b->images, id);
		memcpy(s->b->image.kernel, from->kernel, sizeof from->kernel);
		r = 0;
	}
	if (r == 0)
		r = stage_open(s, reterr);
	if (r == 0)
		snprintf(s->b->cmdline, sizeof s->b->cmdline, "%s", s->files.cmdline);
	return r;
}

/* --- iron-recipe's job --- */

static void keep_key(const char *line, void *user)
{
	struct stage *s = user;

	snprintf(s->key, sizeof s->key, "%s", line);
}

static int key_make(struct stage *s, const char *name, struct error *reterr)
{
	char scopes[12], expires[24];
	const char *words[] = {"key", name, scopes, expires, "", NULL};

	snprintf(scopes, sizeof scopes, "%u", SCOPE_VM_READ | SCOPE_VM_RUN | SCOPE_VM_ADMIN | SCOPE_EGRESS_WRITE | SCOPE_KEYS);
	snprintf(expires, sizeof expires, "%ld", real_ms() + KEY_LIFE_MS);
	int r = ask(s->b, words, keep_key, s, reterr);
	if (r == -ENOENT || r == -ECONNREFUSED) {
		*reterr = (struct error){0};
		return error_set(reterr, r, "this recipe's scripts run in a VM, and irond does not run; start it: irond start");
	}
	return r < 0 || s->key[0] ? r : error_set(reterr, -EPROTO, "irond made no key");
}

/* Where the API listens, as this host reaches it. */
static char *api_url(const struct conf *conf)
{
	struct host h;
	uint16_t port = 0;

	authority_parse(str_of(conf->listen[0]), &h, &port);
	if (strcmp(h.name, "0.0.0.0") == 0)
		return xasprintf("https://127.0.0.1:%u", port);
	if (strcmp(h.name, "::") == 0)
		return xasprintf("https://[::1]:%u", port);
	return xasprintf(h.ip.family == 6 ? "https://[%s]:%u" : "https://%s:%u", h.name, port);
}

static json_t *text_of(const struct buf *b)
{
	_cleanup_(buf_finish) struct buf text = BUF_MAX(JOB_MAX_BYTES);

	base64_encode(buf_str(b), &text);
	return json_stringn((const char *)text.data, text.len);
}

static json_t *scripts_list(const struct recipe *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->scripts.n; i++)
		json_array_append_new(list, json_pack("{s:s, s:o}", "name",
						      r->scripts.v[i].source ? r->scripts.v[i].source : "", "text",
						      text_of(&r->scripts.v[i].text)));
	return list;
}

/* What went in while the disk was made does not go in again. */
static json_t *files_list(const struct recipe *r, bool made)
{
	json_t *list = json_array();

	for (size_t i = 0; !made && i < r->files.n; i++) {
		const struct recipe_file *f = &r->files.v[i];
		char mode[8];
		snprintf(mode, sizeof mode, "%04o", f->mode);
		_cleanup_free_ char *owner = xasprintf("%s:%s", f->user, f->group);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o}", "path", f->path, "mode", mode, "owner", owner,
						      "content", text_of(&f->content)));
	}
	return list;
}

static json_t *hosts_list(const struct recipe *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->egress.n; i++)
		json_array_append_new(list, json_string(r->egress.v[i]));
	return list;
}

static json_t *job_describe(const struct stage *s, const char *name, const char *cert)
{
	const struct recipe *r = s->b->recipe;
	_cleanup_free_ char *url = api_url(s->b->by->conf);
	char image[ID_TEXT_SIZE];

	id_format("img_", s->image, image);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:o}", "url", url, "key", s->key, "cert",
			 cert, "name", name, "label", r->name, "image", image, "vcpus",
			 (int)(r->vcpus ? r->vcpus : DEFAULT_VCPUS), "memory_mib",
			 (int)(r->memory_mib ? r->memory_mib : DEFAULT_MEMORY_MIB), "disk_gib", (int)s->disk_gib, "timeout_s",
			 (int)r->timeout_s, "hosts", hosts_list(r), "files", files_list(r, s->own), "scripts",
			 scripts_list(r));
}

static int job_write(struct stage *s, json_t *job, struct error *reterr)
{
	_cleanup_free_ char *text = json_dumps(job, JSON_COMPACT);
	const size_t n = text ? strlen(text) : 0;

	s->job_fd = memfd_create("job", MFD_CLOEXEC);
	bool written = text && s->job_fd >= 0 && write(s->job_fd, text, n) == (ssize_t)n;
	if (text)
		explicit_bzero(text, n);
	return written ? 0 : error_set(reterr, -EIO, "the scripts' job cannot be written down");
}

static int job_make(struct stage *s, struct error *reterr)
{
	_cleanup_free_ char *name = xasprintf("image-build-%s", s->b->name);
	_cleanup_(buf_finish) struct buf cert = {0};
	const char *path = s->b->by->conf->tls.cert_file;
	int r = file_read(path, CERT_MAX_BYTES, &cert);

	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	if ((r = key_make(s, name, reterr)) < 0)
		return r;
	_cleanup_free_ char *pem = buf_take_z(&cert);
	json_auto_t *job = job_describe(s, name, pem);
	return job_write(s, job, reterr);
}

static int job_run(struct stage *s, const char *what, int stop_fd, struct buf *ret_output, struct error *reterr)
{
	const char *words[] = {what, NULL};
	const struct image_worker w = {
		.program = "iron-recipe", .words = words, .stdin_fd = s->job_fd, .fds = {-1, -1}, .stop_fd = stop_fd};

	if (lseek(s->job_fd, 0, SEEK_SET) < 0)
		return error_set(reterr, -errno, "seek: %s", strerror(errno));
	return build_job(s->b, &w, ret_output, reterr);
}

static int scripts_run(struct stage *s, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf output = {0};
	int r = job_run(s, "run", s->b->stop_fd, &output, reterr);

	if (r == 0 && id_parse("vm_", str_trim(buf_str(&output), "\n"), &s->vm) < 0)
		r = error_set(reterr, -EPROTO, "iron-recipe names no VM");
	return r;
}

/* --- the new disk --- */

/* The VM's: of our image, at its place. */
static int overlay_open(const struct stage *s, int *ret_fd, struct error *reterr)
{
	struct vm_record record;
	char id[ID_TEXT_SIZE];

	id_format("vm_", s->vm, id);
	_cleanup_free_ char *dir = xasprintf("%s/vms/%s", s->b->by->conf->state_dir, id);
	_cleanup_free_ char *path = xasprintf("%s/overlay.qcow2", dir);
	int r = vm_record_read(dir, &record, reterr);
	if (r < 0)
		return r;
	if (record.vm != s->vm || record.image != s->image || record.disk_gib != s->disk_gib)
		return error_set(reterr, -EPROTO, "%s is not the VM in which the scripts ran", id);
	*ret_fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? error_set(reterr, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int disk_write(struct stage *s, int disk, struct error *reterr)
{
	_cleanup_close_ int overlay = -1;
	char bytes[24];
	const char *words[] = {"flatten", bytes, NULL};
	struct stat st;
	int r = overlay_open(s, &overlay, reterr);

	if (r < 0)
		return r;
	if (fstat(s->files.disk_fd, &st) < 0 || (r = build_data_copy(s->files.disk_fd, disk, st.st_size)) < 0)
		return error_set(reterr, r < 0 ? r : -errno, "copying the disk: %s", strerror(r < 0 ? -r : errno));
	snprintf(bytes, sizeof bytes, "%lu", s->disk_gib * GIB);
	const struct image_worker w = {.program = "iron-worker",
				       .words = words,
				       .stdin_fd = -1,
				       .fds = {overlay, disk},
				       .stop_fd = s->b->stop_fd};
	return build_job(s->b, &w, NULL, reterr);
}

static int disk_make(struct stage *s, struct error *reterr)
{
	struct build *b = s->b;
	_cleanup_free_ char *path = xasprintf("%s/disk.raw", b->fresh);
	_cleanup_close_ int disk = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	if (disk < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	build_say(b, STR("writing the disk"));
	int r = disk_write(s, disk, reterr);
	if (r == 0 && (fchmod(disk, 0444) < 0 || fsync(disk) < 0 || fstat(disk, &st) < 0))
		r = error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	if (r == 0)
		b->image.size_bytes += (uint64_t)st.st_blocks * 512;
	return r;
}

/* fresh anew: kernel and initrd as they are, the disk as the VM left it. */
static int image_make(struct stage *s, struct error *reterr)
{
	static const char *const files[] = {"kernel", "initrd"};
	struct build *b = s->b;
	int r = build_directory_make(b->fresh, 0755, 0, 0, reterr);

	b->image.size_bytes = 0;
	b->image.has_disk = true;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *from = xasprintf("%s/%s", s->dir, files[i]);
		_cleanup_free_ char *to = xasprintf("%s/%s", b->fresh, files[i]);
		r = build_file_copy(from, to, 0444, &b->image.size_bytes, reterr);
	}
	return r < 0 ? r : disk_make(s, reterr);
}

/* --- the end of it --- */

static void stage_end(struct stage *s)
{
	struct error e = {0};

	/* by its own time: also after it was told to stop */
	if (s->job_fd >= 0 && job_run(s, "clean", -1, NULL, &e) < 0)
		build_sayf(s->b, "the VM image-build-%s, or its key, could not be removed: %s", s->b->name, e.text);
	e = (struct error){0};
	if (s->own && (image_remove(s->b->by->conf->state_dir, s->image) < 0 || rescan(s->b, &e) < 0))
		build_sayf(s->b, "what the VM booted from could not be removed: %s", e.text);
	closep(&s->job_fd);
	explicit_bzero(s->key, sizeof s->key);
	image_files_close(&s->files);
	free(s->dir);
}

int build_scripts_run(struct build *b, const struct image *from, struct error *reterr)
{
	_cleanup_(stage_end) struct stage s = {
		.b = b, .job_fd = -1, .files = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1}};
	int r;

	if ((r = stage_begin(&s, from, reterr)) < 0 || (r = job_make(&s, reterr)) < 0 || (r = scripts_run(&s, reterr)) < 0)
		return r;
	return image_make(&s, reterr);
}

void build_scripts_sweep(struct build *b)
{
	_cleanup_(image_list_finish) struct image_list images = {0};
	unsigned n = 0;

	if (image_scan(b->by->conf->state_dir, &images, NULL) < 0)
		return;
	for (size_t i = 0; i < images.n; i++)
		if (images.v[i].name[0] == '.')
			n += image_remove(b->by->conf->state_dir, images.v[i].id) == 0;
	if (n)
		rescan(b, NULL);
}
