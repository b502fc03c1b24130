#include "api/metrics_text.h"

#include "base/text.h"

static void put_escaped(struct buf *out, struct str s, bool quotes)
{
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '\\')
			buf_append_z(out, "\\\\");
		else if (s.p[i] == '\n')
			buf_append_z(out, "\\n");
		else if (s.p[i] == '"' && quotes)
			buf_append_z(out, "\\\"");
		else
			buf_append_byte(out, (uint8_t)s.p[i]);
	}
}

void metrics_family(struct buf *out, const char *name, const char *type, const char *help)
{
	buf_printf(out, "# HELP %s ", name);
	put_escaped(out, str_of(help), false);
	buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

static void begin_sample(struct buf *out, const char *name, const struct metrics_label *labels)
{
	unsigned n = 0;

	buf_append_z(out, name);
	for (; labels && n < METRICS_LABELS_MAX && labels[n].name; n++) {
		buf_printf(out, "%s%s=\"", n ? "," : "{", labels[n].name);
		/* the format is UTF-8 */
		put_escaped(out, str_is_printable_utf8(labels[n].value) ? labels[n].value : STR("?"), true);
		buf_append_byte(out, '"');
	}
	buf_append_z(out, n ? "} " : " ");
}

void metrics_sample(struct buf *out, const char *name, const struct metrics_label labels[METRICS_LABELS_MAX], uint64_t value)
{
	begin_sample(out, name, labels);
	buf_printf(out, "%llu\n", (unsigned long long)value);
}

void metrics_sample_us(struct buf *out, const char *name, const struct metrics_label labels[METRICS_LABELS_MAX], uint64_t us)
{
	begin_sample(out, name, labels);
	buf_printf(out, "%llu.%06llu\n", (unsigned long long)us / 1000000, (unsigned long long)us % 1000000);
}

void metrics_single(struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
	metrics_family(out, name, type, help);
	metrics_sample(out, name, NULL, value);
}
