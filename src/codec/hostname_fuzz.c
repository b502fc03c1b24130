/* Names, addresses and prefixes: what parses has one canonical text, which parses to the same. */
#include <stdlib.h>

#include "codec/hostname.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
	if (!ok)
		abort();
}

static void check_name(struct str in)
{
	char name[HOSTNAME_SIZE], idn[HOSTNAME_SIZE];
	struct ip a;

	if (hostname_parse(in, name) == 0) {
		need(hostname_is_canonical(str_of(name)));
		need(ip_parse(in, &a) != 0);
		need(hostname_parse_idn(in, idn) == 0 && strcmp(idn, name) == 0);
		hostname_kind(str_of(name));
	}
	if (hostname_parse_idn(in, idn) == 0)
		need(hostname_is_canonical(str_of(idn)));
}

static void check_address(struct str in)
{
	char text[IP_TEXT_SIZE], prefix[CIDR_TEXT_SIZE];
	struct ip a, again, inner[IP_EMBEDDED_MAX];
	struct cidr c, same;

	if (ip_parse(in, &a) == 0) {
		ip_format(&a, text);
		need(ip_parse(str_of(text), &again) == 0 && ip_eq(&a, &again));
		need(ip_embedded(&a, inner) <= IP_EMBEDDED_MAX);
		need(!ip_is_global(&a) || ip_classify(&a) == IP_GLOBAL);
	}
	if (cidr_parse(in, &c) == 0) {
		cidr_format(&c, prefix);
		need(cidr_parse(str_of(prefix), &same) == 0 && cidr_covers(&c, &same) && cidr_covers(&same, &c));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str in = str_make(data, size);
	struct host h, again;
	uint16_t port;

	check_name(in);
	check_address(in);
	if (authority_parse(in, &h, &port) == 0)
		need(host_parse(str_of(h.name), &again) == 0 && strcmp(h.name, again.name) == 0);
	return 0;
}
