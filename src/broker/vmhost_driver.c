/* Drives the functions of vmhost.h one at a time, for the tests: it is not installed. Descriptors go to the test over a
 * unix socket whose number it was given. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "broker/vmhost.h"

static int report(int r, const struct error *e)
{
	if (r < 0)
		fprintf(stderr, "%s\n", e->text);
	return r < 0 ? 1 : 0;
}

static unsigned number(const char *s)
{
	return (unsigned)strtoul(s, NULL, 10);
}

static int send_fds(int channel, const int *fds, size_t n)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * 4)];
	} control = {0};
	char byte = 'n';
	struct iovec text = {.iov_base = &byte, .iov_len = 1};
	struct msghdr m = {.msg_iov = &text,
			   .msg_iovlen = 1,
			   .msg_control = control.space,
			   .msg_controllen = CMSG_SPACE(sizeof(int) * n)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	return sendmsg(channel, &m, 0) < 0 ? 1 : 0;
}

/* net PIN CHANNEL */
static int run_net(char **v)
{
	struct error e = {0};
	struct vm_net net;
	int r = vm_net_create(v[0], &net, &e);

	return r < 0 ? report(r, &e) : send_fds(atoi(v[1]), (int[]){net.tap_fd, net.tcp_fd, net.udp_fd, net.nflog_fd}, 4);
}

/* reopen PIN CHANNEL */
static int run_reopen(char **v)
{
	struct error e = {0};
	struct vm_net net;
	int r = vm_net_reopen(v[0], &net, &e);

	return r < 0 ? report(r, &e) : send_fds(atoi(v[1]), (int[]){net.tcp_fd, net.udp_fd, net.nflog_fd}, 3);
}

/* unpin PIN */
static int run_unpin(char **v)
{
	vm_net_unpin(v[0]);
	return 0;
}

/* wall INSTANCE UID COUNT RESOLVER NEVER_DIAL PRIVATE_ALLOW: one address or CIDR each, or - */
static int run_wall(char **v)
{
	struct error e = {0};
	struct conf_private allow = {.cidr = v[5]};
	struct conf conf = {
		.instance = v[0],
		.egress = {
			.resolvers = &v[3],
			.resolvers_count = strcmp(v[3], "-") != 0,
			.never_dial = &v[4],
			.never_dial_count = strcmp(v[4], "-") != 0,
			.private_allow = &allow,
			.private_allow_count = strcmp(v[5], "-") != 0,
		},
	};
	return report(nft_host_install(&conf, number(v[1]), number(v[2]), &e), &e);
}

/* unwall INSTANCE */
static int run_unwall(char **v)
{
	nft_host_remove(v[0]);
	return 0;
}

/* overlay PATH BASE|- GIB UID */
static int run_overlay(char **v)
{
	struct error e = {0};
	_cleanup_close_ int base = strcmp(v[1], "-") ? open(v[1], O_RDONLY | O_CLOEXEC) : -1;

	return report(overlay_create(v[0], base, number(v[2]), number(v[3]), number(v[3]), &e), &e);
}

/* qemu RUN_DIR UID KERNEL INITRD DISK|- OVERLAY|- TAP|- MEMORY_MIB TSC_KHZ CMDLINE: prints the pid, then, when QEMU is
 * gone, its wait status. Ends QEMU when its standard input ends. */
static int run_qemu(char **v)
{
	struct error e = {0};
	struct qemu_process p;
	struct image_files image = {
		.kernel_fd = open(v[2], O_RDONLY | O_CLOEXEC),
		.initrd_fd = open(v[3], O_RDONLY | O_CLOEXEC),
		.disk_fd = strcmp(v[4], "-") ? open(v[4], O_RDONLY | O_CLOEXEC) : -1,
	};
	snprintf(image.cmdline, sizeof image.cmdline, "%s", v[9]);
	const struct qemu_args a = {
		.vm = 1,
		.uid = number(v[1]),
		.gid = number(v[1]),
		.vcpus = 1,
		.memory_mib = number(v[7]),
		.tsc_khz = number(v[8]),
		.image = &image,
		.overlay_fd = strcmp(v[5], "-") ? open(v[5], O_RDWR | O_CLOEXEC) : -1,
		.tap_fd = strcmp(v[6], "-") ? atoi(v[6]) : -1,
		.run_dir = v[0],
		.log_fd = STDERR_FILENO,
	};
	int r = qemu_spawn(&a, &p, &e);
	if (r < 0)
		return report(r, &e);
	printf("%d\n", p.pid);
	fflush(stdout);
	char byte;
	int status = 0;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	kill(p.pid, SIGKILL);
	waitpid(p.pid, &status, 0);
	printf("%d\n", status);
	return 0;
}

/* The least of a configuration. */
static struct conf conf_of(char *state_dir, char *run_dir)
{
	return (struct conf){.state_dir = state_dir, .run_dir = run_dir, .instance = "test", .uid_base = 2100000};
}

/* accel STATE_DIR RUN_DIR: "kvm|tcg TSC_KHZ REASON" */
static int run_accel(char **v)
{
	struct error e = {0};
	struct conf conf = conf_of(v[0], v[1]);
	struct accel a;
	int r = accel_get(&conf, &a, &e);

	if (r == 0)
		printf("%s %u %s\n", a.kvm ? "kvm" : "tcg", a.tsc_khz, a.reason);
	return report(r, &e);
}

/* image STATE_DIR RUN_DIR LIBEXEC NAME yes|no: builds it, by force or not */
static int run_image(char **v)
{
	struct error e = {0};
	struct conf conf = conf_of(v[0], v[1]);

	const struct image_builder by = {.conf = &conf, .libexec = v[2], .force = strcmp(v[4], "yes") == 0};

	return report(image_build(&by, v[3], &e), &e);
}

static const struct {
	const char *name;
	int arguments;
	int (*run)(char **v);
} commands[] = {
	{"net", 2, run_net},	 {"reopen", 2, run_reopen},   {"unpin", 1, run_unpin}, {"wall", 6, run_wall},
	{"unwall", 1, run_unwall}, {"overlay", 4, run_overlay}, {"qemu", 10, run_qemu},
	{"accel", 2, run_accel},   {"image", 5, run_image},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0 && argc == 2 + commands[i].arguments)
			return commands[i].run(argv + 2);
	fprintf(stderr, "vmhost_driver: no such command, or another number of arguments\n");
	return 2;
}
