/* What IANA's special-purpose address registries say (iana-ipv4-special-registry, iana-ipv6-special-registry), and the
 * IPv6 forms that carry an IPv4 address inside. */
#include "base/cleanup.h"
#include "codec/ip.h"

struct range {
	uint8_t bytes[16];
	uint8_t prefix;
	enum ip_class is;
};

/* The longest prefix decides: the registries list global exceptions inside ranges that are not. */
static const struct range v4_ranges[] = {
	{{0}, 8, IP_UNSPECIFIED},                     /* RFC 791: "this network" */
	{{10}, 8, IP_PRIVATE},                        /* RFC 1918 */
	{{100, 64}, 10, IP_PRIVATE},                  /* RFC 6598: shared address space */
	{{127}, 8, IP_LOOPBACK},                      /* RFC 1122 */
	{{169, 254}, 16, IP_LINK_LOCAL},              /* RFC 3927 */
	{{172, 16}, 12, IP_PRIVATE},                  /* RFC 1918 */
	{{192, 0, 0}, 24, IP_RESERVED},               /* RFC 6890: IETF protocol assignments */
	{{192, 0, 0, 9}, 32, IP_GLOBAL},              /* RFC 7723: port control protocol anycast */
	{{192, 0, 0, 10}, 32, IP_GLOBAL},             /* RFC 8155: TURN anycast */
	{{192, 0, 2}, 24, IP_DOCUMENTATION},          /* RFC 5737 */
	{{192, 88, 99}, 24, IP_TRANSITION},           /* RFC 7526: 6to4 relay anycast, deprecated */
	{{192, 168}, 16, IP_PRIVATE},                 /* RFC 1918 */
	{{198, 18}, 15, IP_BENCHMARKING},             /* RFC 2544 */
	{{198, 51, 100}, 24, IP_DOCUMENTATION},       /* RFC 5737 */
	{{203, 0, 113}, 24, IP_DOCUMENTATION},        /* RFC 5737 */
	{{224}, 4, IP_MULTICAST},                     /* RFC 1112 */
	{{240}, 4, IP_RESERVED},                      /* RFC 1112 */
	{{255, 255, 255, 255}, 32, IP_BROADCAST},     /* RFC 8190 */
};

static const struct range v6_ranges[] = {
	{{0}, 0, IP_RESERVED},                                                /* unassigned */
	{{0x20}, 3, IP_GLOBAL},                                               /* RFC 4291: global unicast */
	{{0}, 96, IP_TRANSITION},                                             /* RFC 4291: IPv4-compatible */
	{{0}, 128, IP_UNSPECIFIED},
	{{[15] = 1}, 128, IP_LOOPBACK},
	{{[10] = 0xff, [11] = 0xff}, 96, IP_TRANSITION},                      /* RFC 4291: IPv4-mapped */
	{{[8] = 0xff, [9] = 0xff}, 96, IP_TRANSITION},                        /* RFC 2765: IPv4-translated */
	{{0x00, 0x64, 0xff, 0x9b}, 96, IP_GLOBAL},                            /* RFC 6052: NAT64 */
	{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, IP_TRANSITION},            /* RFC 8215: local NAT64 */
	{{0x01, 0x00}, 64, IP_RESERVED},                                      /* RFC 6666: discard-only */
	{{0x01, 0x00, [7] = 0x01}, 64, IP_RESERVED},                          /* RFC 9780: dummy prefix */
	{{0x20, 0x01}, 23, IP_RESERVED},                                      /* RFC 2928: IETF protocol assignments */
	{{0x20, 0x01}, 32, IP_TRANSITION},                                    /* RFC 4380: Teredo */
	{{0x20, 0x01, 0x00, 0x01, [15] = 1}, 128, IP_GLOBAL},                 /* RFC 7723 */
	{{0x20, 0x01, 0x00, 0x01, [15] = 2}, 128, IP_GLOBAL},                 /* RFC 8155 */
	{{0x20, 0x01, 0x00, 0x01, [15] = 3}, 128, IP_GLOBAL},                 /* RFC 9665: DNS-SD SRP anycast */
	{{0x20, 0x01, 0x00, 0x02}, 48, IP_BENCHMARKING},                      /* RFC 5180 */
	{{0x20, 0x01, 0x00, 0x03}, 32, IP_GLOBAL},                            /* RFC 7450: AMT */
	{{0x20, 0x01, 0x00, 0x04, 0x01, 0x12}, 48, IP_GLOBAL},                /* RFC 7535: AS112 */
	{{0x20, 0x01, 0x00, 0x10}, 28, IP_RESERVED},                          /* RFC 4843: ORCHID, deprecated */
	{{0x20, 0x01, 0x00, 0x20}, 28, IP_GLOBAL},                            /* RFC 7343: ORCHIDv2 */
	{{0x20, 0x01, 0x00, 0x30}, 28, IP_GLOBAL},                            /* RFC 9374: drone remote id */
	{{0x20, 0x01, 0x0d, 0xb8}, 32, IP_DOCUMENTATION},                     /* RFC 3849 */
	{{0x20, 0x02}, 16, IP_TRANSITION},                                    /* RFC 3056: 6to4 */
	{{0x26, 0x20, 0x00, 0x4f, 0x80, 0x00}, 48, IP_GLOBAL},                /* RFC 7534: AS112 */
	{{0x3f, 0xfe}, 16, IP_RESERVED},                                      /* RFC 3701: 6bone, returned */
	{{0x3f, 0xff}, 20, IP_DOCUMENTATION},                                 /* RFC 9637 */
	{{0x5f, 0x00}, 16, IP_RESERVED},                                      /* RFC 9602: SRv6 SIDs */
	{{0xfc}, 7, IP_PRIVATE},                                              /* RFC 4193: unique local */
	{{0xfe, 0x80}, 10, IP_LINK_LOCAL},                                    /* RFC 4291 */
	{{0xfe, 0xc0}, 10, IP_PRIVATE},                                       /* RFC 3879: site-local, deprecated */
	{{0xff}, 8, IP_MULTICAST},                                            /* RFC 4291 */
};

