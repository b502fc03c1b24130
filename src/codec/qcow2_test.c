#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "codec/qcow2.h"

#define FILE_BYTES (8 * QCOW2_CLUSTER)

static void put32(uint8_t *head, size_t at, uint32_t v)
{
	v = htobe32(v);
	memcpy(head + at, &v, sizeof v);
}

static void put64(uint8_t *head, size_t at, uint64_t v)
{
	v = htobe64(v);
	memcpy(head + at, &v, sizeof v);
}

static void head_make(uint8_t head[QCOW2_HEADER_BYTES])
{
	memset(head, 0, QCOW2_HEADER_BYTES);
	put32(head, 0, 0x514649fb);
	put32(head, 4, 3);
	put32(head, 20, 16);
	put64(head, 24, (uint64_t)4 << 30);
	put32(head, 36, 8);
	put64(head, 40, 3 * QCOW2_CLUSTER);
	put32(head, 100, 104);
}

static int decode(const uint8_t *head, struct qcow2 *ret)
{
	return qcow2_header_decode(str_make(head, QCOW2_HEADER_BYTES), FILE_BYTES, ret, NULL);
}

static void what_overlay_writes(void **state)
{
	uint8_t head[QCOW2_HEADER_BYTES];
	struct qcow2 q;

	head_make(head);
	assert_int_equal(decode(head, &q), 0);
	assert_int_equal(q.size, (uint64_t)4 << 30);
	assert_int_equal(q.l1_entries, 8);
	assert_int_equal(q.l1_offset, 3 * QCOW2_CLUSTER);
}

static void what_is_refused(void **state)
{
	static const struct {
		size_t at;
		int bytes;
		uint64_t value;
	} bad[] = {
		{0, 4, 0x514649fa},       /* magic */
		{4, 4, 2},                /* version */
		{8, 8, 104},              /* backing file */
		{16, 4, 9},
		{20, 4, 12},              /* cluster size */
		{24, 8, 0},               /* disk size */
		{24, 8, UINT64_MAX - 511},
		{24, 8, 1000},
		{32, 4, 1},               /* encryption */
		{36, 4, 7},               /* fewer entries than the disk needs */
		{40, 8, 0},               /* L1 table */
		{40, 8, 3 * QCOW2_CLUSTER + 8},
		{40, 8, FILE_BYTES},
		{40, 8, UINT64_MAX - QCOW2_CLUSTER + 1},
		{72, 8, 1},               /* dirty, corrupt, external data file, compression type, extended L2 */
		{72, 8, 2},
		{72, 8, 4},
		{72, 8, 8},
		{72, 8, 16},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		uint8_t head[QCOW2_HEADER_BYTES];
		struct qcow2 q;
		head_make(head);
		if (bad[i].bytes == 4)
			put32(head, bad[i].at, (uint32_t)bad[i].value);
		else
			put64(head, bad[i].at, bad[i].value);
		if (decode(head, &q) != -EBADMSG)
			fail_msg("case %zu is accepted", i);
	}
}

static int l1(uint64_t v, uint64_t *ret)
{
	uint8_t entry[8];

	put64(entry, 0, v);
	return qcow2_l1_decode(entry, FILE_BYTES, ret);
}

static int l2(uint64_t v, enum qcow2_kind *ret, uint64_t *ret_offset)
{
	uint8_t entry[8];

	put64(entry, 0, v);
	return qcow2_l2_decode(entry, FILE_BYTES + 1000, ret, ret_offset);
}

static void entries(void **state)
{
	const uint64_t copied = 1ULL << 63;
	enum qcow2_kind kind;
	uint64_t offset;

	assert_true(l1(0, &offset) == 0 && offset == 0);
	assert_true(l1(copied | 4 * QCOW2_CLUSTER, &offset) == 0 && offset == 4 * QCOW2_CLUSTER);
	assert_int_equal(l1(copied | FILE_BYTES, &offset), -EBADMSG);
	assert_int_equal(l1(4 * QCOW2_CLUSTER + 512, &offset), -EBADMSG);
	assert_int_equal(l1(4 * QCOW2_CLUSTER | 1, &offset), -EBADMSG);
	assert_int_equal(l1(4 * QCOW2_CLUSTER | 1ULL << 62, &offset), -EBADMSG);

	assert_true(l2(0, &kind, &offset) == 0 && kind == QCOW2_BASE);
	assert_true(l2(1, &kind, &offset) == 0 && kind == QCOW2_ZERO);
	assert_true(l2(copied | 5 * QCOW2_CLUSTER | 1, &kind, &offset) == 0 && kind == QCOW2_ZERO && offset == 0);
	assert_true(l2(copied | 5 * QCOW2_CLUSTER, &kind, &offset) == 0 && kind == QCOW2_DATA && offset == 5 * QCOW2_CLUSTER);
	/* the last cluster may be cut short, one behind it may not begin */
	assert_true(l2(FILE_BYTES, &kind, &offset) == 0 && kind == QCOW2_DATA);
	assert_int_equal(l2(FILE_BYTES + QCOW2_CLUSTER, &kind, &offset), -EBADMSG);
	assert_int_equal(l2(1ULL << 62 | 5 * QCOW2_CLUSTER, &kind, &offset), -EBADMSG);
	assert_int_equal(l2(5 * QCOW2_CLUSTER + 512, &kind, &offset), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_overlay_writes),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(entries),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
