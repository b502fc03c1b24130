#pragma once
/* Copying between this machine and a VM: one side of each copy is here, the other there. */
#include "cli/command.h"

struct copy {
	struct context *c;
	char *vm;           /* "/vms/ID" */
	const char *user;   /* in whose name there; NULL: agent */
	bool recursive, parents;
	struct progress progress;
	uint64_t done, total; /* bytes; total 0: not known */
	uint64_t files, skipped;
	char *destination;  /* what it became, for a person; heap */
};

/* A name that may become a file's here: not empty, not "." or "..", without "/" and control bytes, at most 255 bytes. */
bool copy_name_is_safe(struct str name);
/* The last part of a path, without trailing slashes; of "a/." and "/" there is none (empty). */
struct str copy_last_part(const char *path);

/* Progress, and -EINTR after Ctrl-C. */
int copy_tick(struct copy *k);
/* For client_transfer's errors: *c->error says it; EXIT_FAILED or EXIT_INTERRUPTED. */
int copy_failed(struct copy *k, int e);

/* "/vms/ID/files…?path=…" with the user; heap. */
char *copy_url(const struct copy *k, const char *call, const char *path);
/* What is at that path there: 'f', 'd', 'o'; 0 when nothing. -EREMOTEIO … */
int copy_remote_kind(struct copy *k, const char *path);

/* Each 0 or an exit code. dst, src "-" are the standard streams. */
int copy_file_in(struct copy *k, const char *src, const char *dst);
int copy_file_out(struct copy *k, const char *src, const char *dst);
int copy_tree_in(struct copy *k, const char *src, const char *dst);
int copy_tree_out(struct copy *k, const char *src, const char *dst);

/* One copy out of a VM, for `run`: src there, dst here, whatever it is. */
int copy_out(struct copy *k, const char *src, const char *dst);
