#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/id.h"

static const char *log_role = "iron";
static enum log_level log_min = LOG_LEVEL_INFO;

void log_init(const char *role, enum log_level min)
{
	log_role = role;
	log_min = min;
}

void log_write(enum log_level level, const char *msg, const char *kv, ...)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	char line[2048], ts[RFC3339_SIZE];

	if (level < log_min)
		return;
	rfc3339_format(real_ms(), ts);
	int n = snprintf(line, sizeof line, "ts=%s level=%s role=%s pid=%d msg=%s", ts, names[level], log_role, (int)getpid(),
			 log_quote(msg));
	if (kv && n > 0 && (size_t)n < sizeof line - 2) {
		line[n++] = ' ';
		va_list ap;
		va_start(ap, kv);
		int m = vsnprintf(line + n, sizeof line - (size_t)n, kv, ap);
		va_end(ap);
		n = m < 0 ? n : n + m;
	}
	if ((size_t)n > sizeof line - 2)
		n = sizeof line - 2;
	for (int i = 0; i < n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	(void)!write(STDERR_FILENO, line, (size_t)n);
}

const char *log_quote(const char *s)
{
	static _Thread_local char ring[8][256];
	static _Thread_local unsigned next;
	char *o = ring[next++ % 8];
	size_t n = 0;

	if (!s)
		s = "";
	o[n++] = '"';
	for (; *s && n < sizeof ring[0] - 9; s++) {
		unsigned char c = (unsigned char)*s;
		if (c == '"' || c == '\\') {
			o[n++] = '\\';
			o[n++] = (char)c;
		} else if (c < 0x20 || c >= 0x7f) {
			n += (size_t)snprintf(o + n, 5, "\\x%02x", c);
		} else {
			o[n++] = (char)c;
		}
	}
	if (*s) {
		memcpy(o + n, "...", 3);
		n += 3;
	}
	o[n++] = '"';
	o[n] = '\0';
	return o;
}

const char *log_id(const char *prefix, uint64_t id)
{
	static _Thread_local char ring[8][ID_TEXT_SIZE];
	static _Thread_local unsigned next;
	char *o = ring[next++ % 8];

	id_format(prefix, id, o);
	return o;
}

int log_allowed(struct log_limit *l, unsigned burst)
{
	uint64_t now = mono_ms() / 1000;

	if (now != l->second) {
		if (l->suppressed)
			log_write(LOG_LEVEL_WARN, "lines suppressed", "count=%u", l->suppressed);
		*l = (struct log_limit){.second = now};
	}
	if (l->count++ < burst)
		return 1;
	l->suppressed++;
	return 0;
}
