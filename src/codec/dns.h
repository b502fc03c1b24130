#pragma once
/* DNS as the door speaks it (RFC 1035, EDNS(0) of RFC 6891): one question in, one answer without look-ups out. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "codec/hostname.h"

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
	DNS_BADVERS = 16, /* needs the OPT record that the query had */
};

enum dns_type {
	DNS_A = 1,
	DNS_NS = 2,
	DNS_CNAME = 5,
	DNS_SOA = 6,
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
	DNS_SRV = 33,
	DNS_OPT = 41,
	DNS_SVCB = 64,
	DNS_HTTPS = 65,
	DNS_AXFR = 252,
	DNS_ANY = 255
};

#define DNS_QUESTION_MAX (255 + 4)
/* No answer made here is longer, so one over UDP never needs truncation: 12 + 259 + 16 + 11. */
#define DNS_ANSWER_MAX 298
/* Longest query taken, by UDP or TCP. */
#define DNS_QUERY_MAX 1232

struct dns_query {
	uint16_t id;
	uint16_t flags; /* as asked: the answer copies opcode, RD and CD */
	uint16_t qtype, qclass;
	char name[HOSTNAME_SIZE];            /* canonical; "" where parsing gave anything but 0 */
	uint8_t question[DNS_QUESTION_MAX];  /* as asked, its casing kept (resolvers check it) */
	size_t question_len;                 /* 0: no question to repeat */
	bool edns, dnssec_ok;
	uint16_t udp_size; /* what the asker takes over UDP: at least 512 */
};

/* 0: a well-formed query of one IN question, whose name is ordinary text (hostname.h; one label is enough here: what
 * kind of name it is says hostname_kind). A positive dns_rcode: answer with just that (dns_answer), *ret holds what is
 * needed: FORMERR  no or several questions, compression in the question, bytes after the end, a malformed or second
 * OPT, an answer or authority record in a query NOTIMP   another opcode          REFUSED  another class; AXFR, IXFR and
 * other meta types but ANY BADVERS  EDNS above 0            NXDOMAIN labels of other bytes than [A-Za-z0-9_-], more
 * than 253 bytes, the root, a name that ends in a number -EBADMSG: not to be answered at all (no whole header, a
 * response, longer than DNS_QUERY_MAX); *ret is untouched. */
int dns_query_parse(struct str packet, struct dns_query *ret);

/* Appends an answer: to DNS_NOERROR with an address if `a` is not NULL (one A record with that TTL), else with none.
 * The question is repeated as it was asked, and an OPT record where the query had one. -EMSGSIZE: out's ceiling. */
struct dns_a {
	uint32_t address; /* host order */
	uint32_t ttl_s;
};
int dns_answer(const struct dns_query *q, enum dns_rcode rcode, const struct dns_a *a, struct buf *out);
/* As dns_answer, with the two bytes of length that TCP puts before (RFC 1035 section 4.2.2). */
int dns_answer_tcp(const struct dns_query *q, enum dns_rcode rcode, const struct dns_a *a, struct buf *out);

/* The first message of a TCP stream: 1 and *ret_packet (borrowed from in; *ret_consumed with its two length bytes), 0
 * when more bytes are needed, -EMSGSIZE when it says it is longer than DNS_QUERY_MAX or shorter than a header. */
int dns_tcp_next(struct str in, struct str *ret_packet, size_t *ret_consumed);

#define DNS_TYPE_TEXT_SIZE 16
/* "A", "HTTPS", "TYPE4711". Returns ret. */
const char *dns_type_format(uint16_t qtype, char ret[DNS_TYPE_TEXT_SIZE]);
