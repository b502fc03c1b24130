#include "agent/network.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

static struct sockaddr ipv4(uint32_t address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	struct sockaddr a;

	_Static_assert(sizeof in == sizeof a, "both are 16 bytes");
	memcpy(&a, &in, sizeof a);
	return a;
}

static uint32_t netmask(unsigned prefix)
{
	return prefix ? UINT32_MAX << (32 - prefix) : 0;
}

static int set_address(int fd, const char *name, unsigned long request, uint32_t address)
{
	struct ifreq r = {.ifr_addr = ipv4(address)};

	memcpy(r.ifr_name, name, IFNAMSIZ);
	return ioctl(fd, request, &r) ? -errno : 0;
}

static int set_up(int fd, const char *name)
{
	struct ifreq r = {0};

	memcpy(r.ifr_name, name, IFNAMSIZ);
	if (ioctl(fd, SIOCGIFFLAGS, &r))
		return -errno;
	r.ifr_flags |= IFF_UP | IFF_RUNNING;
	return ioctl(fd, SIOCSIFFLAGS, &r) ? -errno : 0;
}

static int set_gateway(int fd, const char *name, uint32_t gateway)
{
	char device[IFNAMSIZ];
	struct rtentry r = {.rt_dst = ipv4(0),
			    .rt_genmask = ipv4(0),
			    .rt_gateway = ipv4(gateway),
			    .rt_flags = RTF_UP | RTF_GATEWAY,
			    .rt_dev = device};

	memcpy(device, name, sizeof device);
	return ioctl(fd, SIOCADDRT, &r) && errno != EEXIST ? -errno : 0;
}

/* The door drops IPv6 and records it: a guest that does not try keeps its trail readable. The loopback keeps ::1. A kernel
 * without IPv6 has no such file, and nothing to turn off. */
static void silence_ipv6(const char *name)
{
	char path[96];

	snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, "1\n", 2);
}

int network_configure(const struct agent_network *n, struct error *reterr)
{
	char name[IFNAMSIZ] = {0};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_set(reterr, -errno, "no IPv4 in this kernel: %s", strerror(errno));
	if (str_copy(n->interface, name, sizeof name))
		return error_set(reterr, -EINVAL, "the interface's name is malformed");
	int r = set_up(fd, "lo\0\0\0\0\0\0\0\0\0\0\0\0\0");
	if (r)
		return error_set(reterr, r, "cannot bring lo up: %s", strerror(-r));
	silence_ipv6(name);
	r = set_address(fd, name, SIOCSIFADDR, n->address);
	if (r == 0)
		r = set_address(fd, name, SIOCSIFNETMASK, netmask(n->prefix));
	if (r == 0)
		r = set_up(fd, name);
	if (r == 0 && n->gateway)
		r = set_gateway(fd, name, n->gateway);
	return r ? error_set(reterr, r, "cannot configure %s: %s", name, strerror(-r)) : 0;
}
