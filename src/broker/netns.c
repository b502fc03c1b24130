/* Theory of operation
 *
 * Both makers fork. The child enters the namespace (a new one, or the pinned one), does its work there, and sends one
 * message back: the outcome, and with success the descriptors. The parent waits for that message and for the child, at
 * most DEADLINE_MS; a child that is late is killed and what it pinned is undone. Nothing of the child's work needs
 * cleaning up by hand: a namespace without pin, socket and process is gone by itself.
 *
 * Order matters: IPv6 is switched off before the tap exists (else it would announce itself), the rules are loaded before
 * the tap is up, and the pin comes last. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "broker/netlink.h"
#include "broker/nflog.h"
#include "broker/nft.h"
#include "broker/vmhost.h"
#include "os/fdutil.h"

#define TAP "tap0"
#define TCP_PORT 15001
#define UDP_PORT 53
#define LOG_GROUP 7
#define LOG_BYTES 128
#define GUEST "10.77.0.2"
#define GATEWAY "10.77.0.1"
#define DEADLINE_MS 5000
#define LISTEN_BACKLOG 1024
#define MARK 1
#define TABLE 100
#define GUEST_MTU 1500
#define MAX_FDS 4

struct outcome {
	struct error error;
	int fds[MAX_FDS]; /* tap (or not), tcp, udp, nflog */
	size_t nfds;
};

typedef int child_work(const char *pin, struct outcome *out);

/* Set in the new namespace whatever the host's own values are: a namespace starts with those. */
static const struct {
	const char *path, *value;
} before_tap[] = {
	{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"},
	{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"},
	{"/proc/sys/net/ipv4/ip_forward", "0"},
	{"/proc/sys/net/ipv4/conf/all/rp_filter", "0"},
	{"/proc/sys/net/ipv4/conf/default/rp_filter", "0"},
	{"/proc/sys/net/ipv4/conf/all/route_localnet", "0"},
	{"/proc/sys/net/ipv4/conf/default/route_localnet", "0"},
	{"/proc/sys/net/ipv4/conf/all/accept_redirects", "0"},
	{"/proc/sys/net/ipv4/conf/default/accept_redirects", "0"},
	{"/proc/sys/net/ipv4/conf/all/send_redirects", "0"},
	{"/proc/sys/net/ipv4/conf/default/send_redirects", "0"},
	{"/proc/sys/net/ipv4/conf/all/accept_source_route", "0"},
	{"/proc/sys/net/ipv4/conf/default/accept_source_route", "0"},
	{"/proc/sys/net/ipv4/conf/all/proxy_arp", "0"},
	{"/proc/sys/net/ipv4/conf/default/proxy_arp", "0"},
	{"/proc/sys/net/ipv4/icmp_echo_ignore_all", "1"},
	/* Milliseconds a kind and peer: rejects of UDP are limited by the rules instead. */
	{"/proc/sys/net/ipv4/icmp_ratelimit", "5"},
};

static void close_one(int *fd)
{
	closep(fd);
	*fd = -1;
}

void vm_net_close(struct vm_net *net)
{
	if (!net)
		return;
	close_one(&net->tap_fd);
	close_one(&net->tcp_fd);
	close_one(&net->udp_fd);
	close_one(&net->nflog_fd);
}

static int fail(struct outcome *out, const char *what)
{
	int code = errno ? -errno : -EIO;
	return error_set(&out->error, code, "%s: %s", what, strerror(-code));
}

static int fail_code(struct outcome *out, int code, const char *what)
{
	errno = -code;
	return fail(out, what);
}

static int sysctl_write(const char *path, const char *value)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) /* a kernel without IPv6 has nothing to switch off */
		return errno == ENOENT && strstr(path, "/ipv6/") ? 0 : -errno;
	ssize_t n = write(fd, value, strlen(value));
	return n < 0 ? -errno : 0;
}

static int tap_create(int *ret_fd)
{
	struct ifreq request = {.ifr_name = TAP};
	_cleanup_close_ int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (ioctl(fd, TUNSETIFF, &request) < 0)
		return -errno;
	*ret_fd = take_fd(fd);
	return 0;
}

