/* Any bytes as a header and as entries: no fault, and what is accepted lies within the file. */
#include <stdlib.h>

#include "codec/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qcow2 q;
	struct error e = {0};
	enum qcow2_kind kind;
	uint64_t offset;

	if (qcow2_header_decode(str_make(data, size), size, &q, &e) == 0 &&
	    (q.size > QCOW2_MAX_BYTES || q.l1_offset + (uint64_t)q.l1_entries * 8 > size ||
	     (uint64_t)q.l1_entries * QCOW2_TABLE_COVERS < q.size))
		abort();
	for (size_t i = 0; i + 8 <= size; i += 8) {
		if (qcow2_l1_decode(data + i, size, &offset) == 0 && offset && offset + QCOW2_CLUSTER > size)
			abort();
		if (qcow2_l2_decode(data + i, size, &kind, &offset) == 0 && offset >= size)
			abort();
	}
	return 0;
}
