#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/image_build_impl.h"
#include "os/fdutil.h"

int build_data_copy(int from, int to, off_t size)
{
	off_t end;

	if (ftruncate(to, size) < 0)
		return -errno;
	for (off_t at = 0;; at = end) {
		if ((at = lseek(from, at, SEEK_DATA)) < 0)
			return errno == ENXIO ? 0 : -errno;
		if (at >= size)
			return 0;
		if ((end = lseek(from, at, SEEK_HOLE)) < 0 || lseek(to, at, SEEK_SET) < 0)
			return -errno;
		for (off_t done = at; done < end;) {
			ssize_t n = sendfile(to, from, &done, (size_t)MIN(end - done, (off_t)1 << 30));
			if (n <= 0)
				return n < 0 ? -errno : -EIO;
		}
	}
}

int build_file_copy(const char *from_path, const char *to_path, mode_t mode, uint64_t *bytes, struct error *reterr)
{
	struct stat st;
	_cleanup_close_ int from = open(from_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (from < 0 || fstat(from, &st) < 0)
		return error_set(reterr, -errno, "%s: %s", from_path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(reterr, -EBADMSG, "%s is not a file", from_path);
	_cleanup_close_ int to = open(to_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (to < 0)
		return error_set(reterr, -errno, "%s: %s", to_path, strerror(errno));
	int r = build_data_copy(from, to, st.st_size);
	if (r == 0 && (fchmod(to, mode) < 0 || fsync(to) < 0 || fstat(to, &st) < 0))
		r = -errno;
	if (r < 0)
		return error_set(reterr, r, "%s: %s", to_path, strerror(-r));
	*bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

int build_directory_make(const char *path, mode_t mode, uid_t uid, gid_t gid, struct error *reterr)
{
	int r = dir_remove(path);

	if (r == 0)
		r = dir_make(path, mode, uid, gid);
	return r < 0 ? error_set(reterr, r, "%s: %s", path, strerror(-r)) : 0;
}
