/* Theory of operation
 *
 * An image is made in state_dir/images/.build-NAME, which belongs to iron-work while its recipe runs there, and to root
 * afterwards: the files that the recipe left are copied out by descriptor into .new-NAME (so that nothing of the recipe's
 * can still write to them), described by a manifest, booted once until the agent answers, and renamed into place. A lock
 * on state_dir/images keeps builds apart; what an interrupted one left is removed by the next, and by this one's own way
 * out. The recipe hashes what it is made from: an image of that hash is not made again unless told so. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/text.h"
#include "broker/boot_check.h"
#include "broker/image_store.h"
#include "broker/image_worker.h"
#include "os/fdutil.h"

#define BUILDER "iron-work"
#define BOOT_MEMORY_MIB 512
#define BOOT_DEADLINE_MS 180000
#define META_MAX_BYTES ((size_t)16 << 10)
#define LOG_TAIL_BYTES 300
#define HASH_CHARS 64

struct build {
	const struct conf *conf;
	const char *libexec, *name;
	char *images, *work, *fresh; /* directories */
	int lock_fd, log_fd, stop_fd;
	bool locked;
	uid_t uid;
	gid_t gid;
	uint64_t started_ms;
	struct image image;
	char cmdline[IMAGE_CMDLINE_MAX + 1];
};

static void say(const struct build *b, struct str line)
{
	_cleanup_(buf_finish) struct buf text = {0};

	escape_terminal(line, &text);
	printf("%4u s  %s: %.*s\n", (unsigned)((mono_ms() - b->started_ms) / 1000), b->name, STR_ARG(buf_str(&text)));
	fflush(stdout);
}

