/* What a hostile guest sends: runs as root inside a VM, emits every kind of packet in its repertoire with the marker
 * given as argument in the payload, and prints how many frames the kernel took. Static, so that any guest can run it.
 *
 *	guest_probe MARKER [TARGET-IPV4]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *marker;
static unsigned sent;
static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 2}, tap_mac[6] = {2, 0, 0, 0, 0, 1}, everyone[6] = {255, 255, 255, 255, 255, 255};

struct frame {
	uint8_t b[1514];
	size_t n;
};

static void put(struct frame *f, const void *p, size_t n)
{
	memcpy(f->b + f->n, p, n);
	f->n += n;
}

static void put16(struct frame *f, unsigned v)
{
	put(f, &(uint16_t){htons((uint16_t)v)}, 2);
}

static void ether(struct frame *f, const uint8_t *to, const uint8_t *from, unsigned type)
{
	f->n = 0;
	put(f, to, 6);
	put(f, from, 6);
	put16(f, type);
}

static uint16_t checksum(const uint8_t *p, size_t n)
{
	uint32_t s = 0;
	for (size_t i = 0; i + 1 < n; i += 2)
		s += (uint32_t)(p[i] << 8 | p[i + 1]);
	if (n & 1)
		s += (uint32_t)(p[n - 1] << 8);
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return htons((uint16_t)~s);
}

static void ipv4(struct frame *f, const char *from, const char *to, uint8_t protocol, unsigned fragment, size_t payload)
{
	uint8_t h[20] = {0x45, 0};
	uint16_t v;

	v = htons((uint16_t)(20 + payload));
	memcpy(h + 2, &v, 2);
	v = htons((uint16_t)fragment);
	memcpy(h + 6, &v, 2);
	h[8] = 64;
	h[9] = protocol;
	inet_pton(AF_INET, from, h + 12);
	inet_pton(AF_INET, to, h + 16);
	v = checksum(h, 20);
	memcpy(h + 10, &v, 2);
	put(f, h, 20);
}

static void emit(int fd, const struct frame *f)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("eth0"), .sll_halen = 6};
	memcpy(to.sll_addr, f->b, 6);
	if (sendto(fd, f->b, f->n, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)f->n)
		sent++;
}

static void payload(struct frame *f)
{
	put(f, marker, strlen(marker));
}

static void raw_ipv4(int fd, const char *from, const char *to, uint8_t protocol, unsigned fragment, const uint8_t *mac)
{
	struct frame f;
	size_t n = strlen(marker);

	ether(&f, tap_mac, mac, 0x0800);
	ipv4(&f, from, to, protocol, fragment, 8 + n);
	put16(&f, 7777); /* ports of UDP and TCP; type and code of ICMP */
	put16(&f, 9999);
	put16(&f, (unsigned)(8 + n));
	put16(&f, 0);
	payload(&f);
	emit(fd, &f);
}

static void raw_other(int fd, const uint8_t *to, unsigned type)
{
	struct frame f;
	ether(&f, to, guest_mac, type);
	put(&f, "\x60\0\0\0\0\x20\x3a\xff", 8); /* an IPv6 header's beginning, as good as any */
	for (int i = 0; i < 16; i++)
		put16(&f, 0xfe80);
	payload(&f);
	emit(fd, &f);
}

static void raw_arp(int fd, const char *claimed, unsigned operation)
{
	struct frame f;
	struct in_addr a;

	ether(&f, everyone, guest_mac, 0x0806);
	put16(&f, 1);
	put16(&f, 0x0800);
	put(&f, "\6\4", 2);
	put16(&f, operation);
	put(&f, guest_mac, 6);
	inet_pton(AF_INET, claimed, &a);
	put(&f, &a, 4);
	put(&f, everyone, 6);
	put(&f, &a, 4);
	payload(&f);
	emit(fd, &f);
}

static void datagram(const char *to, unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &(int){1}, sizeof(int));
	inet_pton(AF_INET, to, &a.sin_addr);
	if (sendto(fd, marker, strlen(marker), 0, (struct sockaddr *)&a, sizeof a) > 0)
		sent++;
	close(fd);
}

/* A connection and the marker on it, where one comes about within half a second. */
static void stream(const char *to, unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	inet_pton(AF_INET, to, &a.sin_addr);
	connect(fd, (struct sockaddr *)&a, sizeof a);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	if (poll(&p, 1, 500) == 1 && send(fd, marker, strlen(marker), MSG_NOSIGNAL) > 0)
		sent++;
	close(fd);
}

int main(int argc, char **argv)
{
	static const char *const targets[] = {"8.8.8.8",         "1.1.1.1",   "169.254.169.254", "168.63.129.16", "10.77.0.1",
					      "255.255.255.255", "224.0.0.1", "192.168.0.1",     "172.17.0.1",    "0.0.0.0"};
	static const unsigned types[] = {0x86dd, 0x8100, 0x88a8, 0x8863, 0x88cc, 0x0842, 0x9000, 0x8847};

	if (argc < 2)
		return 2;
	marker = argv[1];
	int raw = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	if (raw < 0) {
		perror("AF_PACKET");
		return 1;
	}
	for (size_t i = 0; i <= sizeof targets / sizeof targets[0]; i++) {
		const char *to = i < sizeof targets / sizeof targets[0] ? targets[i] : argc > 2 ? argv[2] : "9.9.9.9";
		static const uint8_t protocols[] = {1, 2, 6, 17, 41, 47, 50, 132};
		for (size_t k = 0; k < sizeof protocols; k++) {
			raw_ipv4(raw, "10.77.0.2", to, protocols[k], 0, guest_mac);
			raw_ipv4(raw, "10.77.0.2", to, protocols[k], 0x2000, guest_mac);
			raw_ipv4(raw, "10.77.0.2", to, protocols[k], 0x0010, guest_mac);
			raw_ipv4(raw, "203.0.113.7", to, protocols[k], 0, guest_mac);
			raw_ipv4(raw, "10.77.0.2", to, protocols[k], 0, (const uint8_t[6]){2, 9, 9, 9, 9, 9});
		}
		datagram(to, 443);
		datagram(to, 123);
		datagram(to, 9999);
		stream(to, 443);
		stream(to, 9999);
	}
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		raw_other(raw, tap_mac, types[i]);
		raw_other(raw, everyone, types[i]);
		raw_other(raw, (const uint8_t[6]){0x33, 0x33, 0, 0, 0, 1}, types[i]);
	}
	for (unsigned i = 1; i < 64; i++) {
		char claimed[32];
		snprintf(claimed, sizeof claimed, "192.168.%u.1", i);
		raw_arp(raw, claimed, 1 + i % 2);
	}
	printf("%u frames and messages sent\n", sent);
	return sent > 100 ? 0 : 1;
}
