/* Any bytes as a segment: header and records decode or are refused; what decodes encodes to the same bytes; decoding ends. */
#include <stdlib.h>

#include "audit/segment.h"
#include "codec/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_header(const uint8_t *data)
{
	struct segment_header h;
	uint8_t again[SEGMENT_HEADER_SIZE];

	if (segment_header_decode(data, &h))
		return;
	segment_header_encode(&h, again);
	if (memcmp(again, data, 40) != 0)
		abort();
}

static void check_record(struct str in, const struct segment_record *r, int size)
{
	_cleanup_(buf_finish) struct buf again = {0};
	_Alignas(16) char space[MSG_RECORD_MAX];
	const struct wire_type *type = record_wire(r->type);

	if (segment_record_encode(r, &again) || again.len != (size_t)size || memcmp(again.data, in.p, again.len) != 0)
		abort();
	if (type)
		wire_decode(type, r->payload, space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str in = str_make(data, size);
	struct segment_record r;
	uint64_t number;
	int n;

	segment_name_parse(in, &number);
	if (size >= SEGMENT_HEADER_SIZE)
		check_header(data);
	while ((n = segment_record_decode(in, &r)) > 0) {
		check_record(in, &r, n);
		in = str_make(in.p + n, in.len - (size_t)n);
	}
	return 0;
}
