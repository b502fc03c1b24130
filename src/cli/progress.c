#include <string.h>

#include "base/clock.h"
#include "cli/out.h"
#include "cli/out_internal.h"

#define SHOWN_AFTER_MS 700
#define REDRAWN_MS 100
#define PLAIN_AFTER_MS 1000
#define PLAIN_EACH_MS 10000
#define TEXT_COLUMNS 64 /* what stands beside the bar */
#define BAR_MAX ((size_t)30)

void progress_start(struct progress *p, const char *title)
{
	*p = (struct progress){.title = title, .start_ms = mono_ms()};
}

double progress_seconds(const struct progress *p)
{
	return (double)(mono_ms() - p->start_ms) / 1000;
}

/* One line that stays one: cut to the window. */
static void draw(struct progress *p, const char *text)
{
	size_t window = out_window(STDERR_FILENO);
	_cleanup_free_ char *shown = out_cut(text, window - 1);

	fprintf(stderr, "\r\033[K%s", shown);
	fflush(stderr);
	p->shown = true;
}

void progress_tick(struct progress *p, const char *detail)
{
	static const char *const turns[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
	static const char plain[] = "|/-\\";
	uint64_t now = mono_ms(), age = now - p->start_ms;
	bool terminal = isatty(STDERR_FILENO), changed = false;

	if (out_is_quiet())
		return;
	if (detail) {
		_cleanup_free_ char *safe = out_escape(detail);
		changed = strncmp(safe, p->step, sizeof p->step - 1) != 0;
		if (changed)
			snprintf(p->step, sizeof p->step, "%s", safe);
	}
	if (!terminal) {
		/* what changed before a second was over is said then */
		if (age >= PLAIN_AFTER_MS && (changed || !p->shown)) {
			fprintf(stderr, "iron: %s%s%s\n", p->title, *p->step ? ": " : "", p->step);
			p->shown = true;
		}
		return;
	}
	if (age < SHOWN_AFTER_MS || now - p->drawn_ms < REDRAWN_MS)
		return;
	char one[2] = {plain[p->turn % 4], 0};
	_cleanup_free_ char *text =
	        xasprintf("%s %s %.1f s  %s", MB_CUR_MAX > 1 ? turns[p->turn % ARRAY_SIZE(turns)] : one, p->title,
	                  progress_seconds(p), p->step);
	p->turn++;
	draw(p, text);
	p->drawn_ms = now;
}

/* As wide as there is room for; nothing where there is not enough. */
static char *bar(uint64_t done, uint64_t total)
{
	_cleanup_(buf_finish) struct buf b = {0};
	size_t window = out_window(STDERR_FILENO),
	       columns = window > TEXT_COLUMNS + 8 ? MIN(window - TEXT_COLUMNS, BAR_MAX) : 0;
	size_t full = total ? (size_t)((double)done / (double)total * (double)columns) : 0;

	if (columns == 0 || total == 0)
		return xstrdup("");
	buf_append_byte(&b, '[');
	for (size_t i = 0; i < columns; i++)
		buf_append_byte(&b, i < full ? '=' : i == full ? '>' : ' ');
	buf_append_z(&b, "] ");
	return buf_take_z(&b);
}

void progress_bytes(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now = mono_ms(), age = now - p->start_ms;
	bool terminal = isatty(STDERR_FILENO);

	if (out_is_quiet() || age < (terminal ? SHOWN_AFTER_MS : PLAIN_EACH_MS) ||
	    now - p->drawn_ms < (terminal ? REDRAWN_MS : PLAIN_EACH_MS))
		return;
	done = total ? MIN(done, total) : done;
	double rate = (double)done * 1000 / (double)age;
	_cleanup_free_ char *got = out_size((double)done), *all = out_size((double)total), *speed = out_size(rate);
	_cleanup_free_ char *left =
	        total && rate > 0 ? out_duration((uint64_t)((double)(total - done) / rate * 1000)) : NULL;
	_cleanup_free_ char *gauge = terminal ? bar(done, total) : xstrdup("");
	_cleanup_free_ char *text =
	        total ? xasprintf("%s %s%3d%%  %s of %s  %s/s  %s left", p->title, gauge,
	                          (int)((double)done / (double)total * 100), got, all, speed, left ? left : "?")
	              : xasprintf("%s %s  %s/s", p->title, got, speed);
	if (terminal)
		draw(p, text);
	else
		fprintf(stderr, "iron: %s\n", text);
	p->drawn_ms = now;
}

void progress_end(struct progress *p)
{
	if (p->shown && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
	p->shown = false;
}
