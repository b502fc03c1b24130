/* Any bytes: no fault, the end within them, and a verdict on a part that stands for the whole. */
#include <stdlib.h>

#include "codec/tls_hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tls_hello whole, part;
	struct str in = str_make(data, size);
	enum tls_hello_result r = tls_hello_parse(in, &whole);

	for (size_t n = 0; n < size; n += 1 + n / 8) {
		enum tls_hello_result early = tls_hello_parse(str_make(data, n), &part);
		if (early != TLS_HELLO_MORE && early != r)
			abort();
	}
	if (r != TLS_HELLO_OK)
		return 0;
	if (whole.end > size || (whole.sni[0] && !hostname_is_canonical(str_of(whole.sni))))
		abort();
	struct str names = str_make(whole.alpn, whole.alpn_len), name;
	while (tls_alpn_next(&names, &name))
		if (name.len == 0)
			abort();
	if (names.len)
		abort();
	return 0;
}
