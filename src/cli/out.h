#pragma once
/* What a person sees. Every string that came from the API may be a guest's: it is escaped before a terminal shows it. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/buf.h"

/* quiet: no progress, lists are bare names, and what says only that it was done is not said. wide: tables are not cut. */
void out_configure(bool quiet, bool wide);

/* --- tables: fitted to the window where standard output is a terminal, complete elsewhere --- */

struct column {
	const char *title;
	uint8_t least; /* columns it is not cut below; 0: what its title takes */
	uint8_t rank;  /* 0: always shown; those of the highest rank go first where the window is narrow */
	bool right;
};

struct table {
	const struct column *columns;
	size_t n_columns;
	struct cell {
		char *text; /* escaped, owned */
		const char *style;
	} *cells; /* rows × columns */
	size_t n, cap;
};

void table_init(struct table *t, const struct column *columns, size_t n);
/* In order, column by column. NULL and "" are "-". */
void table_cell(struct table *t, const char *text);
/* SGR parameters ("32": green; static) for the cell just given. */
void table_style(struct table *t, const char *style);
void table_print(const struct table *t);
void table_finish(struct table *t);

/* Columns that a UTF-8 string takes on a terminal. */
size_t out_width(const char *text);
/* At most `width` columns of it, ending in "…" where something is missing. Heap. */
char *out_cut(const char *text, size_t width);
/* Columns of the window on that descriptor; SIZE_MAX where it is no terminal. */
size_t out_window(int fd);
/* Escaped, in a fresh string. */
char *out_escape(const char *text);
/* Whether standard output takes colours: a terminal, and neither NO_COLOR nor TERM=dumb. */
bool out_color(void);
/* The SGR parameters for a VM's or command's state; "" for none. */
const char *out_state_style(const char *state);
void out_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* out_line, but not when quiet: for what says only that it was done. */
void out_done(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A line on standard error, escaped, also when quiet. */
void out_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "name   value", escaped; long values go on over several lines. Nothing when value is empty. */
void out_field(const char *name, const char *value);
/* Pretty on a terminal, one line elsewhere. Control bytes are \u escapes, as JSON wants. */
void out_json(const json_t *value);

/* "3 min ago", "2026-01-31 12:00" in local time when older than a day; "-" for null. */
char *out_age(const json_t *rfc3339);
/* A line for each object of the list: that field, escaped. */
void out_each(const json_t *list, const char *field);
/* "1.4 MiB"; "-" for what is no number. */
char *out_bytes(const json_t *number);
char *out_size(double bytes);
/* "1.2 s", "3 min 4 s", "2 h 5 min" */
char *out_duration(uint64_t ms);
/* Strings and numbers with `between` between them. */
char *out_join(const json_t *list, const char *between);

/* String member or "". */
const char *get_string(const json_t *object, const char *name);
/* Integer member or 0. */
long long get_integer(const json_t *object, const char *name);

/* --- progress, on standard error, while something lasts longer than a second: a line that is redrawn where that is a
 * terminal, elsewhere a plain line whenever the step changes; none when quiet --- */

struct progress {
	const char *title;
	uint64_t start_ms, drawn_ms;
	unsigned turn;
	bool shown;
	char step[128];
};
void progress_start(struct progress *p, const char *title);
/* detail: what it is at; NULL: as before. */
void progress_tick(struct progress *p, const char *detail);
void progress_end(struct progress *p);
double progress_seconds(const struct progress *p);
/* For bytes: how many of how many (0: not known), with a bar, the rate and the time left. Plain lines elsewhere, each ten
 * seconds. */
void progress_bytes(struct progress *p, uint64_t done, uint64_t total);
