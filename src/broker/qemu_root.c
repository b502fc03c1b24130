#include "broker/qemu_root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "broker/qemu_command.h"

#define LINKER "/lib64/ld-linux-x86-64.so.2"
#define TCG_MODULE "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so"
#define FIRMWARE "/usr/share/qemu/bios-microvm.bin"
#define MAX_OUTPUT_BYTES ((size_t)64 << 10)

static void file_add(struct qemu_root *r, struct str path)
{
	for (size_t i = 0; i < r->files.n; i++)
		if (str_eq(str_of(r->files.v[i]), path))
			return;
	VEC_PUSH(&r->files, str_dup(path));
}

/* Lines of `ld.so --list`: "\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)", "\t/lib64/ld-… (0x…)". */
static void listing_parse(struct qemu_root *r, struct str text)
{
	struct str line, path;

	while (str_split(&text, '\n', &line)) {
		ptrdiff_t slash = str_chr(line, '/');
		if (slash < 0)
			continue;
		struct str rest = str_make(line.p + slash, line.len - (size_t)slash);
		if (str_split(&rest, ' ', &path))
			file_add(r, path);
	}
}

static int output_read(int fd, struct buf *out)
{
	for (;;) {
		void *p = buf_reserve(out, 4096);
		if (!p)
			return -EMSGSIZE;
		ssize_t n = read(fd, p, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		buf_commit(out, (size_t)n);
	}
}

static int libraries_list(struct qemu_root *r, const char *object, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf out = BUF_MAX(MAX_OUTPUT_BYTES);
	int fds[2], status = 0;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set(reterr, -errno, "pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execl(LINKER, LINKER, "--list", object, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	int e = pid < 0 ? -errno : output_read(fds[0], &out);
	close(fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (e < 0 || status != 0)
		return error_set(reterr, -EIO, "the libraries of %s cannot be listed", object);
	listing_parse(r, buf_str(&out));
	file_add(r, str_of(object));
	return 0;
}

int qemu_root_init(struct qemu_root *r, struct error *reterr)
{
	if (access(QEMU_BINARY, X_OK) < 0)
		return error_set(reterr, -ENOENT, QEMU_BINARY " is missing: install qemu-system-x86");
	int e = libraries_list(r, QEMU_BINARY, reterr);
	/* Debian builds TCG as a module; where it is built in there is no such file. */
	if (e == 0 && access(TCG_MODULE, R_OK) == 0)
		e = libraries_list(r, TCG_MODULE, reterr);
	if (e < 0)
		qemu_root_finish(r);
	else
		file_add(r, STR(FIRMWARE));
	return e;
}

void qemu_root_finish(struct qemu_root *r)
{
	for (size_t i = 0; i < r->files.n; i++)
		free(r->files.v[i]);
	VEC_FINISH(&r->files);
}

static int parents_make(char *path)
{
	for (char *p = path + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		int r = mkdir(path, 0755);
		*p = '/';
		if (r < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* file, as it is on the host, at the same path below the current directory: read-only, no devices, no set-uid. */
static int file_bind(const char *file)
{
	char path[PATH_MAX];
	int r;

	if ((size_t)snprintf(path, sizeof path, ".%s", file) >= sizeof path)
		return -ENAMETOOLONG;
	if ((r = parents_make(path)) < 0)
		return r;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
	if (fd < 0)
		return -errno;
	close(fd);
	if (mount(file, path, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return -errno;
	return 0;
}

static int node_make(const char *name, mode_t mode, unsigned maj, unsigned min, uid_t uid)
{
	if (mknod(name, S_IFCHR, makedev(maj, min)) < 0 || chmod(name, mode) < 0 || chown(name, uid, 0) < 0)
		return -errno;
	return 0;
}

static int dev_make(bool kvm, uid_t uid)
{
	int r;

	if (mkdir("dev", 0755) < 0 || mount("dev", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k") < 0)
		return -errno;
	if ((r = node_make("dev/null", 0666, 1, 3, 0)) < 0)
		return r;
	if (kvm && (r = node_make("dev/kvm", 0600, 10, 232, uid)) < 0)
		return r;
	if (mount(NULL, "dev", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0)
		return -errno;
	return 0;
}

/* subset=pid: nothing of the kernel's but what concerns the processes of this pid namespace, which is QEMU alone. */
static int proc_make(void)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mkdir("proc", 0555) < 0)
		return -errno;
	if (mount("proc", "proc", "proc", flags, "subset=pid") < 0 && mount("proc", "proc", "proc", flags, NULL) < 0)
		return -errno;
	return 0;
}

static int root_switch(void)
{
	if (mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return -errno;
	/* Stacks the old root on the new one's directory and takes it away (pivot_root(2), NOTES). */
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

int qemu_root_enter(const struct qemu_root *r, const char *place, bool kvm, uid_t uid, struct error *reterr)
{
	int e;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_set(reterr, -errno, "private mounts: %s", strerror(errno));
	if (mount("qemu", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m") < 0 || chdir(place) < 0)
		return error_set(reterr, -errno, "root at %s: %s", place, strerror(errno));
	for (size_t i = 0; i < r->files.n; i++)
		if ((e = file_bind(r->files.v[i])) < 0)
			return error_set(reterr, e, "%s: %s", r->files.v[i], strerror(-e));
	if ((e = dev_make(kvm, uid)) < 0)
		return error_set(reterr, e, "/dev: %s", strerror(-e));
	if ((e = proc_make()) < 0)
		return error_set(reterr, e, "/proc: %s", strerror(-e));
	if ((e = root_switch()) < 0)
		return error_set(reterr, e, "pivot_root: %s", strerror(-e));
	return 0;
}
