/* A pattern and a path, with a newline between: what a pattern allows it also denies, "/x/" and a star at its end holds
 * what is below "/x", and spelling a path in escapes changes neither. */
#include <stdlib.h>

#include "base/buf.h"
#include "policy/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
	if (!ok)
		abort();
}

/* Every letter and digit outside an escape as an escape. */
static void spell_out(struct str path, struct buf *out)
{
	for (size_t i = 0; i < path.len; i++) {
		char c = path.p[i];
		if (c == '%' && path.len - i >= 3) {
			buf_append(out, path.p + i, 3);
			i += 2;
		} else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
			buf_printf(out, "%%%02x", (unsigned char)c);
		} else {
			buf_append_byte(out, (uint8_t)c);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(buf_finish) struct buf spelled = {0};
	struct str text = str_make(data, size), pattern;

	if (!str_split(&text, '\n', &pattern) || !text.p || path_pattern_check(pattern, NULL))
		return 0;
	struct path path = path_examine(text), self = path_examine(pattern);
	bool allowed = path_allow_matches(pattern, &path), denied = path_deny_matches(pattern, &path);
	need(!allowed || denied);
	need(!self.dubious && path_deny_matches(pattern, &self));
	if (path.dubious)
		return 0;
	spell_out(text, &spelled);
	struct path other = path_examine(buf_str(&spelled));
	if (spelled.len <= 8192)
		need(path_allow_matches(pattern, &other) == allowed && path_deny_matches(pattern, &other) == denied);
	return 0;
}
