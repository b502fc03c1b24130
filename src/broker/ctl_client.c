#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "broker/ctl.h"
#include "os/fdutil.h"

static int send_words(int fd, const char *const *words)
{
	_cleanup_(buf_finish) struct buf b = {0};

	for (size_t i = 0; words[i]; i++)
		buf_printf(&b, "%s%s", i ? "\t" : "", words[i]);
	buf_append_byte(&b, '\n');
	return send(fd, b.data, b.len, MSG_NOSIGNAL) == (ssize_t)b.len ? 0 : -EIO;
}

int ctl_request(const char *path, const char *const *words, void (*print)(const char *line, void *user), void *user,
		struct error *reterr)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int fd, r = unix_connect(path, &fd);

	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	r = send_words(fd, words);
	f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return error_set(reterr, -ENOMEM, "out of memory");
	}
	while (r == 0 && (n = getline(&line, &size, f)) > 0) {
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		if (strcmp(line, "ok") == 0)
			return 0;
		if (strncmp(line, "fail ", 5) == 0)
			return error_set(reterr, -EREMOTEIO, "%s", line + 5);
		if (strncmp(line, "text ", 5) == 0)
			print(line + 5, user);
	}
	return error_set(reterr, -EPIPE, "irond ended without an answer; its log says why");
}
