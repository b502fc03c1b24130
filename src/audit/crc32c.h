#pragma once
/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), by the processor's instruction where there is one. */
#include <stddef.h>
#include <stdint.h>

/* crc: 0, or the result for the bytes before these. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The same by table, for a test against the instruction. */
uint32_t crc32c_table(uint32_t crc, const void *p, size_t n);
