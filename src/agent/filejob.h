#pragma once
/* The child's side of a FILE operation (agent/fileop.h). */
#include "agent/spawn.h"
#include "agent/user.h"
#include "codec/agent.h"

struct filejob_ends {
	int in, out, gate;
};

/* Does it as the user and ends the process: frames of `stream` on out, DONE or ERROR the last. */
__attribute__((noreturn)) void filejob_run(const struct stream_file *x, uint32_t stream, const struct spawn_options *o,
					   const struct filejob_ends *ends);

/* --- what the operations share --- */

enum { FILEJOB_IN, FILEJOB_OUT, FILEJOB_GATE, FILEJOB_FDS }; /* where its descriptors are */

struct filejob {
	const struct stream_file *x;
	uint32_t stream;
	struct user user;
	char *path, *to; /* below the user's home where they are not absolute */
	struct buf out;
};

/* A frame; they are gathered and sent in lots. */
void filejob_send(struct filejob *j, enum agent_type type, struct str payload);
void filejob_send_record(struct filejob *j, enum agent_type type, const struct wire_type *t, const void *record);
void filejob_flush(struct filejob *j);
__attribute__((noreturn)) void filejob_done(struct filejob *j);
__attribute__((noreturn, format(printf, 3, 4))) void filejob_fail(struct filejob *j, const char *code, const char *fmt,
								  ...);
/* By errno: its code, and "PATH: its text". */
__attribute__((noreturn)) void filejob_fail_errno(struct filejob *j, int code, const char *path);

struct stat;
/* An INFO of dir/name (dir may be AT_FDCWD); shown: its name, in a LIST. */
void filejob_send_info(struct filejob *j, int dir, const char *name, const struct stat *st, const char *shown,
		       bool more);
/* Of j->path, as it is now, not followed. */
void filejob_send_own_info(struct filejob *j);
/* false: the input's sender wants it undone. Blocks until the input has ended. */
bool filejob_committed(void);
/* Missing directories above path; of path too when `whole`. 0 or negative errno. */
int filejob_make_parents(const char *path, bool whole);
/* The owner that the request names, or the user. -ENOENT: the guest knows no such user or group. */
int filejob_owner(const struct filejob *j, uid_t *ret_uid, gid_t *ret_gid);
/* "dir" and "name" of a path; dir is "." or "/" where there is none. -EINVAL: it ends in no name. */
int filejob_split(const char *path, char **ret_dir, const char **ret_name);
/* Bytes of READ and PACK. */
void filejob_send_data(struct filejob *j, const void *data, size_t n);
/* The same from a file, without a copy. Returns the bytes that went that way: fewer than `left` at its end, and where
 * its file system cannot do this. */
uint64_t filejob_send_pages(struct filejob *j, int fd, uint64_t left);
int filejob_write_all(int fd, const void *p, size_t n);

/* --- the operations --- */

void filejob_read(struct filejob *j);
void filejob_write(struct filejob *j);
void filejob_list(struct filejob *j);
void filejob_stat(struct filejob *j);
void filejob_mkdir(struct filejob *j);
void filejob_move(struct filejob *j);
/* Of a file, to another file system: copied, and then removed. */
void filejob_move_across(struct filejob *j);
void filejob_remove(struct filejob *j);
void filejob_pack(struct filejob *j);
void filejob_unpack(struct filejob *j);
