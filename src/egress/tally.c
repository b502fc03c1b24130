#include "egress/tally.h"

#include <string.h>

#include "base/cleanup.h"

static uint64_t hash_of(struct str name, uint16_t qtype)
{
	uint64_t h = 0xcbf29ce484222325ULL ^ qtype;

	for (size_t i = 0; i < name.len; i++)
		h = (h ^ (uint8_t)name.p[i]) * 0x100000001b3ULL;
	return h;
}

static struct dns_row *dns_find(struct tally *t, uint64_t hash, struct str name, uint16_t qtype, const char *answer)
{
	for (unsigned i = 0; i < t->ndns; i++) {
		struct dns_row *r = &t->dns[i];
		if (r->hash == hash && r->qtype == qtype && !strcmp(r->answer, answer) &&
		    str_eq(str_make(r->name, r->name_len), name))
			return r;
	}
	return NULL;
}

/* A row for what is new; the last one takes all that finds no room. */
static struct dns_row *dns_add(struct tally *t, uint64_t hash, struct str name, uint16_t qtype, const char *answer)
{
	if (t->ndns == TALLY_DNS_ROWS)
		return &t->dns[TALLY_DNS_ROWS - 1];
	struct dns_row *r = &t->dns[t->ndns++];
	if (t->ndns == TALLY_DNS_ROWS) {
		*r = (struct dns_row){.answer = "other"};
		return r;
	}
	*r = (struct dns_row){.hash = hash, .qtype = qtype, .answer = answer};
	r->name_len = (uint8_t)MIN(name.len, sizeof r->name);
	memcpy(r->name, name.p, r->name_len);
	return r;
}

void tally_dns(struct tally *t, struct str name, uint16_t qtype, const char *answer)
{
	uint64_t hash = hash_of(name, qtype);
	struct dns_row *r = dns_find(t, hash, name, qtype, answer);

	if (!r)
		r = dns_add(t, hash, name, qtype, answer);
	r->count++;
	t->dns_total++;
}

static struct drop_row *drop_find(struct tally *t, uint8_t protocol, const char *address, uint16_t port,
				  const char *reason)
{
	for (unsigned i = 0; i < t->ndrops; i++) {
		struct drop_row *r = &t->drops[i];
		if (r->protocol == protocol && r->port == port && !strcmp(r->address, address) &&
		    !strcmp(r->reason, reason))
			return r;
	}
	return NULL;
}

void tally_drop(struct tally *t, enum egress_protocol protocol, const char *address, uint16_t port, const char *reason)
{
	struct drop_row *r = drop_find(t, (uint8_t)protocol, address, port, reason);

	if (!r && t->ndrops < TALLY_DROP_ROWS) {
		r = &t->drops[t->ndrops++];
		*r = (struct drop_row){.protocol = (uint8_t)protocol, .port = port, .reason = reason};
		if (t->ndrops == TALLY_DROP_ROWS)
			*r = (struct drop_row){.protocol = PROTO_OTHER, .reason = "more than are listed"};
		else
			str_copy(str_of(address), r->address, sizeof r->address);
	}
	if (!r)
		r = &t->drops[TALLY_DROP_ROWS - 1];
	r->count++;
	t->drop_total++;
}

static void write_dns(struct tally *t, struct journal *j, uint64_t vm, uint64_t workspace)
{
	for (; t->ndns; t->ndns--) {
		struct dns_row *r = &t->dns[t->ndns - 1];
		struct record_dns record = {.vm = vm,
					    .workspace = workspace,
					    .qtype = r->qtype,
					    .count = r->count,
					    .name = str_make(r->name, r->name_len),
					    .answer = str_of(r->answer)};
		if (!journal_note(j, vm, RECORD_DNS, &record))
			return;
	}
}

void tally_write(struct tally *t, struct journal *j, uint64_t vm, uint64_t workspace)
{
	write_dns(t, j, vm, workspace);
	for (; t->ndrops; t->ndrops--) {
		struct drop_row *r = &t->drops[t->ndrops - 1];
		struct record_drop record = {.vm = vm,
					     .workspace = workspace,
					     .protocol = r->protocol,
					     .address = str_of(r->address),
					     .port = r->port,
					     .reason = str_of(r->reason),
					     .count = r->count};
		if (!journal_note(j, vm, RECORD_DROP, &record))
			return;
	}
}
