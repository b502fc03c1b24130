/* Landlock, by system call: the rule set denies every access of the kernel's ABI that no rule allows, so a later kernel
 * makes the wall thicker without a word here. The header of the build's kernel may be older than the running one, hence
 * the structures and bits of our own. landlock(7), linux/landlock.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "os/sandbox_impl.h"

#define FS_EXECUTE (1ULL << 0)
#define FS_WRITE_FILE (1ULL << 1)
#define FS_READ_FILE (1ULL << 2)
#define FS_READ_DIR (1ULL << 3)
#define FS_REMOVE_DIR (1ULL << 4)
#define FS_REMOVE_FILE (1ULL << 5)
#define FS_MAKE_DIR (1ULL << 7)
#define FS_MAKE_REG (1ULL << 8)
#define FS_MAKE_SYM (1ULL << 12)
#define FS_ALL_1 ((1ULL << 13) - 1)
#define FS_REFER (1ULL << 13)     /* ABI 2 */
#define FS_TRUNCATE (1ULL << 14)  /* ABI 3 */
#define FS_IOCTL_DEV (1ULL << 15) /* ABI 5 */
#define NET_BIND_TCP (1ULL << 0)  /* ABI 4 */
#define NET_CONNECT_TCP (1ULL << 1)
#define SCOPE_ABSTRACT_UNIX (1ULL << 0) /* ABI 6 */
#define SCOPE_SIGNAL (1ULL << 1)
#define RULE_PATH_BENEATH 1
#define CREATE_RULESET_VERSION 1U

struct ruleset_attr {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

struct path_beneath_attr {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

int landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);

	return abi < 0 ? 0 : (int)abi;
}

static uint64_t handled_fs(int abi)
{
	uint64_t bits = FS_ALL_1;

	if (abi >= 2)
		bits |= FS_REFER;
	if (abi >= 3)
		bits |= FS_TRUNCATE;
	if (abi >= 5)
		bits |= FS_IOCTL_DEV;
	return bits;
}

static uint64_t access_bits(unsigned access, bool is_dir)
{
	uint64_t bits = 0;

	if (access & SANDBOX_READ)
		bits |= FS_READ_FILE | (is_dir ? FS_READ_DIR : 0);
	if (access & SANDBOX_WRITE)
		bits |= FS_WRITE_FILE | FS_TRUNCATE;
	if ((access & SANDBOX_CREATE) && is_dir)
		bits |= FS_MAKE_REG | FS_MAKE_DIR | FS_MAKE_SYM | FS_REMOVE_FILE | FS_REMOVE_DIR | FS_REFER;
	if (access & SANDBOX_EXEC)
		bits |= FS_EXECUTE;
	return bits;
}

static int add_path(int ruleset, const struct sandbox_path *p, uint64_t handled, struct error *reterr)
{
	_cleanup_close_ int fd = open(p->path, O_PATH | O_CLOEXEC);
	struct path_beneath_attr attr;
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(reterr, -errno, "sandbox: %s: %s", p->path, strerror(errno));
	attr = (struct path_beneath_attr){.parent_fd = fd,
					  .allowed_access = access_bits(p->access, S_ISDIR(st.st_mode)) & handled};
	if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &attr, 0) < 0)
		return error_set(reterr, -errno, "sandbox: landlock rule for %s: %s", p->path, strerror(errno));
	return 0;
}

int landlock_prepare(int abi, const struct sandbox *s, const struct sandbox_path *paths, int *ret_fd,
		     struct error *reterr)
{
	struct ruleset_attr attr = {.handled_access_fs = handled_fs(abi)};
	size_t size = sizeof(uint64_t);
	_cleanup_close_ int fd = -1;

	if (abi >= 4) {
		size += sizeof(uint64_t);
		attr.handled_access_net = NET_BIND_TCP;
		if (!(s->families & (SANDBOX_INET | SANDBOX_INET6)))
			attr.handled_access_net |= NET_CONNECT_TCP;
	}
	if (abi >= 6) {
		size += sizeof(uint64_t);
		attr.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return error_set(reterr, -errno, "sandbox: landlock rule set: %s", strerror(errno));
	for (; paths && paths->path; paths++) {
		int r = add_path(fd, paths, attr.handled_access_fs, reterr);
		if (r < 0)
			return r;
	}
	*ret_fd = take_fd(fd);
	return 0;
}

int landlock_enter(int fd, struct error *reterr)
{
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return error_set(reterr, -errno, "sandbox: landlock: %s", strerror(errno));
	return 0;
}
