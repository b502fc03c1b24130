#include "codec/dns.h"

#include <errno.h>

#include "base/cleanup.h"

#define HEADER_SIZE 12
#define OPT_SIZE 11

enum { FLAG_QR = 0x8000, FLAG_AA = 0x0400, FLAG_RD = 0x0100, FLAG_RA = 0x0080, FLAG_CD = 0x0010, OPCODE = 0x7800 };
enum { CLASS_IN = 1 };

static uint16_t be16(const void *p)
{
	const uint8_t *b = p;
	return (uint16_t)(b[0] << 8 | b[1]);
}

static bool take(struct str *in, size_t n, struct str *ret)
{
	if (in->len < n)
		return false;
	*ret = str_make(in->p, n);
	*in = str_make(in->p + n, in->len - n);
	return true;
}

static bool take_u16(struct str *in, uint16_t *ret)
{
	struct str at;
	if (!take(in, 2, &at))
		return false;
	*ret = be16(at.p);
	return true;
}

/* A label's bytes after what is in text; one that would change the name's structure becomes '?', which hostname_parse
 * refuses. */
static size_t append_label(char *text, size_t n, struct str label)
{
	for (size_t i = 0; i < label.len; i++)
		text[n++] = label.p[i] == '.' || label.p[i] == '\0' ? '?' : label.p[i];
	text[n++] = '.';
	return n;
}

/* The name of the question: uncompressed (a pointer has nothing before it that it could point to), at most 255 bytes.
 * FORMERR; NXDOMAIN for a well-formed one that is no host name. */
static enum dns_rcode take_name(struct str *in, char ret[HOSTNAME_SIZE])
{
	char text[256];
	size_t n = 0;
	struct str start = *in, length, label;

	for (;;) {
		if (!take(in, 1, &length))
			return DNS_FORMERR;
		size_t len = (uint8_t)length.p[0];
		if (len == 0)
			break;
		if (len > 63 || !take(in, len, &label) || start.len - in->len > 254)
			return DNS_FORMERR;
		n = append_label(text, n, label);
	}
	return hostname_parse(str_make(text, n), ret) ? DNS_NXDOMAIN : DNS_NOERROR;
}

static bool is_meta_type(uint16_t qtype)
{
	/* RFC 6895: 128 to 255 are query and meta types; ANY gets an empty answer like every type that is not A. */
	return (qtype >= 128 && qtype <= 255 && qtype != DNS_ANY) || qtype == DNS_OPT || qtype == 0;
}

static enum dns_rcode take_question(struct str *in, struct dns_query *q)
{
	struct str start = *in;
	enum dns_rcode name = take_name(in, q->name);

	if (name == DNS_FORMERR || !take_u16(in, &q->qtype) || !take_u16(in, &q->qclass))
		return DNS_FORMERR;
	q->question_len = start.len - in->len;
	memcpy(q->question, start.p, q->question_len);
	if (q->qclass != CLASS_IN || is_meta_type(q->qtype))
		return DNS_REFUSED;
	return name;
}

/* RFC 6891 section 6.1.2: the root's name, type 41, the asker's UDP size as class, the TTL as extended rcode, version
 * and flags. Options are stepped over, but must be framed. */
static enum dns_rcode take_opt(struct str *in, struct dns_query *q)
{
	struct str name, ttl, options, value;
	uint16_t type, size, len, code;

	if (!take(in, 1, &name) || name.p[0] != 0 || !take_u16(in, &type) || type != DNS_OPT || !take_u16(in, &size) ||
	    !take(in, 4, &ttl) || !take_u16(in, &len) || !take(in, len, &options))
		return DNS_FORMERR;
	while (options.len)
		if (!take_u16(&options, &code) || !take_u16(&options, &len) || !take(&options, len, &value))
			return DNS_FORMERR;
	q->edns = true;
	q->udp_size = MAX(size, (uint16_t)512);
	q->dnssec_ok = (ttl.p[2] & 0x80) != 0;
	return ttl.p[1] ? DNS_BADVERS : DNS_NOERROR;
}

static enum dns_rcode parse_records(struct str in, const uint16_t counts[4], struct dns_query *q)
{
	enum dns_rcode question, opt = DNS_NOERROR;

	if (counts[0] != 1 || counts[1] || counts[2] || counts[3] > 1)
		return DNS_FORMERR;
	question = take_question(&in, q);
	if (question == DNS_FORMERR)
		return DNS_FORMERR;
	if (counts[3])
		opt = take_opt(&in, q);
	if (opt == DNS_FORMERR || in.len)
		return DNS_FORMERR;
	return opt != DNS_NOERROR ? opt : question;
}

