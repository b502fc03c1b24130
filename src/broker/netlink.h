#pragma once
/* The few rtnetlink requests that a VM's namespace needs, each sent and acknowledged before it returns (rtnetlink(7)).
 * They act on the network namespace in which the socket was opened. Addresses are in network byte order. */
#include <stdint.h>

struct mnl_socket;

/* NULL and errno. Closed with mnl_socket_close. */
struct mnl_socket *netlink_open(void);

/* Interface flags beside IFF_UP are left as they are; mtu 0 leaves that; mac NULL too. */
int netlink_link_up(struct mnl_socket *nl, unsigned ifindex, const uint8_t mac[6], uint32_t mtu);
/* local, and peer as the only address on the link (/32): no route but to the peer comes of it. */
int netlink_address_add(struct mnl_socket *nl, unsigned ifindex, uint32_t local, uint32_t peer);
/* A permanent neighbour entry, which no packet can change. */
int netlink_neighbour_add(struct mnl_socket *nl, unsigned ifindex, uint32_t address, const uint8_t mac[6]);
/* ip rule add fwmark MARK lookup TABLE */
int netlink_mark_rule_add(struct mnl_socket *nl, uint32_t mark, uint32_t table);
/* ip route add local default dev IFINDEX table TABLE */
int netlink_local_default_add(struct mnl_socket *nl, unsigned ifindex, uint32_t table);
/* What the link received and sent since it was made, in bytes. */
int netlink_link_bytes(struct mnl_socket *nl, unsigned ifindex, uint64_t *ret_received, uint64_t *ret_sent);
