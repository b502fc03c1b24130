/* WHATWG HTML, 9.2.6: lines end with CR, LF or both; a blank one sends the event. */
#include "cli/sse.h"

#include <errno.h>
#include <stdio.h>

static void put(char *to, size_t size, struct str value)
{
	snprintf(to, size, "%.*s", STR_ARG(value));
}

static int dispatch(struct sse *s, sse_fn *on_event, void *user)
{
	struct str data = buf_str(&s->data);
	int r = 0;

	if (data.len)
		r = on_event(user, *s->name ? s->name : "message", str_make(data.p, data.len - 1), s->id);
	buf_clear(&s->data);
	s->name[0] = '\0';
	return r;
}

static int on_line(struct sse *s, struct str line, sse_fn *on_event, void *user)
{
	struct str name, value = line;

	if (line.len == 0)
		return dispatch(s, on_event, user);
	str_split(&value, ':', &name);
	if (value.len && value.p[0] == ' ')
		value = str_make(value.p + 1, value.len - 1);
	if (str_eq(name, STR("data"))) {
		int r = buf_append_str(&s->data, value);
		return r ? r : buf_append_byte(&s->data, '\n');
	}
	if (str_eq(name, STR("event")))
		put(s->name, sizeof s->name, value);
	else if (str_eq(name, STR("id")))
		put(s->id, sizeof s->id, value);
	return 0;
}

int sse_feed(struct sse *s, struct str bytes, sse_fn *on_event, void *user)
{
	s->line.max = s->data.max = SSE_EVENT_MAX;
	for (size_t i = 0; i < bytes.len;) {
		size_t n = 0;
		if (s->skip_lf && bytes.p[i] == '\n') {
			s->skip_lf = false;
			i++;
			continue;
		}
		s->skip_lf = false;
		while (i + n < bytes.len && bytes.p[i + n] != '\n' && bytes.p[i + n] != '\r')
			n++;
		if (buf_append(&s->line, bytes.p + i, n))
			return -EMSGSIZE;
		i += n;
		if (i == bytes.len)
			return 0;
		s->skip_lf = bytes.p[i++] == '\r';
		int r = on_line(s, buf_str(&s->line), on_event, user);
		buf_clear(&s->line);
		if (r)
			return r;
	}
	return 0;
}

void sse_finish(struct sse *s)
{
	buf_finish(&s->line);
	buf_finish(&s->data);
}
