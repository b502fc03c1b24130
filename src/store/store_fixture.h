#pragma once
/* A store in a directory of its own, for the tests of the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/store.h"

struct world {
	char dir[32];
	struct store *store;
	struct arena arena;
	uint64_t workspace;
};

int world_setup(void **state);
int world_teardown(void **state);
void world_open(struct world *w);
/* Closes and opens it. */
void world_reopen(struct world *w);
void remove_files(const char *dir);

/* The record of an open, stamped with its sequence in seconds. */
int put_open(struct store *s, uint64_t seq, const struct record_open *e);

/* Runs one writing call in a transaction of its own. */
#define WRITE(w, call)                                                                                                 \
	({                                                                                                             \
		_cleanup_(store_tx_finish) struct store_tx own_tx = {0};                                                   \
		int written = store_begin((w)->store, STORE_FULL, &own_tx);                                                \
		if (written == 0)                                                                                      \
			written = (call);                                                                              \
		if (written == 0)                                                                                      \
			written = store_commit(&own_tx);                                                                   \
		written;                                                                                               \
	})

#define assert_str(s, text) assert_true(str_eq((s), str_of(text)))

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)
