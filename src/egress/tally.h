#pragma once
/* What is counted and not written one by one: a VM's DNS answers and dropped packets. Each second what came is written
 * as a bounded number of rows; what finds no row of its own is counted in one without name or address. */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "codec/record.h"
#include "egress/journal.h"

#define TALLY_DNS_ROWS 32
#define TALLY_DROP_ROWS 64

struct dns_row {
	uint64_t hash;
	uint32_t count;
	uint16_t qtype;
	uint8_t name_len;
	char name[255];
	const char *answer;
};

struct drop_row {
	uint32_t count;
	uint16_t port;
	uint8_t protocol;
	char address[46];
	const char *reason;
};

struct tally {
	struct dns_row dns[TALLY_DNS_ROWS];
	struct drop_row drops[TALLY_DROP_ROWS];
	unsigned ndns, ndrops;
	uint64_t dns_total, drop_total; /* since the VM was attached */
};

/* answer, reason: literals. */
void tally_dns(struct tally *t, struct str name, uint16_t qtype, const char *answer);
void tally_drop(struct tally *t, enum egress_protocol protocol, const char *address, uint16_t port, const char *reason);
/* Once a second. Rows that the journal does not take are kept and counted on. */
void tally_write(struct tally *t, struct journal *j, uint64_t vm, uint64_t workspace);
