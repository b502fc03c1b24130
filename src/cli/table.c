/* Tables. Where they go to a window they fit it: first the widest columns are cut, none below what it is of use at,
 * then whole columns are left out, the least important ones first. A line never wraps. */
#include <string.h>

#include "cli/out.h"
#include "cli/out_internal.h"

#define COLUMNS_MAX 32
#define GAP ((size_t)2)

void table_init(struct table *t, const struct column *columns, size_t n)
{
	*t = (struct table){.columns = columns, .n_columns = MIN(n, (size_t)COLUMNS_MAX)};
}

void table_cell(struct table *t, const char *text)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 64;
		t->cells = xrealloc(t->cells, t->cap * sizeof *t->cells);
	}
	t->cells[t->n++] = (struct cell){.text = text && *text ? out_escape(text) : xstrdup("-")};
}

void table_style(struct table *t, const char *style)
{
	if (t->n && *style)
		t->cells[t->n - 1].style = style;
}

static size_t least_of(const struct column *c)
{
	return c->least ? c->least : strlen(c->title);
}

static size_t total_width(const size_t *widths, size_t n)
{
	size_t total = 0;
	for (size_t i = 0; i < n; i++)
		total += widths[i] ? widths[i] + GAP : 0;
	return total > GAP ? total - GAP : 0;
}

/* Takes one column from the widest that may give one; at the last, any may. */
static bool narrow(const struct table *t, size_t *widths, bool last_resort)
{
	size_t best = COLUMNS_MAX;

	for (size_t i = 0; i < t->n_columns; i++)
		if (widths[i] > (last_resort ? 1 : least_of(&t->columns[i])) &&
		    (best == COLUMNS_MAX || widths[i] > widths[best]))
			best = i;
	if (best == COLUMNS_MAX)
		return false;
	widths[best]--;
	return true;
}

static bool leave_out(const struct table *t, size_t *natural)
{
	size_t worst = COLUMNS_MAX;

	for (size_t i = 0; i < t->n_columns; i++)
		if (natural[i] && t->columns[i].rank &&
		    (worst == COLUMNS_MAX || t->columns[i].rank > t->columns[worst].rank))
			worst = i;
	if (worst == COLUMNS_MAX)
		return false;
	natural[worst] = 0;
	return true;
}

/* A width of 0: not shown. */
static void fit(const struct table *t, size_t window, size_t widths[COLUMNS_MAX])
{
	size_t natural[COLUMNS_MAX] = {0};

	for (size_t i = 0; i < t->n_columns; i++)
		natural[i] = MAX(strlen(t->columns[i].title), (size_t)1);
	for (size_t i = 0; i < t->n; i++)
		natural[i % t->n_columns] = MAX(natural[i % t->n_columns], MIN(out_width(t->cells[i].text), window));
	do {
		memcpy(widths, natural, sizeof natural);
		while (total_width(widths, t->n_columns) > window && narrow(t, widths, false))
			;
	} while (total_width(widths, t->n_columns) > window && leave_out(t, natural));
	while (total_width(widths, t->n_columns) > window && narrow(t, widths, true))
		;
}

static void print_cell(const struct column *c, const char *text, const char *style, size_t width, bool last)
{
	_cleanup_free_ char *shown = out_cut(text, width);
	size_t pad = width - MIN(width, out_width(shown));

	if (c->right)
		printf("%*s", (int)pad, "");
	if (style)
		printf("\033[%sm%s\033[0m", style, shown);
	else
		fputs(shown, stdout);
	if (!last)
		printf("%*s", (int)((c->right ? 0 : pad) + GAP), "");
}

static void print_row(const struct table *t, const struct cell *row, const size_t *widths, size_t last, bool color)
{
	for (size_t i = 0; i < t->n_columns; i++)
		if (widths[i])
			print_cell(&t->columns[i], row ? row[i].text : t->columns[i].title,
			           !color ? NULL
			           : row  ? row[i].style
			                  : "1",
			           widths[i], i == last);
	putchar('\n');
}

void table_print(const struct table *t)
{
	size_t widths[COLUMNS_MAX], last = 0;
	bool color = out_color();

	fit(t, out_is_wide() ? SIZE_MAX : out_window(STDOUT_FILENO), widths);
	for (size_t i = 0; i < t->n_columns; i++)
		if (widths[i])
			last = i;
	print_row(t, NULL, widths, last, color);
	for (size_t i = 0; i + t->n_columns <= t->n; i += t->n_columns)
		print_row(t, t->cells + i, widths, last, color);
}

void table_finish(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i].text);
	free(t->cells);
	*t = (struct table){0};
}