int dns_query_parse(struct str packet, struct dns_query *ret)
{
	struct dns_query q = {.udp_size = 512};
	struct str in = packet;
	uint16_t counts[4];
	enum dns_rcode rcode;

	if (packet.len > DNS_QUERY_MAX || !take_u16(&in, &q.id) || !take_u16(&in, &q.flags))
		return -EBADMSG;
	for (size_t i = 0; i < 4; i++)
		if (!take_u16(&in, &counts[i]))
			return -EBADMSG;
	if (q.flags & FLAG_QR)
		return -EBADMSG;
	rcode = q.flags & OPCODE ? DNS_NOTIMP : parse_records(in, counts, &q);
	if (rcode != DNS_NOERROR)
		q.name[0] = '\0';
	if (rcode == DNS_FORMERR) {
		q.question_len = 0;
		q.edns = false;
	}
	*ret = q;
	return (int)rcode;
}

static void put16(struct buf *out, unsigned v)
{
	buf_append_byte(out, (uint8_t)(v >> 8));
	buf_append_byte(out, (uint8_t)v);
}

static void put32(struct buf *out, uint32_t v)
{
	put16(out, v >> 16);
	put16(out, v & 0xffff);
}

static void put_address(struct buf *out, const struct dns_a *a)
{
	put16(out, 0xc000 | HEADER_SIZE); /* the question's name */
	put16(out, DNS_A);
	put16(out, CLASS_IN);
	put32(out, a->ttl_s);
	put16(out, 4);
	put32(out, a->address);
}

static void put_opt(struct buf *out, const struct dns_query *q, enum dns_rcode rcode)
{
	buf_append_byte(out, 0);
	put16(out, DNS_OPT);
	put16(out, DNS_QUERY_MAX);
	put32(out, (uint32_t)rcode >> 4 << 24 | (q->dnssec_ok ? 0x8000U : 0));
	put16(out, 0);
}

int dns_answer(const struct dns_query *q, enum dns_rcode rcode, const struct dns_a *a, struct buf *out)
{
	size_t start = out->len;
	bool address = a && rcode == DNS_NOERROR && q->question_len;
	bool edns = q->edns;

	if (!buf_reserve(out, DNS_ANSWER_MAX))
		return -EMSGSIZE;
	put16(out, q->id);
	put16(out, FLAG_QR | FLAG_AA | FLAG_RA | (q->flags & (OPCODE | FLAG_RD | FLAG_CD)) | ((unsigned)rcode & 15));
	put16(out, q->question_len ? 1 : 0);
	put16(out, address ? 1 : 0);
	put16(out, 0);
	put16(out, edns ? 1 : 0);
	buf_append(out, q->question, q->question_len);
	if (address)
		put_address(out, a);
	if (edns)
		put_opt(out, q, rcode);
	if (out->failed) {
		out->len = start;
		return -EMSGSIZE;
	}
	return 0;
}

int dns_answer_tcp(const struct dns_query *q, enum dns_rcode rcode, const struct dns_a *a, struct buf *out)
{
	size_t start = out->len;
	int r;

	put16(out, 0);
	r = dns_answer(q, rcode, a, out);
	if (r) {
		out->len = start;
		return r;
	}
	size_t n = out->len - start - 2;
	out->data[start] = (uint8_t)(n >> 8);
	out->data[start + 1] = (uint8_t)n;
	return 0;
}

int dns_tcp_next(struct str in, struct str *ret_packet, size_t *ret_consumed)
{
	if (in.len < 2)
		return 0;
	size_t n = be16(in.p);
	if (n > DNS_QUERY_MAX || n < HEADER_SIZE)
		return -EMSGSIZE;
	if (in.len - 2 < n)
		return 0;
	*ret_packet = str_make(in.p + 2, n);
	*ret_consumed = n + 2;
	return 1;
}

const char *dns_type_format(uint16_t qtype, char ret[DNS_TYPE_TEXT_SIZE])
{
	static const struct {
		uint16_t type;
		const char *text;
	} names[] = {
		{DNS_A, "A"},       {DNS_NS, "NS"},   {DNS_CNAME, "CNAME"}, {DNS_SOA, "SOA"}, {DNS_PTR, "PTR"},
		{DNS_MX, "MX"},     {DNS_TXT, "TXT"}, {DNS_AAAA, "AAAA"},   {DNS_SRV, "SRV"}, {DNS_SVCB, "SVCB"},
		{DNS_HTTPS, "HTTPS"}, {DNS_ANY, "ANY"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (names[i].type == qtype) {
			snprintf(ret, DNS_TYPE_TEXT_SIZE, "%s", names[i].text);
			return ret;
		}
	}
	snprintf(ret, DNS_TYPE_TEXT_SIZE, "TYPE%u", qtype);
	return ret;
}
