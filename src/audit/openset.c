#include "audit/openset.h"

#include <stdlib.h>

#include "base/cleanup.h"

void openset_finish(struct openset *s)
{
	free(s->v);
	*s = (struct openset){0};
}

static size_t home(const struct openset *s, uint64_t seq)
{
	return (size_t)((seq * 0x9e3779b97f4a7c15ULL) >> 32) & (s->cap - 1);
}

struct open_entry *openset_find(const struct openset *s, uint64_t seq)
{
	if (s->n == 0 || seq == 0)
		return NULL;
	for (size_t i = home(s, seq); s->v[i].seq; i = (i + 1) & (s->cap - 1))
		if (s->v[i].seq == seq)
			return &s->v[i];
	return NULL;
}

static void place(struct openset *s, const struct open_entry *e)
{
	size_t i = home(s, e->seq);

	while (s->v[i].seq && s->v[i].seq != e->seq)
		i = (i + 1) & (s->cap - 1);
	s->n += s->v[i].seq == 0;
	s->v[i] = *e;
}

static void resize(struct openset *s, size_t cap)
{
	struct openset bigger = {.v = xcalloc(cap, sizeof *bigger.v), .cap = cap};

	for (size_t i = 0; i < s->cap; i++)
		if (s->v[i].seq)
			place(&bigger, &s->v[i]);
	free(s->v);
	*s = bigger;
}

void openset_put(struct openset *s, const struct open_entry *e)
{
	if (2 * (s->n + 1) > s->cap)
		resize(s, s->cap ? s->cap * 2 : 16);
	place(s, e);
}

bool openset_remove(struct openset *s, uint64_t seq, struct open_entry *ret)
{
	struct open_entry *e = openset_find(s, seq);

	if (!e)
		return false;
	if (ret)
		*ret = *e;
	/* those after it move up, so that no gap hides one */
	size_t gap = (size_t)(e - s->v), i = gap;
	for (;;) {
		i = (i + 1) & (s->cap - 1);
		if (!s->v[i].seq)
			break;
		size_t h = home(s, s->v[i].seq);
		if (((i - h) & (s->cap - 1)) >= ((i - gap) & (s->cap - 1))) {
			s->v[gap] = s->v[i];
			gap = i;
		}
	}
	s->v[gap].seq = 0;
	s->n--;
	return true;
}

struct open_entry *openset_next(const struct openset *s, size_t *i)
{
	while (*i < s->cap) {
		struct open_entry *e = &s->v[(*i)++];
		if (e->seq)
			return e;
	}
	return NULL;
}