static int links_configure(struct outcome *out)
{
	static const uint8_t tap_mac[6] = {0x02, 0, 0, 0, 0, 0x01}, guest_mac[6] = {0x02, 0, 0, 0, 0, 0x02};
	const uint32_t guest = inet_addr(GUEST), gateway = inet_addr(GATEWAY);
	unsigned tap = if_nametoindex(TAP), lo = if_nametoindex("lo");

	struct mnl_socket *nl = netlink_open();
	if (!nl)
		return fail(out, "rtnetlink");
	int r;
	if ((r = netlink_link_up(nl, lo, NULL, 0)) < 0)
		fail_code(out, r, "loopback");
	else if ((r = netlink_link_up(nl, tap, tap_mac, GUEST_MTU)) < 0)
		fail_code(out, r, "tap up");
	else if ((r = netlink_address_add(nl, tap, gateway, guest)) < 0)
		fail_code(out, r, "tap address");
	else if ((r = netlink_neighbour_add(nl, tap, guest, guest_mac)) < 0)
		fail_code(out, r, "neighbour entry");
	else if ((r = netlink_mark_rule_add(nl, MARK, TABLE)) < 0)
		fail_code(out, r, "routing rule");
	else if ((r = netlink_local_default_add(nl, lo, TABLE)) < 0)
		fail_code(out, r, "local route");
	mnl_socket_close(nl);
	return r;
}

static int socket_open(int type, uint16_t port, int *ret_fd)
{
	const int on = 1;
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
	_cleanup_close_ int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) < 0)
		return -errno;
	if (type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		return -errno;
	if (type == SOCK_DGRAM && (setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) < 0 ||
				   setsockopt(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, &on, sizeof on) < 0))
		return -errno;
	if (bind(fd, (const struct sockaddr *)&any, sizeof any) < 0)
		return -errno;
	if (type == SOCK_STREAM && listen(fd, LISTEN_BACKLOG) < 0)
		return -errno;
	*ret_fd = take_fd(fd);
	return 0;
}

static int outcome_add(struct outcome *out, int code, int fd, const char *what)
{
	if (code < 0)
		return fail_code(out, code, what);
	out->fds[out->nfds++] = fd;
	return 0;
}

static int door_open(struct outcome *out)
{
	int fd = -1, r;

	r = socket_open(SOCK_STREAM, TCP_PORT, &fd);
	if ((r = outcome_add(out, r, fd, "TCP listener")) < 0)
		return r;
	r = socket_open(SOCK_DGRAM, UDP_PORT, &fd);
	if ((r = outcome_add(out, r, fd, "DNS socket")) < 0)
		return r;
	r = nflog_open(LOG_GROUP, LOG_BYTES, &fd);
	return outcome_add(out, r, fd, "NFLOG socket");
}

static int pin_mount(const char *pin)
{
	_cleanup_close_ int fd = open(pin, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	if (fd < 0)
		return -errno;
	if (mount("/proc/self/ns/net", pin, NULL, MS_BIND, NULL) < 0) {
		int code = -errno;
		unlink(pin);
		return code;
	}
	return 0;
}

static int work_create(const char *pin, struct outcome *out)
{
	int fd = -1, r;

	if (unshare(CLONE_NEWNET) < 0)
		return fail(out, "unshare");
	for (size_t i = 0; i < ARRAY_SIZE(before_tap); i++)
		if ((r = sysctl_write(before_tap[i].path, before_tap[i].value)) < 0)
			return fail_code(out, r, before_tap[i].path);
	r = tap_create(&fd);
	if ((r = outcome_add(out, r, fd, "tap")) < 0)
		return r;
	if ((r = nft_run(nft_door_rules, &out->error)) < 0 || (r = links_configure(out)) < 0)
		return r;
	if ((r = door_open(out)) < 0)
		return r;
	r = pin_mount(pin);
	return r < 0 ? fail_code(out, r, pin) : 0;
}

static int work_reopen(const char *pin, struct outcome *out)
{
	_cleanup_close_ int ns = open(pin, O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		return fail(out, pin);
	if (setns(ns, CLONE_NEWNET) < 0)
		return fail(out, "setns");
	return door_open(out);
}

static void outcome_send(int channel, struct outcome *out)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control = {0};
	struct iovec text = {.iov_base = &out->error, .iov_len = sizeof out->error};
	struct msghdr m = {.msg_iov = &text, .msg_iovlen = 1};

	if (out->error.code == 0) {
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * out->nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * out->nfds);
		memcpy(CMSG_DATA(c), out->fds, sizeof(int) * out->nfds);
	}
	if (sendmsg(channel, &m, MSG_NOSIGNAL) < 0)
		_exit(1);
}

