#pragma once
/* A typed growable array: VEC(struct rule) rules = {0}; VEC_PUSH(&rules, r); free with VEC_FINISH.
 * The element count is chosen by us, not by a peer: bound it before pushing. */
#include <stddef.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define VEC(type)                                                                                                      \
	struct {                                                                                                       \
		type *v;                                                                                               \
		size_t n, cap;                                                                                         \
	}

#define VEC_PUSH(vec, item)                                                                                            \
	do {                                                                                                           \
		if ((vec)->n == (vec)->cap) {                                                                          \
			(vec)->cap = (vec)->cap ? (vec)->cap * 2 : 8;                                                  \
			(vec)->v = xrealloc((vec)->v, (vec)->cap * sizeof *(vec)->v);                                  \
		}                                                                                                      \
		(vec)->v[(vec)->n++] = (item);                                                                         \
	} while (0)

/* Order is not kept. */
#define VEC_REMOVE_SWAP(vec, i) ((vec)->v[(i)] = (vec)->v[--(vec)->n])

#define VEC_FINISH(vec)                                                                                                \
	do {                                                                                                           \
		free((vec)->v);                                                                                        \
		(vec)->v = NULL;                                                                                       \
		(vec)->n = (vec)->cap = 0;                                                                             \
	} while (0)
