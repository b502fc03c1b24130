#include "cli/out.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <wchar.h>

#include "base/clock.h"
#include "base/text.h"

char *out_escape(const char *text)
{
	_cleanup_(buf_finish) struct buf b = {0};
	escape_terminal(str_of(text), &b);
	return buf_take_z(&b);
}

void out_line(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void out_json(const json_t *value)
{
	json_dumpf(value, stdout, isatty(STDOUT_FILENO) ? JSON_INDENT(2) | JSON_ENSURE_ASCII : JSON_COMPACT | JSON_ENSURE_ASCII);
	putchar('\n');
	fflush(stdout);
}

const char *get_string(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));
	return s ? s : "";
}

/* What the locale cannot tell counts one a byte. */
size_t out_width(const char *s)
{
	wchar_t wide[1024];
	size_t n = mbstowcs(wide, s, ARRAY_SIZE(wide));
	int w = n == (size_t)-1 || n == ARRAY_SIZE(wide) ? -1 : wcswidth(wide, n);
	return w < 0 ? strlen(s) : (size_t)w;
}

static size_t terminal_width(void)
{
	struct winsize w;
	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_col < 20)
		return SIZE_MAX;
	return w.ws_col;
}

void table_init(struct table *t, size_t columns, const char *const *titles)
{
	*t = (struct table){.columns = columns};
	for (size_t i = 0; i < columns; i++)
		table_cell(t, titles[i]);
}

void table_cell(struct table *t, const char *text)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 64;
		t->cells = xrealloc(t->cells, t->cap * sizeof *t->cells);
	}
	t->cells[t->n++] = text && *text ? out_escape(text) : xstrdup("-");
}

/* The last column may be longer than what is left of the line: cut at a character's start. */
static int cut(const char *s, size_t room)
{
	size_t n = strlen(s);
	if (room == SIZE_MAX || out_width(s) <= room)
		return (int)n;
	n = MIN(n, room);
	while (n && ((unsigned char)s[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

void table_print(const struct table *t)
{
	size_t widths[32] = {0}, total = terminal_width();

	for (size_t i = 0; i < t->n; i++)
		widths[i % t->columns] = MAX(widths[i % t->columns], out_width(t->cells[i]));
	for (size_t i = 0; i < t->n; i++) {
		size_t column = i % t->columns, used = 0;
		for (size_t k = 0; k < column; k++)
			used += widths[k] + 2;
		if (column + 1 == t->columns)
			printf("%.*s\n", cut(t->cells[i], total == SIZE_MAX ? total : total > used ? total - used : 1), t->cells[i]);
		else
			printf("%s%*s", t->cells[i], (int)(widths[column] + 2 - out_width(t->cells[i])), "");
	}
}

void table_finish(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct table){0};
}

char *out_age(const json_t *value)
{
	const char *text = json_string_value(value);
	int64_t then;

	if (!text || rfc3339_parse(str_of(text), &then))
		return xstrdup("-");
	int64_t s = (real_ms() - then) / 1000;
	if (s < 0 || s >= 86400) {
		char z[32];
		time_t t = (time_t)(then / 1000);
		struct tm tm;
		strftime(z, sizeof z, "%Y-%m-%d %H:%M", localtime_r(&t, &tm));
		return xstrdup(z);
	}
	if (s < 60)
		return xasprintf("%d s ago", (int)s);
	return s < 3600 ? xasprintf("%d min ago", (int)s / 60) : xasprintf("%d h ago", (int)s / 3600);
}

char *out_bytes(const json_t *value)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double v = json_number_value(value);
	size_t u = 0;

	if (!json_is_number(value))
		return xstrdup("-");
	for (; v >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1024;
	return xasprintf(u ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void progress_start(struct progress *p, const char *title)
{
	*p = (struct progress){.title = title, .start_ms = mono_ms()};
}

double progress_seconds(const struct progress *p)
{
	return (double)(mono_ms() - p->start_ms) / 1000;
}

void progress_tick(struct progress *p, const char *detail)
{
	uint64_t now = mono_ms();

	if (!isatty(STDERR_FILENO) || now - p->start_ms < 300 || now - p->drawn_ms < 100)
		return;
	_cleanup_free_ char *safe = out_escape(detail);
	fprintf(stderr, "\r\033[K%s %.1f s  %s", p->title, progress_seconds(p), safe);
	fflush(stderr);
	p->drawn_ms = now;
	p->shown = true;
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fprintf(stderr, "\r\033[K");
	p->shown = false;
}
