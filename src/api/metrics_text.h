#pragma once
/* Prometheus' text exposition format, version 0.0.4. A family is begun once, then its samples follow; whether all of it
 * fitted is buf.failed. */
#include <stdint.h>

#include "base/buf.h"

#define METRICS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* # HELP and # TYPE. name: [a-zA-Z_:][a-zA-Z0-9_:]*, of the program's own. */
void metrics_family(struct buf *out, const char *name, const char *type, const char *help);

/* Labels in pairs; a name of NULL: no more. Values are any bytes: escaped. */
struct metrics_label {
	const char *name;
	struct str value;
};
#define METRICS_LABELS_MAX 4
void metrics_sample(struct buf *out, const char *name, const struct metrics_label labels[METRICS_LABELS_MAX], uint64_t value);
/* Microseconds, in seconds. */
void metrics_sample_us(struct buf *out, const char *name, const struct metrics_label labels[METRICS_LABELS_MAX], uint64_t us);
/* A family of one sample without labels. */
void metrics_single(struct buf *out, const char *name, const char *type, const char *help, uint64_t value);
