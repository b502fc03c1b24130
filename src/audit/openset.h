#pragma once
/* Opens that have no close yet, by sequence, with the bytes of their last progress: so that they can be closed as aborted
 * when nobody else does. Bounded by whoever adds. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct open_entry {
	uint64_t seq; /* 0: free */
	uint64_t workspace;
	uint64_t sent, received;
	int64_t opened_ms; /* 0: not known */
};

struct openset {
	struct open_entry *v;
	size_t n, cap;
};

void openset_finish(struct openset *s);
/* NULL: not there. Valid until the next change. */
struct open_entry *openset_find(const struct openset *s, uint64_t seq);
void openset_put(struct openset *s, const struct open_entry *e);
/* False: it was not there. ret may be NULL. */
bool openset_remove(struct openset *s, uint64_t seq, struct open_entry *ret);
/* size_t i = 0; while ((e = openset_next(&s, &i))) … ; not to be changed meanwhile. */
struct open_entry *openset_next(const struct openset *s, size_t *i);