static bool range_holds(const struct range *r, const struct ip *a)
{
	struct cidr c = {.base = {.family = a->family}, .prefix = r->prefix};
	memcpy(c.base.bytes, r->bytes, sizeof r->bytes);
	return cidr_contains(&c, a);
}

enum ip_class ip_classify(const struct ip *a)
{
	const struct range *ranges = a->family == 6 ? v6_ranges : v4_ranges;
	size_t n = a->family == 6 ? ARRAY_SIZE(v6_ranges) : ARRAY_SIZE(v4_ranges);
	enum ip_class best = a->family == 4 ? IP_GLOBAL : IP_RESERVED;
	int best_prefix = -1;

	for (size_t i = 0; i < n; i++) {
		if (ranges[i].prefix > best_prefix && range_holds(&ranges[i], a)) {
			best = ranges[i].is;
			best_prefix = ranges[i].prefix;
		}
	}
	return best;
}

const char *ip_class_text(enum ip_class c)
{
	switch (c) {
	case IP_GLOBAL:
		return "global";
	case IP_UNSPECIFIED:
		return "unspecified";
	case IP_LOOPBACK:
		return "loopback";
	case IP_LINK_LOCAL:
		return "link-local";
	case IP_PRIVATE:
		return "private";
	case IP_MULTICAST:
		return "multicast";
	case IP_BROADCAST:
		return "broadcast";
	case IP_DOCUMENTATION:
		return "documentation";
	case IP_BENCHMARKING:
		return "benchmarking";
	case IP_TRANSITION:
		return "transition";
	case IP_RESERVED:
		return "reserved";
	}
	return "?";
}

/* --- forms that embed IPv4 --- */

static bool starts(const struct ip *a, const uint8_t *prefix, size_t n)
{
	return memcmp(a->bytes, prefix, n) == 0;
}

static struct ip v4_at(const struct ip *a, size_t i0, size_t i1, size_t i2, size_t i3)
{
	const uint8_t *b = a->bytes;
	return (struct ip){.family = 4, .bytes = {b[i0], b[i1], b[i2], b[i3]}};
}

/* RFC 6052 section 2.2: bits 64 to 71 are skipped. Which prefix length a network inside 64:ff9b:1::/48 chose is not
 * to be seen, so all that fit are reported. */
static unsigned embedded_local_nat64(const struct ip *a, struct ip *ret)
{
	ret[0] = v4_at(a, 6, 7, 9, 10);    /* /48 */
	ret[1] = v4_at(a, 7, 9, 10, 11);   /* /56 */
	ret[2] = v4_at(a, 9, 10, 11, 12);  /* /64 */
	ret[3] = v4_at(a, 12, 13, 14, 15); /* /96 */
	return 4;
}

static unsigned embedded_teredo(const struct ip *a, struct ip *ret)
{
	ret[0] = v4_at(a, 4, 5, 6, 7);
	ret[1] = v4_at(a, 12, 13, 14, 15);
	for (size_t i = 0; i < 4; i++)
		ret[1].bytes[i] ^= 0xff;
	return 2;
}

/* RFC 5214 section 6.1; the universal/local bit may be set or not. */
static bool is_isatap(const struct ip *a)
{
	const uint8_t *b = a->bytes;
	return (b[8] & ~2) == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe;
}

unsigned ip_embedded(const struct ip *a, struct ip ret[IP_EMBEDDED_MAX])
{
	static const uint8_t zeros[12], mapped[12] = {[10] = 0xff, [11] = 0xff},
	                                translated[12] = {[8] = 0xff, [9] = 0xff};
	static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b}, nat64_local[6] = {0, 0x64, 0xff, 0x9b, 0, 1};
	static const uint8_t teredo[4] = {0x20, 0x01}, six_to_four[2] = {0x20, 0x02};
	unsigned n = 0;

	if (a->family != 6)
		return 0;
	if (starts(a, nat64_local, 6))
		return embedded_local_nat64(a, ret);
	if (starts(a, teredo, 4))
		n = embedded_teredo(a, ret);
	else if (starts(a, six_to_four, 2))
		ret[n++] = v4_at(a, 2, 3, 4, 5);
	else if (starts(a, mapped, 12) || starts(a, translated, 12) || starts(a, nat64, 12) ||
		 (starts(a, zeros, 12) && ip_classify(a) == IP_TRANSITION))
		ret[n++] = v4_at(a, 12, 13, 14, 15);
	if (is_isatap(a))
		ret[n++] = v4_at(a, 12, 13, 14, 15);
	return n;
}

bool ip_is_global(const struct ip *a)
{
	struct ip inner[IP_EMBEDDED_MAX];
	unsigned n = ip_embedded(a, inner);

	if (a->family == 0 || ip_classify(a) != IP_GLOBAL)
		return false;
	for (unsigned i = 0; i < n; i++)
		if (ip_classify(&inner[i]) != IP_GLOBAL)
			return false;
	return true;
}
