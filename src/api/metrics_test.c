#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/metrics_text.h"

static void assert_text(struct buf *out, const char *expected)
{
	assert_false(out->failed);
	assert_int_equal(out->len, strlen(expected));
	assert_memory_equal(out->data, expected, out->len);
}

static void test_a_family(void **state)
{
	_cleanup_(buf_finish) struct buf out = {0};
	const struct metrics_label labels[METRICS_LABELS_MAX] = {{"op", STR("vm_get")}, {"le", STR("+Inf")}};

	metrics_family(&out, "iron_x", "histogram", "What it is.");
	metrics_sample(&out, "iron_x_bucket", labels, UINT64_MAX);
	metrics_sample_us(&out, "iron_x_sum", NULL, 1000001);
	metrics_single(&out, "iron_y", "gauge", "Y.", 0);
	assert_text(&out, "# HELP iron_x What it is.\n# TYPE iron_x histogram\n"
			  "iron_x_bucket{op=\"vm_get\",le=\"+Inf\"} 18446744073709551615\niron_x_sum 1.000001\n"
			  "# HELP iron_y Y.\n# TYPE iron_y gauge\niron_y 0\n");
}

/* A quote is escaped in a label, not in help; a value that is no text cannot end its line. */
static void test_escapes(void **state)
{
	_cleanup_(buf_finish) struct buf out = {0};
	const struct metrics_label quoted[METRICS_LABELS_MAX] = {{"a", STR("x\"y\\z")}};
	const struct metrics_label bad[METRICS_LABELS_MAX] = {{"a", STR("x\xff")}, {"b", STR("1\niron_up 1")}};

	metrics_family(&out, "n", "gauge", "a \"b\" \\ c\nd");
	metrics_sample(&out, "n", quoted, 1);
	metrics_sample(&out, "n", bad, 2);
	assert_text(&out, "# HELP n a \"b\" \\\\ c\\nd\n# TYPE n gauge\nn{a=\"x\\\"y\\\\z\"} 1\nn{a=\"?\",b=\"?\"} 2\n");
}

static void test_more_labels_than_there_may_be(void **state)
{
	_cleanup_(buf_finish) struct buf out = {0};
	const struct metrics_label labels[METRICS_LABELS_MAX] = {{"a", STR("1")}, {"b", STR("2")}, {"c", STR("3")}, {"d", STR("4")}};

	metrics_sample(&out, "n", labels, 5);
	assert_text(&out, "n{a=\"1\",b=\"2\",c=\"3\",d=\"4\"} 5\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_family),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_more_labels_than_there_may_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
