#include "egress/drops.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_log/libnetfilter_log.h>
#include <linux/if_ether.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "codec/ip.h"

#define READ_BYTES 65536
#define READS 8

static uint16_t be16_at(struct str s, size_t i)
{
	return (uint16_t)((uint8_t)s.p[i] << 8 | (uint8_t)s.p[i + 1]);
}

static void set_ports(uint8_t ip_protocol, struct str transport, struct drop *ret)
{
	switch (ip_protocol) {
	case IPPROTO_TCP:
		ret->protocol = PROTO_TCP;
		break;
	case IPPROTO_UDP:
		ret->protocol = PROTO_UDP;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		ret->protocol = PROTO_ICMP;
		return;
	default:
		return;
	}
	if (transport.len >= 4)
		ret->port = be16_at(transport, 2);
}

static void parse_ipv4(struct str p, struct drop *ret)
{
	if (p.len < 20 || (uint8_t)p.p[0] >> 4 != 4) {
		ret->reason = "malformed IPv4";
		return;
	}
	size_t header = (size_t)((uint8_t)p.p[0] & 15) * 4;
	if (header < 20 || header > p.len) {
		ret->reason = "malformed IPv4";
		return;
	}
	struct ip to = {.family = 4};
	memcpy(to.bytes, p.p + 16, 4);
	ip_format(&to, ret->address);
	uint16_t fragment = be16_at(p, 6);
	if (fragment & 0x3fff)
		ret->reason = "fragmented IPv4";
	if ((fragment & 0x1fff) == 0)
		set_ports((uint8_t)p.p[9], str_make(p.p + header, p.len - header), ret);
}

/* Extension headers are not walked: the packet is counted, not understood. */
static void parse_ipv6(struct str p, struct drop *ret)
{
	ret->reason = "IPv6 is off";
	if (p.len < 40 || (uint8_t)p.p[0] >> 4 != 6)
		return;
	struct ip to = ip_from_v6((const uint8_t *)p.p + 24);
	ip_format(&to, ret->address);
	set_ports((uint8_t)p.p[6], str_make(p.p + 40, p.len - 40), ret);
}

void drop_parse(uint16_t hw_protocol, struct str packet, struct drop *ret)
{
	*ret = (struct drop){.protocol = PROTO_OTHER, .reason = "not a protocol of the door"};
	switch (hw_protocol) {
	case ETH_P_IP:
		parse_ipv4(packet, ret);
		break;
	case ETH_P_IPV6:
		parse_ipv6(packet, ret);
		break;
	case ETH_P_ARP:
		ret->reason = "ARP that is not the guest's own";
		break;
	default:
		ret->reason = "neither IPv4 nor ARP";
		break;
	}
}

static int on_message(const struct nlmsghdr *h, void *arg)
{
	struct tally *t = arg;
	struct nlattr *attrs[NFULA_MAX + 1] = {0};
	struct drop d;
	uint16_t hw_protocol = 0;

	if (h->nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET))
		return MNL_CB_OK;
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct nfgenmsg)) || nflog_nlmsg_parse(h, attrs) != MNL_CB_OK)
		return MNL_CB_OK;
	if (attrs[NFULA_PACKET_HDR] &&
	    mnl_attr_get_payload_len(attrs[NFULA_PACKET_HDR]) >= sizeof(struct nfulnl_msg_packet_hdr)) {
		const struct nfulnl_msg_packet_hdr *header = mnl_attr_get_payload(attrs[NFULA_PACKET_HDR]);
		hw_protocol = ntohs(header->hw_protocol);
	}
	struct str packet = {0};
	if (attrs[NFULA_PAYLOAD])
		packet = str_make(mnl_attr_get_payload(attrs[NFULA_PAYLOAD]),
				  mnl_attr_get_payload_len(attrs[NFULA_PAYLOAD]));
	drop_parse(hw_protocol, packet, &d);
	tally_drop(t, d.protocol, d.address, d.port, d.reason);
	return MNL_CB_OK;
}

void drops_read(int fd, struct tally *t)
{
	static _Alignas(struct nlmsghdr) char space[READ_BYTES];

	for (unsigned i = 0; i < READS; i++) {
		ssize_t n = recv(fd, space, sizeof space, MSG_DONTWAIT);
		if (n < 0 && errno == ENOBUFS) {
			tally_drop(t, PROTO_OTHER, "", 0, "more than the kernel could tell of");
			continue;
		}
		if (n <= 0)
			return;
		mnl_cb_run(space, (size_t)n, 0, 0, on_message, t);
	}
}
