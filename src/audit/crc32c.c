#include "audit/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78U /* reflected */
#define STEP(v) (((v) >> 1) ^ (((v) & 1) ? POLYNOMIAL : 0))

static uint32_t table_entry(uint32_t v)
{
	for (unsigned i = 0; i < 8; i++)
		v = STEP(v);
	return v;
}

uint32_t crc32c_table(uint32_t crc, const void *p, size_t n)
{
	static uint32_t table[256];
	const uint8_t *at = p;

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++)
			table[i] = table_entry(i);
	crc = ~crc;
	while (n--)
		crc = (crc >> 8) ^ table[(crc ^ *at++) & 0xff];
	return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *p, size_t n)
{
	const uint8_t *at = p;
	uint64_t c = ~crc, word;

	for (; n >= 8; n -= 8, at += 8) {
		memcpy(&word, at, 8);
		c = __builtin_ia32_crc32di(c, word);
	}
	while (n--)
		c = __builtin_ia32_crc32qi((uint32_t)c, *at++);
	return ~(uint32_t)c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_sse42(crc, p, n);
#endif
	return crc32c_table(crc, p, n);
}
