#pragma once
/* What a person sees. Every string that came from the API may be a guest's: it is escaped before a terminal shows it. */
#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"

/* A table: columns are padded to what they hold; where standard output is a terminal the last one is cut to its width. */
struct table {
	size_t columns;
	char **cells; /* rows × columns, escaped, owned */
	size_t n, cap;
};

void table_init(struct table *t, size_t columns, const char *const *titles);
/* In order, column by column. NULL is "-". */
void table_cell(struct table *t, const char *text);
void table_print(const struct table *t);
void table_finish(struct table *t);

/* Columns that a UTF-8 string takes on a terminal. */
size_t out_width(const char *text);
/* Escaped, in a fresh string. */
char *out_escape(const char *text);
void out_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Pretty on a terminal, one line elsewhere. Control bytes are \u escapes, as JSON wants. */
void out_json(const json_t *value);

/* "3 min ago", "2026-01-31 12:00" in local time when older than a day; "-" for null. */
char *out_age(const json_t *rfc3339);
/* "1.4 MiB" */
char *out_bytes(const json_t *number);

/* String member or "". */
const char *get_string(const json_t *object, const char *name);

/* Progress on standard error while something lasts, only where that is a terminal: `title 3.2 s`, redrawn. */
struct progress {
	const char *title;
	uint64_t start_ms, drawn_ms;
	bool shown;
};
void progress_start(struct progress *p, const char *title);
void progress_tick(struct progress *p, const char *detail);
void progress_end(struct progress *p);
double progress_seconds(const struct progress *p);