static void on_line(struct str line, void *user)
{
	say(user, line);
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

	dir_remove(b->work);
	dir_remove(b->fresh);
	if ((r = dir_make(b->work, 0711, b->uid, b->gid)) < 0)
		return error_set(reterr, r, "%s: %s", b->work, strerror(-r));
	if ((r = dir_make(b->fresh, 0755, 0, 0)) < 0)
		return error_set(reterr, r, "%s: %s", b->fresh, strerror(-r));
	b->log_fd = open(b->images, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return b->log_fd < 0 ? error_set(reterr, -errno, "%s: %s", b->images, strerror(errno)) : 0;
}

/* Holes stay holes: a disk image is mostly those. */
static int data_copy(int from, int to, off_t size)
{
	off_t end;

	if (ftruncate(to, size) < 0)
		return -errno;
	for (off_t at = 0; (at = lseek(from, at, SEEK_DATA)) >= 0 && at < size; at = end) {
		if ((end = lseek(from, at, SEEK_HOLE)) < 0)
			return -errno;
		if (lseek(to, at, SEEK_SET) < 0)
			return -errno;
		for (off_t done = at; done < end;) {
			ssize_t n = sendfile(to, from, &done, (size_t)MIN(end - done, (off_t)1 << 30));
			if (n <= 0)
				return n < 0 ? -errno : -EIO;
		}
	}
	return errno == ENXIO || size == 0 ? 0 : -errno;
}

/* A file by its path into a directory of root's. *ret_bytes: what it takes there. */
static int file_copy(const char *from_path, const char *to_path, mode_t mode, uint64_t *ret_bytes, struct error *reterr)
{
	struct stat st;
	_cleanup_close_ int from = open(from_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (from < 0 || fstat(from, &st) < 0)
		return error_set(reterr, -errno, "%s: %s", from_path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(reterr, -EBADMSG, "%s is not a file", from_path);
	_cleanup_close_ int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return error_set(reterr, -errno, "%s: %s", to_path, strerror(errno));
	errno = ENXIO;
	int r = data_copy(from, to, st.st_size);
	if (r == 0 && (fchmod(to, mode) < 0 || fsync(to) < 0 || fstat(to, &st) < 0))
		r = -errno;
	if (r < 0)
		return error_set(reterr, r, "%s: %s", to_path, strerror(-r));
	*ret_bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

static int agent_copy(struct build *b, struct error *reterr)
{
	_cleanup_free_ char *linked = xasprintf("%s/iron-agent", b->libexec);
	_cleanup_free_ char *from = realpath(linked, NULL);
	_cleanup_free_ char *to = xasprintf("%s/iron-agent", b->work);
	uint64_t bytes = 0;

	if (!from)
		return error_set(reterr, -errno, "%s: %s", linked, strerror(errno));
	return file_copy(from, to, 0755, &bytes, reterr);
}

/* --- the recipe --- */

/* Its last words are why it failed. */
static int recipe_failed(const struct build *b, int code, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf text = {0};
	char said[LOG_TAIL_BYTES];
	struct stat st;

	if (code != -ECHILD || fstat(b->log_fd, &st) < 0)
		return code;
	ssize_t n = pread(b->log_fd, said, sizeof said, MAX(st.st_size - (off_t)sizeof said, 0));
	for (ssize_t i = 0; i < n; i++)
		if (said[i] == '\n')
			said[i] = ' ';
	if (n > 0)
		escape_terminal(str_make(said, (size_t)n), &text);
	*reterr = (struct error){0};
	return error_set(reterr, code, "the recipe of %s failed: … %.*s", b->name, STR_ARG(buf_str(&text)));
}

static int recipe_run(struct build *b, const char *what, struct buf *ret_output, struct error *reterr)
{
	const struct image_worker w = {
		.libexec = b->libexec,
		.recipe = b->name,
		.what = what,
		.dir = b->work,
		.uid = b->uid,
		.gid = b->gid,
		.log_fd = b->log_fd,
		.stop_fd = b->stop_fd,
	};
	int r = image_worker_run(&w, on_line, b, ret_output, reterr);

	return r < 0 ? recipe_failed(b, r, reterr) : 0;
}

static int hash_get(struct build *b, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf output = {0};
	uint8_t bytes[HASH_CHARS / 2];

	int r = recipe_run(b, "hash", &output, reterr);
	if (r < 0)
		return r;
	struct str hash = str_trim(buf_str(&output), "\n");
	if (hex_decode(hash, bytes, sizeof bytes) < 0)
		return error_set(reterr, -EBADMSG, "the recipe of %s does not say what it is made from", b->name);
	hex_encode(bytes, sizeof bytes, b->image.hash);
	return 0;
}

static bool is_cached(struct build *b)
{
	_cleanup_(image_list_finish) struct image_list images = {0};

	if (image_scan(b->conf->state_dir, &images, NULL) < 0)
		return false;
	for (size_t i = 0; i < images.n; i++)
		if (strcmp(images.v[i].name, b->name) == 0 && strcmp(images.v[i].hash, b->image.hash) == 0)
			return true;
	return false;
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
		int r = file_copy(from, to, 0444, &b->image.size_bytes, reterr);
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
	_cleanup_free_ char *done = NULL;
	struct accel accel;
	uint64_t ms = 0;
	int r;

	if ((r = accel_get(b->conf, &accel, reterr)) < 0 || (r = image_open_directory(b->fresh, &files, reterr)) < 0)
		return r;
	say(b, accel.kvm ? STR("booting it once under KVM") : STR("booting it once under TCG (no KVM)"));
	const struct boot_check check = {
		.conf = b->conf,
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
	done = xasprintf("its agent answered after %u.%u s", (unsigned)(ms / 1000), (unsigned)(ms / 100 % 10));
	say(b, str_of(done));
	return 0;
}

static int publish(struct build *b, struct error *reterr)
{
	char id[ID_TEXT_SIZE];

	id_format("img_", b->image.id, id);
	_cleanup_free_ char *to = xasprintf("%s/%s", b->images, id);
	if (rename(b->fresh, to) < 0 || fsync(b->lock_fd) < 0)
		return error_set(reterr, -errno, "%s: %s", to, strerror(errno));
	_cleanup_free_ char *done = xasprintf("%s, %u MiB", id, (unsigned)(b->image.size_bytes >> 20));
	say(b, str_of(done));
	return 0;
}

static int make(struct build *b, bool force, struct error *reterr)
{
	int r;

	if ((r = lock_take(b, reterr)) < 0 || (r = builder_find(b, reterr)) < 0 || (r = places_make(b, reterr)) < 0 ||
	    (r = agent_copy(b, reterr)) < 0 || (r = hash_get(b, reterr)) < 0)
		return r;
	if (!force && is_cached(b)) {
		say(b, STR("up to date"));
		return 0;
	}
	if ((r = recipe_run(b, "build", NULL, reterr)) < 0 || (r = output_take(b, reterr)) < 0)
		return r;
	b->image.id = id_random();
	b->image.created_at = real_ms();
	snprintf(b->image.name, sizeof b->image.name, "%s", b->name);
	if ((r = image_manifest_write(b->fresh, &b->image, b->cmdline, reterr)) < 0 || (r = boot(b, reterr)) < 0)
		return r;
	return publish(b, reterr);
}

static bool is_recipe(const char *name)
{
	return strcmp(name, "base") == 0 || strcmp(name, "mini") == 0;
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

int image_build(const struct conf *conf, const char *libexec, const char *name, bool force, struct error *reterr)
{
	struct build b = {.conf = conf, .libexec = libexec, .name = name, .lock_fd = -1, .log_fd = -1};
	sigset_t stops, before;

	if (!is_recipe(name))
		return error_set(reterr, -ENOENT, "there is no recipe '%s'; there are base and mini", name);
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGHUP);
	sigprocmask(SIG_BLOCK, &stops, &before);
	b.stop_fd = signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK);
	b.started_ms = mono_ms();
	b.images = image_directory(conf->state_dir);
	b.work = xasprintf("%s/.build-%s", b.images, name);
	b.fresh = xasprintf("%s/.new-%s", b.images, name);
	int r = b.stop_fd < 0 ? error_set(reterr, -errno, "signalfd: %s", strerror(errno)) : make(&b, force, reterr);
	finish(&b);
	closep(&b.stop_fd);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}
