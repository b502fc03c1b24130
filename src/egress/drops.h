#pragma once
/* What the namespace's rules dropped, read from NFLOG (nfnetlink_log; the group's socket is bound by irond). The bytes
 * of a packet are a guest's: parsed strictly, bounded, and only counted (tally.h). */
#include <stdint.h>

#include "base/str.h"
#include "codec/record.h"
#include "egress/tally.h"

/* A batch of messages from fd, counted in t. Kernel overruns are counted too. */
void drops_read(int fd, struct tally *t);

/* Pure: what one dropped packet was. frame: from the netdev chain it begins with the IP header, or whatever follows the
 * link header; hw_protocol is the ethertype. */
struct drop {
	enum egress_protocol protocol;
	char address[46]; /* destination, "" when there is none */
	uint16_t port;
	const char *reason;
};
void drop_parse(uint16_t hw_protocol, struct str packet, struct drop *ret);
