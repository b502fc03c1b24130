/* Theory of operation
 *
 * An image is made in state_dir/images/.build-NAME, which belongs to iron-work while its recipe runs there, and to root
 * afterwards: the files that the recipe left are copied out by descriptor into .new-NAME (so that nothing of the recipe's
 * can still write to them), described by a manifest, booted once until the agent answers, and renamed into place. A lock
 * on state_dir/images keeps builds apart; what an interrupted one left is removed by the next, and by this one's own way
 * out. The recipe hashes what it is made from: an image of that hash is not made again unless told so.
 *
 * The recipes of images/ are compiled in. An operator's adds to base's (packages and files go in while it is made), or begins
 * with the disk of another image; its scripts, and in the latter case its files, are done in a VM (image_scripts.c). */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "broker/boot_check.h"
#include "broker/image_build_impl.h"
#include "os/fdutil.h"

#define BUILDER "iron-work"
#define BOOT_MEMORY_MIB 512
#define BOOT_DEADLINE_MS 180000
#define META_MAX_BYTES ((size_t)16 << 10)
#define LOG_TAIL_BYTES 300

void build_say(const struct build *b, struct str line)
{
	_cleanup_(buf_finish) struct buf text = {0};

	escape_terminal(line, &text);
	printf("%4u s  %s: %.*s\n", (unsigned)((mono_ms() - b->started_ms) / 1000), b->name, STR_ARG(buf_str(&text)));
	fflush(stdout);
}

void build_sayf(const struct build *b, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	build_say(b, str_of(text));
}

static void on_line(struct str line, void *user)
{
	build_say(user, line);
}

/* --- the place --- */

