#pragma once
/* What the host's kernel would do with an address: asked over an rtnetlink socket that is opened before the sandbox
 * closes that family (rtnetlink(7), RTM_GETROUTE; the kernel answers within the call, so nothing waits). */
#include <stdbool.h>

#include "codec/ip.h"

int routes_open(int *ret_fd);

enum route_kind {
	ROUTE_AWAY,  /* unicast, off this host */
	ROUTE_LOCAL, /* this host's own address, broadcast, multicast or anycast; or the kernel gave no clear answer */
	ROUTE_NONE,  /* unreachable, prohibited, or no route */
};
enum route_kind route_look_up(int fd, const struct ip *a);
