#include "egress/routes.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
	struct nlmsghdr header;
	struct rtmsg route;
	struct rtattr attr;
	uint8_t address[16];
};

int routes_open(int *ret_fd)
{
	struct sockaddr_nl self = {.nl_family = AF_NETLINK};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&self, sizeof self)) {
		int r = -errno;
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int ask(int fd, const struct ip *a, uint32_t seq)
{
	uint8_t n = a->family == 4 ? 4 : 16;
	struct request q = {
		.header = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = seq},
		.route = {.rtm_family = a->family == 4 ? AF_INET : AF_INET6, .rtm_dst_len = (uint8_t)(n * 8)},
		.attr = {.rta_type = RTA_DST, .rta_len = (unsigned short)RTA_LENGTH(n)},
	};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	memcpy(q.address, a->bytes, n);
	q.header.nlmsg_len = (uint32_t)(offsetof(struct request, address) + n);
	return sendto(fd, &q, q.header.nlmsg_len, MSG_DONTWAIT, (struct sockaddr *)&kernel, sizeof kernel) < 0 ? -errno
													       : 0;
}

static enum route_kind kind_of(unsigned char type)
{
	switch (type) {
	case RTN_UNICAST:
		return ROUTE_AWAY;
	case RTN_BLACKHOLE:
	case RTN_UNREACHABLE:
	case RTN_PROHIBIT:
	case RTN_THROW:
		return ROUTE_NONE;
	default:
		return ROUTE_LOCAL;
	}
}

enum route_kind route_look_up(int fd, const struct ip *a)
{
	static uint32_t seq;
	_Alignas(struct nlmsghdr) char space[4096];

	if (ask(fd, a, ++seq))
		return ROUTE_LOCAL;
	for (;;) {
		ssize_t n = recv(fd, space, sizeof space, MSG_DONTWAIT);
		const struct nlmsghdr *h = (const void *)space;
		if (n < (ssize_t)sizeof *h || h->nlmsg_len > (size_t)n)
			return ROUTE_LOCAL;
		if (h->nlmsg_seq != seq)
			continue; /* a late answer to an earlier question */
		if (h->nlmsg_type == NLMSG_ERROR)
			return ROUTE_NONE;
		if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)))
			return ROUTE_LOCAL;
		return kind_of(((const struct rtmsg *)NLMSG_DATA(h))->rtm_type);
	}
}
