#pragma once
/* A directory of this machine, entry by entry, parents before what is in them. No link is followed below it. */
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct walk;

struct walk_entry {
	char kind;          /* 'f', 'd', 'l' */
	const char *path;   /* below the directory; valid until the next */
	const char *target; /* of a link, else "" */
	uint64_t size;
	unsigned mode;
	int64_t mtime_ms;
	int fd; /* of a file, opened for reading: the caller's; -1 when walk_open was told not to */
};

int walk_open(const char *path, bool open_files, struct walk **ret, struct error *reterr);
/* 1 with an entry, 0 at the end, -errno with a sentence. A file that cannot be read is said on standard error, and goes on. */
int walk_next(struct walk *w, struct walk_entry *ret, struct error *reterr);
bool walk_missed(const struct walk *w);      /* something could not be read */
uint64_t walk_skipped(const struct walk *w); /* devices, pipes and sockets */
void walk_close(struct walk *w);