static int outcome_receive(int channel, struct outcome *ret)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control = {0};
	struct iovec text = {.iov_base = &ret->error, .iov_len = sizeof ret->error};
	struct msghdr m = {
		.msg_iov = &text, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control};

	if (fd_wait(channel, POLLIN, DEADLINE_MS) < 0)
		return error_set(&ret->error, -ETIMEDOUT, "the network namespace was not made in time");
	if (recvmsg(channel, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof ret->error) {
		memset(&ret->error, 0, sizeof ret->error);
		return error_set(&ret->error, -EIO, "the maker of the network namespace died");
	}
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		ret->nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(ret->fds, CMSG_DATA(c), ret->nfds * sizeof(int));
	}
	return ret->error.code;
}

static int run_child(child_work *work, const char *pin, struct outcome *out)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return fail(out, "socketpair");
	pid_t pid = fork();
	if (pid == 0) {
		close(pair[0]);
		work(pin, out);
		outcome_send(pair[1], out);
		_exit(0);
	}
	close(pair[1]);
	int r = pid < 0 ? fail(out, "fork") : outcome_receive(pair[0], out);
	close(pair[0]);
	if (pid > 0) {
		if (r < 0)
			kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	return r;
}

int vm_net_create(const char *pin_path, struct vm_net *ret, struct error *reterr)
{
	struct outcome out = {0};

	int r = run_child(work_create, pin_path, &out);
	if (r < 0) {
		if (r != -EEXIST) /* the pin was not there before: if it is now, it is the child's */
			vm_net_unpin(pin_path);
		return error_set(reterr, r, "network namespace: %s", out.error.text);
	}
	*ret = (struct vm_net){
		.tap_fd = out.fds[0], .tcp_fd = out.fds[1], .udp_fd = out.fds[2], .nflog_fd = out.fds[3]};
	return 0;
}

int vm_net_reopen(const char *pin_path, struct vm_net *ret, struct error *reterr)
{
	struct outcome out = {0};

	int r = run_child(work_reopen, pin_path, &out);
	if (r < 0)
		return error_set(reterr, r, "network namespace: %s", out.error.text);
	*ret = (struct vm_net){.tap_fd = -1, .tcp_fd = out.fds[0], .udp_fd = out.fds[1], .nflog_fd = out.fds[2]};
	return 0;
}

void vm_net_unpin(const char *pin_path)
{
	umount2(pin_path, MNT_DETACH | UMOUNT_NOFOLLOW);
	unlink(pin_path);
}

/* irond has one thread: it may be elsewhere for the time of a call, as long as it surely comes back. */
static int enter_and_open(const char *pin_path, struct mnl_socket **ret_nl, unsigned *ret_tap)
{
	_cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int ns = open(pin_path, O_RDONLY | O_CLOEXEC);
	int r = 0;

	if (home < 0 || ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		return -errno;
	*ret_nl = netlink_open();
	*ret_tap = if_nametoindex(TAP);
	if (!*ret_nl || *ret_tap == 0)
		r = -errno;
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	return r;
}

int vm_net_bytes(const char *pin_path, uint64_t *ret_sent, uint64_t *ret_received)
{
	struct mnl_socket *nl = NULL;
	unsigned tap = 0;
	int r = enter_and_open(pin_path, &nl, &tap);

	if (r == 0)
		r = netlink_link_bytes(nl, tap, ret_sent, ret_received);
	if (nl)
		mnl_socket_close(nl);
	return r;
}
