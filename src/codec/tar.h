#pragma once
/* tar archives: ustar with pax extended headers (POSIX.1-2001 pax(1)) and GNU's long names, read as they come; written
 * as ustar, with a pax header where a value does not fit. Sparse files are not read. All names are hostile, and so are
 * archives that one reader takes for another than the next: what extractors are known to differ about is refused. */
#include "base/buf.h"

#define TAR_BLOCK ((size_t)512)
#define TAR_NAME_MAX ((size_t)4095)
#define TAR_EXTENDED_MAX ((size_t)64 << 10) /* bytes of an extended header */

enum tar_kind { TAR_FILE = 1, TAR_DIRECTORY, TAR_LINK, TAR_HARD_LINK, TAR_OTHER };

struct tar_entry {
	enum tar_kind kind;
	struct str name, target; /* target: of either link */
	uint64_t size;           /* bytes of data that follow */
	uint32_t mode, uid, gid; /* mode: permission bits; a number that does not fit is 0 */
	int64_t mtime;           /* s since 1970 */
	struct str user, group;
};

struct tar_reader {
	/* For the caller to set: nothing but what tar_write writes, byte for byte, is read; TAR_OTHER is returned still,
	 * to be refused. */
	bool strict;
	int state;
	uint64_t left;   /* bytes of data, or of an extended header, that are still to come */
	size_t padding;  /* bytes after them */
	unsigned zeros;  /* blocks of the end */
	char extended;   /* typeflag of the header that is being gathered */
	struct buf text; /* its bytes */
	unsigned seen;   /* extended headers before the next entry */
	char pax[TAR_BLOCK]; /* the last of them as it came */
	/* What extended headers said about the next entry. */
	struct buf name, target, user, group;
	bool has_size;
	uint64_t size;
	bool has_mtime;
	int64_t mtime;
	char space[3][257]; /* of the fields of the entry that was returned */
};

enum tar_event { TAR_ENTRY = 1, TAR_DATA, TAR_END };

void tar_reader_init(struct tar_reader *r);
void tar_reader_finish(struct tar_reader *r);

/* Takes what it can off *in. TAR_ENTRY: *ret_entry is set, borrowed until the next call. TAR_DATA: *ret_data is some
 * of its bytes, borrowed from *in. TAR_END: the archive is over; what follows is none of it. 0: more is needed (a call
 * needs at least a block). -EBADMSG: not an archive that is read here. */
int tar_read(struct tar_reader *r, struct str *in, struct tar_entry *ret_entry, struct str *ret_data);

/* Headers of an entry; the caller appends `size` bytes and tar_padding(size) zeros. -EINVAL: it cannot be said. */
int tar_write(const struct tar_entry *e, struct buf *out);
size_t tar_padding(uint64_t size);
int tar_write_end(struct buf *out);

/* A name without ".", doubled and trailing slashes; empty: the root itself. -EINVAL: absolute, with "..", with a NUL,
 * or too long. */
int tar_name_clean(struct str name, char ret[TAR_NAME_MAX + 1]);
/* Whether a symbolic link `name` (clean) with this target may lead out of the root: absolute, more ".." than
 * directories above it, or ".." behind a name (which may be a link itself). */
bool tar_link_leads_out(const char *name, struct str target);
