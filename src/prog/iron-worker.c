/* iron-worker: one job, then gone. The jobs there are:
 *
 *	iron-worker --uid N --gid N flatten BYTES
 *
 * makes one disk of a VM's overlay and what is below it (iron-worker.h), and
 *
 *	iron-worker --uid N --gid N image RECIPE hash|build
 *
 * runs an image's recipe, which is compiled in, as user iron-work in the working directory that irond made for it; what it
 * says to people goes to descriptor 3, a line each.
 *
 * The walls of this job are its uid, no capability, bounded resources, a pid and a mount namespace of its own (irond made
 * them) and, for what runs as root while a guest's file system is filled, the user namespace that mmdebstrap makes out of
 * iron-work's subordinate uids. Making that namespace needs the set-uid newuidmap, mount(2) and unshare(2): there is no `no
 * new privileges` and no Landlock here (which refuses mounts), and the seccomp filter is a list of what is refused: the
 * kernel's other doors. What it leaves is checked by irond as files, never executed on the host, and boots only as a
 * guest. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "codec/qcow2.h"
#include "os/sandbox.h"
#include "prog/iron-worker.h"

#define MAX_FILE_BYTES ((rlim_t)66 << 30) /* a disk of the largest size that a recipe may ask for */

/* The recipes of images/, byte for byte (recipes.sh). */
extern const char recipe_base[], recipe_base_end[], recipe_mini[], recipe_mini_end[];

static struct str recipe_find(const char *name)
{
	if (strcmp(name, "base") == 0)
		return str_make(recipe_base, (size_t)(recipe_base_end - recipe_base));
	if (strcmp(name, "mini") == 0)
		return str_make(recipe_mini, (size_t)(recipe_mini_end - recipe_mini));
	return STR_NONE;
}

static int usage(void)
{
	fputs("iron-worker is started by irond, not by hand\n", stderr);
	return 2;
}

/* Nothing that debootstrapping, dpkg or mke2fs does; each has been a way into kernels. */
static const char *const refused[] = {
	"acct", "add_key", "adjtimex", "bpf", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "init_module",
	"io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl",
	"open_by_handle_at", "perf_event_open", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace", "reboot",
	"request_key", "settimeofday", "swapoff", "swapon", "userfaultfd", "vhangup", NULL};

static int become(uid_t uid, gid_t gid)
{
	const struct rlimit none = {0, 0}, file = {MAX_FILE_BYTES, MAX_FILE_BYTES};

	umask(022);
	int r = sandbox_refuse(refused, NULL);
	if (r < 0)
		return r;
	if (setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_FSIZE, &file) < 0)
		return -errno;
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return -errno;
	/* After the change of identity, which clears it. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? -errno : 0;
}

/* The recipe in a sealed memfd, which the shell reads as its script. */
static int script_make(struct str text)
{
	int fd = memfd_create("recipe", MFD_ALLOW_SEALING);

	if (fd < 0 || write(fd, text.p, text.len) != (ssize_t)text.len ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return -errno;
	return fd;
}

/* The first process of a pid namespace reaps what is orphaned into it: the shell does not, so it is not the first. */
static int shell_run(int script, const char *what)
{
	_cleanup_free_ char *path = xasprintf("/proc/self/fd/%d", script);
	int status = 0;
	pid_t pid = fork(), gone;

	if (pid == 0) {
		execl("/bin/sh", "sh", path, what, (char *)NULL);
		_exit(127);
	}
	do
		gone = wait(&status);
	while (gone != pid && (gone > 0 || errno == EINTR));
	return gone == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int recipe_run(uid_t uid, gid_t gid, const char *name, const char *what)
{
	const struct str recipe = recipe_find(name);

	if (!recipe.p)
		return usage();
	int r = become(uid, gid);
	int script = r < 0 ? r : script_make(recipe);
	if (script < 0) {
		fprintf(stderr, "iron-worker: %s\n", strerror(-script));
		return 1;
	}
	return shell_run(script, what);
}

int main(int argc, char **argv)
{
	uint64_t uid, gid, bytes;

	if (argc < 7 || strcmp(argv[1], "--uid") != 0 || strcmp(argv[3], "--gid") != 0 ||
	    str_parse_u64(str_of(argv[2]), UINT32_MAX - 1, &uid) < 0 ||
	    str_parse_u64(str_of(argv[4]), UINT32_MAX - 1, &gid) < 0 || uid == 0)
		return usage();
	if (argc == 8 && strcmp(argv[5], "image") == 0)
		return recipe_run((uid_t)uid, (gid_t)gid, argv[6], argv[7]);
	if (argc == 7 && strcmp(argv[5], "flatten") == 0 && str_parse_u64(str_of(argv[6]), QCOW2_MAX_BYTES, &bytes) == 0)
		return flatten_run((uid_t)uid, (gid_t)gid, bytes);
	return usage();
}
