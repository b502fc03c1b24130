#include "vm/console.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/text.h"

#define READ_MAX 16384

struct console {
	int fd;
	struct event *readable;
	uint8_t ring[CONSOLE_KEPT];
	uint64_t total; /* bytes that ever came */
};

static void keep(struct console *c, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		c->ring[(c->total + i) % CONSOLE_KEPT] = p[i];
	c->total += n;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct console *c = arg;
	uint8_t space[READ_MAX];
	ssize_t n = recv(fd, space, sizeof space, MSG_DONTWAIT);

	if (n > 0)
		keep(c, space, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		event_del(c->readable);
}

struct console *console_create(struct event_base *base, int fd)
{
	struct console *c = xcalloc(1, sizeof *c);

	c->fd = fd;
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
	if (!c->readable || event_add(c->readable, NULL)) {
		console_destroy(c);
		return NULL;
	}
	return c;
}

void console_destroy(struct console *c)
{
	if (!c)
		return;
	if (c->readable)
		event_free(c->readable);
	closep(&c->fd);
	free(c);
}

int console_copy(const struct console *c, struct buf *out)
{
	size_t n = (size_t)MIN(c->total, CONSOLE_KEPT), start = (size_t)((c->total - n) % CONSOLE_KEPT);
	size_t first = MIN(n, CONSOLE_KEPT - start);

	int r = buf_append(out, c->ring + start, first);
	return r ? r : buf_append(out, c->ring, n - first);
}

int console_last_line(const struct console *c, size_t max, struct buf *out)
{
	_cleanup_(buf_finish) struct buf all = {0}, text = {0};

	int r = console_copy(c, &all);
	if (r)
		return r;
	struct str line = str_trim(buf_str(&all), "\r\n\t ");
	for (size_t i = line.len; i > 0; i--) {
		if (line.p[i - 1] == '\n') {
			line = str_make(line.p + i, line.len - i);
			break;
		}
	}
	line.len = MIN(line.len, max);
	r = escape_terminal(line, &text);
	if (r)
		return r;
	return buf_append(out, text.data, MIN(text.len, max));
}
