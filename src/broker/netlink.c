#include "broker/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

/* Large enough for every request below, which are all of fixed size, and for the acknowledgement. */
#define REQUEST_SIZE 1024
#define ANSWER_SIZE 16384 /* a link with all that the kernel tells of it */

struct request {
	union {
		struct nlmsghdr header;
		char bytes[REQUEST_SIZE];
	};
};

struct mnl_socket *netlink_open(void)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl)
		return NULL;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		int error = errno;
		mnl_socket_close(nl);
		errno = error;
		return NULL;
	}
	return nl;
}

static void *request_start(struct request *r, uint16_t type, uint16_t flags, size_t body)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(r->bytes);
	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
	h->nlmsg_seq = 1;
	return mnl_nlmsg_put_extra_header(h, body);
}

static int request_run(struct mnl_socket *nl, struct request *r)
{
	char answer[REQUEST_SIZE];

	if (mnl_socket_sendto(nl, &r->header, r->header.nlmsg_len) < 0)
		return -errno;
	ssize_t n = mnl_socket_recvfrom(nl, answer, sizeof answer);
	if (n < 0)
		return -errno;
	if (mnl_cb_run(answer, (size_t)n, 1, mnl_socket_get_portid(nl), NULL, NULL) < 0)
		return -errno;
	return 0;
}

int netlink_link_up(struct mnl_socket *nl, unsigned ifindex, const uint8_t mac[6], uint32_t mtu)
{
	struct request r = {0};
	struct ifinfomsg *link = request_start(&r, RTM_NEWLINK, 0, sizeof *link);

	link->ifi_family = AF_UNSPEC;
	link->ifi_index = (int)ifindex;
	link->ifi_flags = IFF_UP;
	link->ifi_change = IFF_UP;
	if (mac)
		mnl_attr_put(&r.header, IFLA_ADDRESS, 6, mac);
	if (mtu)
		mnl_attr_put_u32(&r.header, IFLA_MTU, mtu);
	return request_run(nl, &r);
}

int netlink_address_add(struct mnl_socket *nl, unsigned ifindex, uint32_t local, uint32_t peer)
{
	struct request r = {0};
	struct ifaddrmsg *a = request_start(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof *a);

	a->ifa_family = AF_INET;
	a->ifa_prefixlen = 32;
	a->ifa_index = ifindex;
	mnl_attr_put_u32(&r.header, IFA_LOCAL, local);
	mnl_attr_put_u32(&r.header, IFA_ADDRESS, peer);
	return request_run(nl, &r);
}

int netlink_neighbour_add(struct mnl_socket *nl, unsigned ifindex, uint32_t address, const uint8_t mac[6])
{
	struct request r = {0};
	struct ndmsg *n = request_start(&r, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof *n);

	n->ndm_family = AF_INET;
	n->ndm_ifindex = (int)ifindex;
	n->ndm_state = NUD_PERMANENT;
	mnl_attr_put_u32(&r.header, NDA_DST, address);
	mnl_attr_put(&r.header, NDA_LLADDR, 6, mac);
	return request_run(nl, &r);
}

int netlink_mark_rule_add(struct mnl_socket *nl, uint32_t mark, uint32_t table)
{
	struct request r = {0};
	struct fib_rule_hdr *rule = request_start(&r, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, sizeof *rule);

	rule->family = AF_INET;
	rule->action = FR_ACT_TO_TBL;
	rule->table = RT_TABLE_UNSPEC;
	mnl_attr_put_u32(&r.header, FRA_TABLE, table);
	mnl_attr_put_u32(&r.header, FRA_FWMARK, mark);
	mnl_attr_put_u32(&r.header, FRA_PRIORITY, table);
	return request_run(nl, &r);
}

int netlink_local_default_add(struct mnl_socket *nl, unsigned ifindex, uint32_t table)
{
	struct request r = {0};
	struct rtmsg *route = request_start(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof *route);

	route->rtm_family = AF_INET;
	route->rtm_table = RT_TABLE_UNSPEC;
	route->rtm_protocol = RTPROT_STATIC;
	route->rtm_scope = RT_SCOPE_HOST;
	route->rtm_type = RTN_LOCAL;
	mnl_attr_put_u32(&r.header, RTA_TABLE, table);
	mnl_attr_put_u32(&r.header, RTA_OIF, ifindex);
	return request_run(nl, &r);
}

static int take_bytes(const struct nlattr *attribute, void *user)
{
	struct rtnl_link_stats64 stats;
	uint64_t *bytes = user;

	if (mnl_attr_get_type(attribute) != IFLA_STATS64 || mnl_attr_get_payload_len(attribute) < 4 * sizeof(uint64_t))
		return MNL_CB_OK;
	/* a kernel older or newer than the header has a shorter or longer one; ours are among the first */
	memset(&stats, 0, sizeof stats);
	memcpy(&stats, mnl_attr_get_payload(attribute), MIN(sizeof stats, (size_t)mnl_attr_get_payload_len(attribute)));
	bytes[0] = stats.rx_bytes;
	bytes[1] = stats.tx_bytes;
	return MNL_CB_STOP;
}

static int take_link(const struct nlmsghdr *h, void *user)
{
	return mnl_attr_parse(h, sizeof(struct ifinfomsg), take_bytes, user) < 0 ? MNL_CB_ERROR : MNL_CB_STOP;
}

int netlink_link_bytes(struct mnl_socket *nl, unsigned ifindex, uint64_t *ret_received, uint64_t *ret_sent)
{
	struct request r = {0};
	struct ifinfomsg *link = request_start(&r, RTM_GETLINK, 0, sizeof *link);
	uint64_t bytes[2] = {0};
	char answer[ANSWER_SIZE];

	r.header.nlmsg_flags = NLM_F_REQUEST;
	link->ifi_family = AF_UNSPEC;
	link->ifi_index = (int)ifindex;
	if (mnl_socket_sendto(nl, &r.header, r.header.nlmsg_len) < 0)
		return -errno;
	ssize_t n = mnl_socket_recvfrom(nl, answer, sizeof answer);
	if (n < 0 || mnl_cb_run(answer, (size_t)n, 1, mnl_socket_get_portid(nl), take_link, bytes) < 0)
		return -errno;
	*ret_received = bytes[0];
	*ret_sent = bytes[1];
	return 0;
}
