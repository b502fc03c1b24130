#include "base/error.h"

#include <stdio.h>
#include <string.h>

int error_set(struct error *e, int code, const char *fmt, ...)
{
	if (e && !e->code) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(e->text, sizeof e->text, fmt, ap);
		va_end(ap);
		e->code = code;
	}
	return code;
}

void error_prefix(struct error *e, const char *fmt, ...)
{
	if (!e)
		return;

	char head[256], all[sizeof head + sizeof e->text + 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(head, sizeof head, fmt, ap);
	va_end(ap);
	snprintf(all, sizeof all, "%s: %s", head, e->text);
	all[sizeof e->text - 1] = '\0';
	memcpy(e->text, all, sizeof e->text);
}
