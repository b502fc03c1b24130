#include "broker/nflog.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define SOCKET_BUFFER_BYTES (1 << 20)
#define FLUSH_CENTISECONDS 10 /* a lone dropped packet is reported after this, not after the kernel's second */
#define FLUSH_PACKETS 32

static int configure(int fd, const struct nlmsghdr *h)
{
	char answer[512];
	const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	if (sendto(fd, h, h->nlmsg_len, 0, (const struct sockaddr *)&kernel, sizeof kernel) < 0)
		return -errno;
	ssize_t n = recv(fd, answer, sizeof answer, 0);
	if (n < 0)
		return -errno;
	return mnl_cb_run(answer, (size_t)n, 0, 0, NULL, NULL) < 0 ? -errno : 0;
}

static struct nlmsghdr *config_start(char *space, uint16_t group)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(space);
	h->nlmsg_type = (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof *g);
	g->nfgen_family = AF_UNSPEC;
	g->version = NFNETLINK_V0;
	g->res_id = htons(group);
	return h;
}

int nflog_open(uint16_t group, uint32_t copy_range, int *ret_fd)
{
	char space[512] = {0};
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
	if (fd < 0)
		return -errno;
	int size = SOCKET_BUFFER_BYTES;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
		return -errno;

	struct nlmsghdr *h = config_start(space, group);
	const struct nfulnl_msg_config_cmd bind = {.command = NFULNL_CFG_CMD_BIND};
	const struct nfulnl_msg_config_mode mode = {.copy_range = htonl(copy_range), .copy_mode = NFULNL_COPY_PACKET};
	mnl_attr_put(h, NFULA_CFG_CMD, sizeof bind, &bind);
	mnl_attr_put(h, NFULA_CFG_MODE, sizeof mode, &mode);
	mnl_attr_put_u32(h, NFULA_CFG_TIMEOUT, htonl(FLUSH_CENTISECONDS));
	mnl_attr_put_u32(h, NFULA_CFG_QTHRESH, htonl(FLUSH_PACKETS));
	int r = configure(fd, h);
	if (r < 0)
		return r;
	*ret_fd = take_fd(fd);
	return 0;
}
