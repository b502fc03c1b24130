#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/if_ether.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "egress/drops.h"
#include "egress/names.h"
#include "egress/tally.h"

#define BASE 0x1c000000U
#define NOW ((int64_t)1700000000000)

static void drops_are_parsed_strictly(void **state)
{
	static const uint8_t udp[] = {0x45, 0,  0, 32, 0,  0,  0,  0, 64,   17,   0, 0,
				      10,   77, 0, 2,  45, 76, 10, 2, 0x30, 0x39, 1, 0xbb};
	uint8_t packet[sizeof udp];
	struct drop d;

	drop_parse(ETH_P_IP, str_make(udp, sizeof udp), &d);
	assert_int_equal(d.protocol, PROTO_UDP);
	assert_int_equal(d.port, 443);
	assert_string_equal(d.address, "45.76.10.2");
	for (size_t n = 0; n < sizeof udp; n++) {
		drop_parse(ETH_P_IP, str_make(udp, n), &d);
		assert_int_equal(d.port, 0);
	}
	memcpy(packet, udp, sizeof udp);
	packet[0] = 0x4f; /* a header longer than the packet */
	drop_parse(ETH_P_IP, str_make(packet, sizeof packet), &d);
	assert_string_equal(d.reason, "malformed IPv4");
	packet[0] = 0x45;
	packet[7] = 1; /* not the first fragment: no ports there */
	drop_parse(ETH_P_IP, str_make(packet, sizeof packet), &d);
	assert_int_equal(d.port, 0);
	drop_parse(ETH_P_IPV6, str_make(udp, sizeof udp), &d);
	assert_string_equal(d.address, "");
	drop_parse(ETH_P_ARP, STR_NONE, &d);
	assert_int_equal(d.protocol, PROTO_OTHER);
}

static void a_tally_has_bounded_rows(void **state)
{
	static struct tally t;
	char name[32];

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "n%u.example.com", i);
		tally_dns(&t, str_of(name), 1, "address");
		tally_drop(&t, PROTO_UDP, "45.76.10.2", (uint16_t)i, "x");
	}
	assert_int_equal(t.ndns, TALLY_DNS_ROWS);
	assert_int_equal(t.ndrops, TALLY_DROP_ROWS);
	assert_int_equal(t.dns[0].count, 1);
	assert_int_equal(t.dns[TALLY_DNS_ROWS - 1].count, 1000 - TALLY_DNS_ROWS + 1);
	assert_int_equal(t.drops[TALLY_DROP_ROWS - 1].count, 1000 - TALLY_DROP_ROWS + 1);
	tally_dns(&t, STR("n0.example.com"), 1, "address");
	tally_dns(&t, STR("n0.example.com"), 28, "address");
	assert_int_equal(t.dns[0].count, 2);
}

static struct names *open_names(int fd, unsigned prefix, int64_t now)
{
	struct names *n;

	assert_int_equal(names_open(fd, BASE, prefix, now, &n, NULL), 0);
	return n;
}

static void names_fill_and_recycle(void **state)
{
	int fd = memfd_create("names", MFD_CLOEXEC);
	struct names *n = open_names(fd, 18, NOW);
	struct str found;
	uint32_t a, b;
	char name[32];

	for (unsigned i = 0; i < NAMES_MAX; i++) {
		snprintf(name, sizeof name, "n%u.example.com", i);
		assert_int_equal(names_address(n, str_of(name), NOW + i, &a), 0);
		assert_true(names_in_range(n, a));
		assert_true(names_find(n, a, &found) >= 0 && str_eq(found, str_of(name)));
	}
	assert_int_equal(names_address(n, STR("more.example.com"), NOW + NAMES_MAX, &a), -16);
	assert_int_equal(names_address(n, STR("n0.example.com"), NOW + NAMES_MAX, &b), 0);
	names_hold(n, names_find(n, b + 1, &found), NOW + NAMES_MAX);
	/* n0 was asked again and n1 is held: after an hour n2 goes first */
	assert_int_equal(names_address(n, STR("more.example.com"), NOW + 2 + NAMES_REUSE_MS, &a), 0);
	assert_int_equal(a, b + 2);
	assert_int_equal(names_address(n, STR("most.example.com"), NOW + 2 + NAMES_REUSE_MS, &a), -16);
	names_close(n);

	n = open_names(fd, 18, NOW + 2 * NAMES_REUSE_MS);
	assert_int_equal(names_count(n), NAMES_MAX);
	assert_int_equal(names_address(n, STR("more.example.com"), NOW + 2 * NAMES_REUSE_MS, &a), 0);
	assert_int_equal(a, b + 2);
	names_close(n);
	n = open_names(fd, 15, NOW + 2 * NAMES_REUSE_MS); /* another range: another table */
	assert_int_equal(names_count(n), 0);
	assert_true(names_find(n, BASE + 1, &found) < 0);
	assert_true(names_find(n, BASE - 1, &found) < 0);
	assert_true(names_find(n, BASE + NAMES_MAX, &found) < 0);
	names_close(n);
	assert_int_equal(names_open(fd, BASE, 19, NOW, &n, NULL), -22);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drops_are_parsed_strictly),
		cmocka_unit_test(a_tally_has_bounded_rows),
		cmocka_unit_test(names_fill_and_recycle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
