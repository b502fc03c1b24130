/* Any datagram: decodes without a fault, and what decoded encodes back to the same bytes. */
#include <stdlib.h>

#include "codec/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_Alignas(16) char record[MSG_RECORD_MAX];
	_cleanup_(buf_finish) struct buf again = {0};
	const struct msg_info *info;
	uint32_t txn;

	if (msg_decode(str_make(data, size), &info, &txn, record))
		return 0;
	if (msg_encode(info->type, txn, record, &again) || !str_eq(buf_str(&again), str_make(data, size)))
		abort();
	return 0;
}
