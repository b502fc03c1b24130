#include "agent/init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/file.h"
#include "base/clock.h"
#include "base/log.h"

#define MODULE_LIST "/lib/modules/iron.list"
#define TERM_WAIT_MS 1000

static const struct {
	const char *type, *target, *options;
	unsigned long flags;
} mounts[] = {
	{"proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
	{"devtmpfs", "/dev", "mode=0755", MS_NOSUID},
	{"devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0666", MS_NOSUID | MS_NOEXEC},
	{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV},
	{"tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV},
	{"tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV},
};

static void mount_all(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		int r = file_make_dirs(mounts[i].target);
		if (r == 0 &&
		    mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags, mounts[i].options))
			r = -errno;
		if (r && r != -EBUSY)
			log_error("mount failed", "target=%s error=%s", mounts[i].target, log_quote(strerror(-r)));
	}
}

/* The kernel gives init no open descriptors when the image has no /dev/console. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void load_module(struct str path)
{
	_cleanup_free_ char *z = str_dup(path);
	_cleanup_close_ int fd = open(z, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
		log_error("module not loaded", "path=%s error=%s", log_quote(z), log_quote(strerror(errno)));
}

/* One path a line, in the order in which they need each other. */
static void load_modules(void)
{
	_cleanup_(buf_finish) struct buf list = BUF_MAX(65536);

	if (file_read(MODULE_LIST, &list))
		return;
	struct str rest = buf_str(&list), line;
	while (str_split(&rest, '\n', &line))
		if (line.len && line.p[0] != '#')
			load_module(line);
}

static void write_if_absent(const char *path, struct str content, mode_t mode)
{
	struct stat st;

	if (lstat(path, &st) && errno == ENOENT && file_write(path, content, mode))
		log_error("cannot write", "path=%s", path);
}

/* What programs expect to find, where the image does not bring it. */
static void make_files(void)
{
	write_if_absent("/etc/passwd",
			STR("root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n"), 0644);
	write_if_absent("/etc/group", STR("root:x:0:\ntty:x:5:\nagent:x:1000:\n"), 0644);
	write_if_absent("/etc/hosts", STR("127.0.0.1\tlocalhost\n"), 0644);
	file_make_dirs("/root");
	if (file_make_dirs("/home/agent") == 0 && chown("/home/agent", 1000, 1000))
		log_error("cannot give /home/agent to its user", NULL);
}

void init_setup(void)
{
	umask(022);
	mount_all();
	open_console();
	if (chdir("/"))
		log_error("no root directory", NULL);
	setsid();
	make_files();
	load_modules();
}

static void reap_for(unsigned ms)
{
	uint64_t end = mono_ms() + ms;

	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);
		if (pid < 0 || mono_ms() >= end)
			return;
		if (pid == 0)
			nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

void init_power_off(void)
{
	kill(-1, SIGTERM);
	kill(-1, SIGCONT);
	reap_for(TERM_WAIT_MS);
	kill(-1, SIGKILL);
	reap_for(TERM_WAIT_MS);
	sync();
	reboot(RB_POWER_OFF);
	/* A machine without such a switch: a restart, which QEMU may be told to take for an end. */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
