#include "agent/port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

#include "agent/file.h"

#define SYS_PORTS "/sys/class/virtio-ports"

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

static bool has_name(const char *entry, const char *name)
{
	_cleanup_free_ char *path = xasprintf(SYS_PORTS "/%s/name", entry);
	_cleanup_(buf_finish) struct buf text = BUF_MAX(65536);

	return file_read(path, &text) == 0 && str_eq(str_trim(buf_str(&text), "\n"), str_of(name));
}

static int open_device(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* Without udev there is no link by name: sysfs says which device it is. */
int port_open(const char *name)
{
	_cleanup_free_ char *by_name = xasprintf("/dev/virtio-ports/%s", name);
	int fd = open_device(by_name);
	if (fd != -ENOENT)
		return fd;

	_cleanup_(closedirp) DIR *d = opendir(SYS_PORTS);
	if (!d)
		return -errno;
	for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
		if (e->d_name[0] == '.' || !has_name(e->d_name, name))
			continue;
		_cleanup_free_ char *path = xasprintf("/dev/%s", e->d_name);
		return open_device(path);
	}
	return -ENOENT;
}
