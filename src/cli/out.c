#include "cli/out.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <wchar.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/out_internal.h"

static bool be_quiet, be_wide;

void out_configure(bool quiet, bool wide)
{
	be_quiet = quiet;
	be_wide = wide;
}

bool out_is_quiet(void)
{
	return be_quiet;
}

bool out_is_wide(void)
{
	return be_wide;
}

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

void out_done(const char *fmt, ...)
{
	va_list ap;

	if (be_quiet)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void out_warn(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	_cleanup_free_ char *safe = out_escape(text);
	fflush(stdout);
	fprintf(stderr, "iron: %s\n", safe);
}

void out_json(const json_t *value)
{
	bool pretty = isatty(STDOUT_FILENO);
	json_dumpf(value, stdout, (pretty ? JSON_INDENT(2) : JSON_COMPACT) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	putchar('\n');
	fflush(stdout);
}

const char *get_string(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));
	return s ? s : "";
}

long long get_integer(const json_t *object, const char *name)
{
	return (long long)json_integer_value(json_object_get(object, name));
}

/* --- the terminal --- */

size_t out_window(int fd)
{
	struct winsize w;

	if (!isatty(fd))
		return SIZE_MAX;
	return ioctl(fd, TIOCGWINSZ, &w) || w.ws_col == 0 ? 80 : MAX(w.ws_col, 10);
}

bool out_color(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
	return isatty(STDOUT_FILENO) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

const char *out_state_style(const char *state)
{
	static const struct {
		const char *state, *style;
	} styles[] = {{"ready", "32"},    {"running", "32"},  {"ok", "32"},        {"allowed", "32"},
	              {"allow", "32"},    {"failed", "31"},   {"denied", "31"},    {"deny", "31"},
	              {"blocked", "31"},  {"warn", "33"},     {"queued", "33"},    {"creating", "33"},
	              {"starting", "33"}, {"stopping", "33"}, {"destroying", "33"}};

	for (size_t i = 0; i < ARRAY_SIZE(styles); i++)
		if (strcmp(styles[i].state, state) == 0)
			return styles[i].style;
	return "";
}

/* One character at *s: its width, and *s moved past it. A byte that the locale cannot tell counts one. */
static size_t next_width(const char **s)
{
	mbstate_t state = {0};
	wchar_t c;
	size_t n = mbrtowc(&c, *s, MB_CUR_MAX, &state);

	if (n == 0 || n > MB_CUR_MAX) {
		(*s)++;
		return 1;
	}
	*s += n;
	int w = wcwidth(c);
	return w < 0 ? 1 : (size_t)w;
}

size_t out_width(const char *s)
{
	size_t w = 0;
	while (*s)
		w += next_width(&s);
	return w;
}

char *out_cut(const char *text, size_t width)
{
	const char *s = text, *end = text;
	size_t w = 0;

	if (out_width(text) <= width)
		return xstrdup(text);
	while (*s) {
		w += next_width(&s);
		if (w + 1 > width)
			break;
		end = s;
	}
	const char *more = width == 0 ? "" : MB_CUR_MAX > 1 ? "…" : "~";
	return xasprintf("%.*s%s", (int)(end - text), text, more);
}

void out_field(const char *name, const char *value)
{
	if (!value || !*value)
		return;
	_cleanup_free_ char *n = out_escape(name), *v = out_escape(value);
	size_t room = out_window(STDOUT_FILENO), pad = MAX(out_width(n) + 1, MIN((size_t)18, room / 2));
	printf("%s%*s", n, (int)(pad - out_width(n)), "");
	/* a long value goes on below its own beginning */
	for (const char *p = v; room != SIZE_MAX && room > pad + 4 && out_width(p) > room - pad;) {
		const char *line = p, *blank = NULL;
		size_t w = 0;
		while (w + 2 <= room - pad) {
			if (*p == ' ')
				blank = p;
			w += next_width(&p);
		}
		if (blank && blank > line)
			p = blank;
		printf("%.*s\n%*s", (int)(p - line), line, (int)pad, "");
		p += strspn(p, " ");
		if (out_width(p) <= room - pad) {
			printf("%s\n", p);
			return;
		}
		memmove(v, p, strlen(p) + 1);
		p = v;
	}
	printf("%s\n", v);
}

/* --- values --- */

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

char *out_size(double v)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	size_t u = 0;

	for (; v >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1024;
	return xasprintf(u ? "%.1f %s" : "%.0f %s", v, units[u]);
}

char *out_bytes(const json_t *value)
{
	return json_is_number(value) ? out_size(json_number_value(value)) : xstrdup("-");
}

char *out_duration(uint64_t ms)
{
	unsigned long long s = ms / 1000;

	if (s < 60)
		return xasprintf("%.1f s", (double)ms / 1000);
	return s < 3600 ? xasprintf("%llu min %llu s", s / 60, s % 60)
	                : xasprintf("%llu h %llu min", s / 3600, s % 3600 / 60);
}

void out_each(const json_t *list, const char *field)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		_cleanup_free_ char *text = out_escape(get_string(item, field));
		out_line("%s", text);
	}
}

char *out_join(const json_t *list, const char *between)
{
	_cleanup_(buf_finish) struct buf b = {0};
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
	{
		if (i)
			buf_append_z(&b, between);
		if (json_is_integer(v))
			buf_printf(&b, "%lld", (long long)json_integer_value(v));
		else
			buf_append_z(&b, json_string_value(v) ? json_string_value(v) : "");
	}
	return buf_take_z(&b);
}