static int lock_take(struct build *b, struct error *reterr)
{
	int r = dir_make_parents(b->images);
	if (r < 0)
		return error_set(reterr, r, "%s: %s", b->images, strerror(-r));
	b->lock_fd = open(b->images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->lock_fd < 0)
		return error_set(reterr, -errno, "%s: %s", b->images, strerror(errno));
	if (flock(b->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(reterr, -EBUSY, "another image is being built; try again when it is done");
	b->locked = true;
	return 0;
}

static int builder_find(struct build *b, struct error *reterr)
{
	const struct passwd *user = getpwnam(BUILDER);

	if (!user)
		return error_set(reterr, -ENOENT, "there is no user " BUILDER ", who builds images: useradd --system " BUILDER
						  " && usermod --add-subuids 1900000-1965535 --add-subgids "
						  "1900000-1965535 " BUILDER);
	b->uid = user->pw_uid;
	b->gid = user->pw_gid;
	return 0;
}

/* Both directories anew: they may be what an interrupted build left. */
static int places_make(struct build *b, struct error *reterr)
{
	int r;

	if ((r = build_directory_make(b->work, 0711, b->uid, b->gid, reterr)) < 0 ||
	    (r = build_directory_make(b->fresh, 0755, 0, 0, reterr)) < 0)
		return r;
	b->log_fd = open(b->images, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return b->log_fd < 0 ? error_set(reterr, -errno, "%s: %s", b->images, strerror(errno)) : 0;
}

static int agent_copy(struct build *b, struct error *reterr)
{
	_cleanup_free_ char *linked = xasprintf("%s/iron-agent", b->by->libexec);
	_cleanup_free_ char *from = realpath(linked, NULL);
	_cleanup_free_ char *to = xasprintf("%s/iron-agent", b->work);
	uint64_t bytes = 0;

	if (!from)
		return error_set(reterr, -errno, "%s: %s", linked, strerror(errno));
	return build_file_copy(from, to, 0755, &bytes, reterr);
}

/* --- the recipe --- */

/* Its last words are why it failed. start: where in the log it began. */
static int job_failed(const struct build *b, off_t start, int code, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf text = {0};
	char said[LOG_TAIL_BYTES];
	struct stat st;

	if (code != -ECHILD || fstat(b->log_fd, &st) < 0)
		return code;
	*reterr = (struct error){0};
	ssize_t n = pread(b->log_fd, said, sizeof said, MAX(st.st_size - (off_t)sizeof said, start));
	for (ssize_t i = 0; i < n; i++)
		if (said[i] == '\n')
			said[i] = ' ';
	if (n > 0)
		escape_terminal(str_make(said, (size_t)n), &text);
	else
		return error_set(reterr, code, "the recipe of %s failed without a word; the kernel's log may say why", b->name);
	return error_set(reterr, code, "the recipe of %s failed: %s%.*s", b->name, st.st_size - start > n ? "… " : "",
			 STR_ARG(buf_str(&text)));
}

int build_job(struct build *b, const struct image_worker *w, struct buf *ret_output, struct error *reterr)
{
	struct image_worker whole = *w;

	whole.libexec = b->by->libexec;
	whole.dir = b->work;
	whole.uid = b->uid;
	whole.gid = b->gid;
	whole.log_fd = b->log_fd;
	const off_t start = lseek(b->log_fd, 0, SEEK_END);
	int r = image_worker_run(&whole, on_line, b, ret_output, reterr);
	return r < 0 ? job_failed(b, start, r, reterr) : 0;
}

/* The compiled-in recipe: mini's, or base's, which also knows what an operator's adds. */
static int recipe_run(struct build *b, const char *what, struct buf *ret_output, struct error *reterr)
{
	const char *words[] = {"image", b->recipe ? "base" : b->name, what, NULL};
	const struct image_worker w = {.program = "iron-worker",
				       .words = words,
				       .stdin_fd = -1,
				       .fds = {-1, -1},
				       .stop_fd = b->stop_fd};

	return build_job(b, &w, ret_output, reterr);
}

static int hash_get(struct build *b, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf output = {0};
	uint8_t bytes[BUILD_HASH_CHARS / 2];

	int r = recipe_run(b, "hash", &output, reterr);
	if (r < 0)
		return r;
	struct str hash = str_trim(buf_str(&output), "\n");
	if (hex_decode(hash, bytes, sizeof bytes) < 0)
		return error_set(reterr, -EBADMSG, "the recipe of %s does not say what it is made from", b->name);
	hex_encode(bytes, sizeof bytes, b->image.hash);
	return 0;
}

/* The newest of that name. -ENOENT: there is none. */
static int image_find(const struct build *b, const char *name, struct image *ret)
{
	_cleanup_(image_list_finish) struct image_list images = {0};

	int r = image_scan(b->by->conf->state_dir, &images, NULL);
	for (size_t i = 0; i < images.n; i++)
		if (strcmp(images.v[i].name, name) == 0) {
			*ret = images.v[i];
			return 0;
		}
	return r < 0 ? r : -ENOENT;
}

static bool is_cached(struct build *b)
{
	struct image newest;

	return image_find(b, b->name, &newest) == 0 && strcmp(newest.hash, b->image.hash) == 0;
}

static int meta_line(struct build *b, struct str line, struct buf *made_from)
{
	struct str key, value = line;

	if (!str_split(&value, '=', &key) || !value.p || !str_is_printable_utf8(value))
		return -EBADMSG;
	if (str_eq(key, STR("kernel")))
		return str_copy(value, b->image.kernel, sizeof b->image.kernel);
	if (str_eq(key, STR("cmdline")))
		return str_copy(value, b->cmdline, sizeof b->cmdline);
	if (str_eq(key, STR("made_from")))
		return buf_printf(made_from, "%s%.*s", made_from->len ? ", " : "", STR_ARG(value));
	return -EBADMSG;
}

static int meta_read(struct build *b, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/meta", b->fresh);
	_cleanup_(buf_finish) struct buf text = {0}, made_from = BUF_MAX(sizeof b->image.made_from - 1);
	struct str rest, line;

	int r = file_read(path, META_MAX_BYTES, &text);
	rest = buf_str(&text);
	while (r == 0 && str_split(&rest, '\n', &line))
		if (line.len)
			r = meta_line(b, line, &made_from);
	if (r == 0)
		r = str_copy(buf_str(&made_from), b->image.made_from, sizeof b->image.made_from);
	if (r == 0 && b->image.kernel[0] == '\0')
		r = -EBADMSG;
	unlink(path);
	return r < 0 ? error_set(reterr, r, "the recipe of %s describes its image badly", b->name) : 0;
}

/* Out of the recipe's hands. */
static int output_take(struct build *b, struct error *reterr)
{
	static const char *const files[] = {"kernel", "initrd", "meta", "disk.raw"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *from = xasprintf("%s/out/%s", b->work, files[i]);
		_cleanup_free_ char *to = xasprintf("%s/%s", b->fresh, files[i]);
		bool disk = strcmp(files[i], "disk.raw") == 0;
		if (disk && access(from, F_OK) < 0)
			continue;
		int r = build_file_copy(from, to, 0444, &b->image.size_bytes, reterr);
		if (r < 0)
			return r;
		b->image.has_disk = b->image.has_disk || disk;
	}
	return meta_read(b, reterr);
}

/* --- the proof, and the place in the list --- */

static int boot(struct build *b, struct error *reterr)
{
	_cleanup_(image_files_close) struct image_files files = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1};
	struct accel accel;
	uint64_t ms = 0;
	int r;

	if ((r = accel_get(b->by->conf, &accel, reterr)) < 0 || (r = image_open_directory(b->fresh, &files, reterr)) < 0)
		return r;
	build_say(b, accel.kvm ? STR("booting it once under KVM") : STR("booting it once under TCG (no KVM)"));
	const struct boot_check check = {
		.conf = b->by->conf,
		.image = &files,
		.scratch = b->images,
		.kvm = accel.kvm,
		.tsc_khz = accel.tsc_khz,
		.memory_mib = BOOT_MEMORY_MIB,
		.deadline_ms = BOOT_DEADLINE_MS,
		.stop_fd = b->stop_fd,
	};
	if ((r = boot_check_run(&check, &ms, reterr)) < 0) {
		error_prefix(reterr, "the image does not boot");
		return r;
	}
	build_sayf(b, "its agent answered after %u.%u s", (unsigned)(ms / 1000), (unsigned)(ms / 100 % 10));
	return 0;
}

static int publish(struct build *b, struct error *reterr)
{
	char id[ID_TEXT_SIZE];

	id_format("img_", b->image.id, id);
	_cleanup_free_ char *to = xasprintf("%s/%s", b->images, id);
	if (rename(b->fresh, to) < 0 || fsync(b->lock_fd) < 0)
		return error_set(reterr, -errno, "%s: %s", to, strerror(errno));
	build_sayf(b, "%s, %u MiB", id, (unsigned)(b->image.size_bytes >> 20));
	return 0;
}

/* What the recipe begins with, when that is not base. */
static int from_find(struct build *b, struct image *ret, struct error *reterr)
{
	if (image_find(b, b->recipe->from, ret) < 0)
		return error_set(reterr, -ENOENT, "there is no image %s, from which %s is made; irond image build makes one",
				 b->recipe->from, b->name);
	if (!ret->has_disk)
		return error_set(reterr, -EINVAL, "the image %s has no disk", b->recipe->from);
	return 0;
}

/* fresh has the image's files after this, but for the description. */
static int fill(struct build *b, const struct image *from, struct error *reterr)
{
	int r = 0;

	if (!from && ((r = recipe_run(b, "build", NULL, reterr)) < 0 || (r = output_take(b, reterr)) < 0))
		return r;
	if (!b->recipe)
		return 0;
	if (build_needs_vm(b) && (r = build_scripts_run(b, from, reterr)) < 0)
		return r;
	build_recipe_describe(b, from);
	return build_recipe_keep(b, reterr);
}

static int make(struct build *b, struct error *reterr)
{
	struct image base;
	const struct image *from = NULL;
	int r;

	if ((r = lock_take(b, reterr)) < 0 || (r = builder_find(b, reterr)) < 0)
		return r;
	build_scripts_sweep(b);
	if ((r = places_make(b, reterr)) < 0 || (r = agent_copy(b, reterr)) < 0)
		return r;
	if (b->recipe && strcmp(b->recipe->from, "base") != 0) {
		if ((r = from_find(b, &base, reterr)) < 0)
			return r;
		from = &base;
	}
	if ((b->recipe && (r = build_recipe_hand_over(b, from, reterr)) < 0) || (r = hash_get(b, reterr)) < 0)
		return r;
	if (!b->by->force && is_cached(b)) {
		build_say(b, STR("up to date"));
		return 0;
	}
	if ((r = fill(b, from, reterr)) < 0)
		return r;
	b->image.id = id_random();
	b->image.created_at = real_ms();
	snprintf(b->image.name, sizeof b->image.name, "%s", b->name);
	if ((r = image_manifest_write(b->fresh, &b->image, b->cmdline, reterr)) < 0 || (r = boot(b, reterr)) < 0)
		return r;
	return publish(b, reterr);
}

static void finish(struct build *b)
{
	if (b->locked) {
		dir_remove(b->work);
		dir_remove(b->fresh);
	}
	closep(&b->log_fd);
	closep(&b->lock_fd);
	free(b->work);
	free(b->fresh);
	free(b->images);
}

int build_run(const struct image_builder *by, const char *name, const struct recipe *recipe, struct error *reterr)
{
	struct build b = {.by = by, .name = name, .recipe = recipe, .lock_fd = -1, .log_fd = -1};
	sigset_t stops, before;

	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGHUP);
	sigprocmask(SIG_BLOCK, &stops, &before);
	b.stop_fd = signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK);
	b.started_ms = mono_ms();
	b.images = image_directory(by->conf->state_dir);
	b.work = xasprintf("%s/.build-%s", b.images, name);
	b.fresh = xasprintf("%s/.new-%s", b.images, name);
	int r = b.stop_fd < 0 ? error_set(reterr, -errno, "signalfd: %s", strerror(errno)) : make(&b, reterr);
	finish(&b);
	closep(&b.stop_fd);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}

int image_build(const struct image_builder *by, const char *what, struct error *reterr)
{
	struct recipe *recipe = NULL;

	if (strcmp(what, "base") == 0 || strcmp(what, "mini") == 0)
		return build_run(by, what, NULL, reterr);
	if (!strchr(what, '/') && !str_has_suffix(str_of(what), STR(".yaml")) && !str_has_suffix(str_of(what), STR(".yml")))
		return error_set(reterr, -ENOENT, "there is no recipe '%s': name base, mini, or a recipe's file (./%s.yaml)", what,
				 what);
	int r = recipe_load(what, NULL, &recipe, reterr);
	if (r == 0)
		r = build_run(by, recipe->name, recipe, reterr);
	recipe_destroy(recipe);
	return r;
}
