#include "os/proc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "os/fdutil.h"

#define FILE_MAX 8192
#define START_FIELD 22 /* of stat; the second is a name in brackets, which may hold anything */

static int read_of(pid_t pid, const char *file, struct buf *out)
{
	char path[40];

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int r = file_read(path, FILE_MAX, out);
	return r == -ESRCH ? -ENOENT : r;
}

int proc_start_time(pid_t pid, uint64_t *ret)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str rest, word = STR_NONE;
	int r = read_of(pid, "stat", &b);

	if (r < 0)
		return r;
	const char *end = memrchr(b.data, ')', b.len);
	if (!end)
		return -EBADMSG;
	rest = str_make(end + 1, b.len - (size_t)(end + 1 - (const char *)b.data));
	for (int field = 2; field <= START_FIELD; field++) /* the first split yields what is before the space */
		if (!str_split(&rest, ' ', &word))
			return -EBADMSG;
	return str_parse_u64(word, UINT64_MAX, ret);
}

int proc_uid(pid_t pid, uid_t *ret)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line, word = STR_NONE;
	uint64_t uid;
	int r = read_of(pid, "status", &b);

	if (r < 0)
		return r;
	text = buf_str(&b);
	while (str_split(&text, '\n', &line)) {
		if (!str_has_prefix(line, STR("Uid:\t")))
			continue;
		for (int field = 0; field < 3; field++)
			if (!str_split(&line, '\t', &word))
				return -EBADMSG;
		r = str_parse_u64(word, UINT32_MAX, &uid);
		if (r == 0)
			*ret = (uid_t)uid;
		return r;
	}
	return -EBADMSG;
}

int proc_boot_id(char ret[BOOT_ID_SIZE])
{
	_cleanup_(buf_finish) struct buf b = {0};
	int r = file_read("/proc/sys/kernel/random/boot_id", 64, &b);

	return r < 0 ? r : str_copy(str_trim(buf_str(&b), "\n"), ret, BOOT_ID_SIZE);
}
