/* Enters the walls of a role, exactly as the role does, and tries one thing.
 *
 *	role_probe ROLE|none UID STATE_DIR ACTION [ARGUMENT]
 *
 * Exit status 0: it worked. 10: refused (stdout says by which errno). Killed by SIGSYS: the filter. `none` enters
 *nothing: the positive control, which shows that the action itself works here. Descriptors that the role would not have
 *either are not open. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "os/ipc.h"
#include "prog/sandboxes.h"

/* Each answers 0 or a negative errno. */
typedef int action(const char *arg);

static int result(long r)
{
	return r < 0 ? -errno : 0;
}

static int try_open(const char *arg)
{
	return result(open(arg, O_RDONLY | O_CLOEXEC));
}

static int try_write(const char *arg)
{
	return result(open(arg, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int try_unlink(const char *arg)
{
	return result(unlink(arg));
}

static int try_exec(const char *arg)
{
	char *const argv[] = {(char *)(uintptr_t) "true", NULL}, *const envp[] = {NULL};

	return result(execve("/bin/true", argv, envp)); /* the program's own status 0 is the success */
}

static int try_fork(const char *arg)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return result(pid);
}

static int try_setns(const char *arg)
{
	static int fd = -1;

	if (!arg) { /* before the walls: a role may have been handed such a descriptor */
		fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		return fd < 0 ? -errno : 0;
	}
	return result(setns(fd, CLONE_NEWNET));
}

static int try_unshare(const char *arg)
{
	return result(unshare(CLONE_NEWUSER));
}

static int try_socket(const char *arg)
{
	return result(socket(atoi(arg), SOCK_DGRAM, 0));
}

static int try_pair(const char *arg)
{
	int fds[2];

	return result(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
}

static int try_thread(const char *arg)
{
	pthread_t t;

	return -pthread_create(&t, NULL, (void *(*)(void *))(uintptr_t)getpid, NULL);
}

static int try_packet(const char *arg)
{
	return result(socket(AF_PACKET, SOCK_RAW, 0));
}

static int try_bind(const char *arg)
{
	const struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return fd < 0 ? -errno : result(bind(fd, (const struct sockaddr *)&sa, sizeof sa));
}

static int try_connect_unix(const char *arg)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", arg);
	return fd < 0 ? -errno : result(connect(fd, (const struct sockaddr *)&sa, sizeof sa));
}

static int try_kill(const char *arg)
{
	return result(kill((pid_t)atoi(arg), SIGUSR1));
}

static int try_tgkill(const char *arg)
{
	return result(syscall(SYS_tgkill, atoi(arg), atoi(arg), SIGUSR1));
}

static int try_ptrace(const char *arg)
{
	return result(ptrace(PTRACE_SEIZE, atoi(arg), NULL, NULL));
}

static int try_vm_read(const char *arg)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {(void *)(uintptr_t)strtoull(strchr(arg, ':') + 1, NULL, 16), 1};

	return result(syscall(SYS_process_vm_readv, atoi(arg), &here, 1, &there, 1, 0));
}

static int try_mount(const char *arg)
{
	return result(mount("none", arg, "tmpfs", 0, NULL));
}

static int try_bpf(const char *arg)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

	return result(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
}

static int try_setuid(const char *arg)
{
	return result(setresuid(0, 0, 0));
}

static int try_chroot(const char *arg)
{
	return result(chroot("/"));
}

static int try_keyctl(const char *arg)
{
	return result(syscall(SYS_add_key, "user", "iron-probe", "x", 1, -3 /* the session's */));
}

static int try_io_uring(const char *arg)
{
	char params[120] = {0};

	return result(syscall(SYS_io_uring_setup, 1, params));
}

static int try_memfd_exec(const char *arg)
{
	return result((long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == -1 ? -1 : 0);
}

static int try_mprotect_exec(const char *arg)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? -errno : result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

/* What every role must be able to do, or the refusals would prove nothing. */
static int try_work(const char *arg)
{
	void *p = malloc((size_t)1 << 20);

	if (!p)
		return -ENOMEM;
	memset(p, 1, (size_t)1 << 20);
	free(p);
	return mono_ms() > 0 && getpid() > 0 ? 0 : -EIO;
}

static const struct {
	const char *name;
	action *run;
} actions[] = {
	{"work", try_work},
	{"open", try_open},
	{"write", try_write},
	{"unlink", try_unlink},
	{"exec", try_exec},
	{"fork", try_fork},
	{"setns", try_setns},
	{"unshare", try_unshare},
	{"socket", try_socket},
	{"pair", try_pair},
	{"thread", try_thread},
	{"packet", try_packet},
	{"bind", try_bind},
	{"connect_unix", try_connect_unix},
	{"kill", try_kill},
	{"tgkill", try_tgkill},
	{"ptrace", try_ptrace},
	{"vm_read", try_vm_read},
	{"mount", try_mount},
	{"bpf", try_bpf},
	{"setuid", try_setuid},
	{"chroot", try_chroot},
	{"keyctl", try_keyctl},
	{"io_uring", try_io_uring},
	{"exec_memory", try_memfd_exec},
	{"exec_memory_later", try_mprotect_exec},
};

static const struct {
	const char *name;
	const struct role_sandbox *sandbox;
} roles[] = {
	{"none", NULL},       {"iron-api", &sandbox_api},       {"iron-control", &sandbox_control},
	{"iron-vm", &sandbox_vm}, {"iron-egress", &sandbox_egress}, {"iron-audit", &sandbox_audit},
	{"iron-recipe", &sandbox_recipe}, {"iron-worker flatten", &sandbox_flatten},
};

static int run(action *a, const char *arg)
{
	int r = a(arg);

	if (r < 0) {
		printf("refused: %s\n", strerrorname_np(-r));
		fflush(stdout);
		return 10;
	}
	return 0;
}

static int enter(const char *name, const struct role_args *args)
{
	struct error e = {0};

	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		if (strcmp(roles[i].name, name) != 0)
			continue;
		if (roles[i].sandbox && role_sandbox_enter(roles[i].sandbox, args, NULL, &e) < 0) {
			fprintf(stderr, "%s\n", e.text);
			return -EIO;
		}
		return 0;
	}
	fprintf(stderr, "no role %s\n", name);
	return -ENOENT;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	struct role_args args = {.uid = (uid_t)atoi(argv[2]), .gid = (gid_t)atoi(argv[2]), .state_dir = argv[3]};
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (strcmp(actions[i].name, argv[4]) != 0)
			continue;
		if (try_setns(NULL) < 0 || enter(argv[1], &args) < 0)
			return 3;
		return run(actions[i].run, argc > 5 ? argv[5] : "");
	}
	fprintf(stderr, "no action %s\n", argv[4]);
	return 2;
}
