/* Any packet: what is answered is bounded, repeats the question, and is itself no query to anyone. */
#include <errno.h>
#include <stdlib.h>

#include "codec/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(buf_finish) struct buf out = {0};
	struct dns_a a = {.address = 0x1c000001, .ttl_s = 60};
	struct str in = str_make(data, size), packet;
	struct dns_query q, again;
	size_t n;

	if (dns_tcp_next(in, &packet, &n) == 1 && (n > size || packet.len != n - 2))
		abort();
	int r = dns_query_parse(in, &q);
	if (r < 0)
		return 0;
	if ((r == 0) != (q.name[0] != '\0') || (q.name[0] && !hostname_is_canonical(str_of(q.name))))
		abort();
	if (dns_answer(&q, (enum dns_rcode)r, &a, &out) || out.len > DNS_ANSWER_MAX)
		abort();
	if (q.question_len && memcmp(out.data + 12, q.question, q.question_len) != 0)
		abort();
	if (dns_query_parse(buf_str(&out), &again) != -EBADMSG)
		abort();
	return 0;
}
