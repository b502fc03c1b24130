/* The first byte chooses the end; the rest comes in two pieces, cut where it says. */
#include "codec/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ws_decoder d;
	struct ws_event e;

	if (size < 2)
		return 0;
	ws_decoder_init(&d, data[0] & 1, 4096);
	struct str in = str_make(data + 2, MIN((size_t)data[1], size - 2));
	while (ws_decode(&d, &in, &e) == 1)
		;
	in.len = (size_t)((const char *)data + size - in.p);
	while (ws_decode(&d, &in, &e) == 1)
		;
	ws_decoder_finish(&d);
	return 0;
}
