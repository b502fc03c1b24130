#pragma once
/* Archives in POSIX ustar form with pax extensions (IEEE 1003.1, pax), GNU's long names read too. Bytes in, entries out, and
 * the other way: no descriptor, no clock. What the names and links say is not judged here. */
#include "base/buf.h"

#define TAR_BLOCK ((size_t)512)
#define TAR_NAME_MAX ((size_t)4096)

enum tar_kind { TAR_FILE, TAR_DIRECTORY, TAR_LINK, TAR_HARD_LINK, TAR_OTHER };

struct tar_entry {
	enum tar_kind kind;
	struct str path, target; /* target: of the links */
	uint64_t size;           /* bytes that follow, of a FILE */
	unsigned mode;           /* permission bits, 07777 */
	int64_t mtime_ms;
};

/* Each answers 0, or a negative code that ends the reading. */
struct tar_taker {
	int (*entry)(void *user, const struct tar_entry *e);
	int (*data)(void *user, const void *p, size_t n); /* of the FILE before */
	int (*end)(void *user);                           /* of a FILE, after its data */
	void *user;
};

struct tar_reader {
	uint8_t block[TAR_BLOCK];
	size_t have;
	uint64_t left, padding; /* of what is being read */
	enum { TAR_AT_HEAD, TAR_AT_DATA, TAR_AT_META, TAR_AT_PADDING, TAR_AT_END } at;
	char meta_type;
	bool is_file;
	struct buf meta, path, target; /* of what is next, where the header's own fields are too short */
	bool has_size;
	uint64_t size;
	int64_t mtime_ms; /* -1: the header's */
	unsigned zeros;
};

/* -EBADMSG: it is no archive, or a form that is not read; or what the taker said. After the end mark all is ignored. */
int tar_read(struct tar_reader *r, struct str bytes, const struct tar_taker *to);
/* Whether the archive came to its end. */
bool tar_is_whole(const struct tar_reader *r);
void tar_reader_finish(struct tar_reader *r);

/* Appends an entry's headers; its data and tar_pad(size) zeros are the caller's to send. -EMSGSIZE */
int tar_write(struct buf *out, const struct tar_entry *e);
static inline size_t tar_pad(uint64_t size)
{
	return (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
}
int tar_write_end(struct buf *out);
