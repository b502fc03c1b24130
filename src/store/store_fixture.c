#include "store/store_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void remove_files(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

void world_open(struct world *w)
{
	struct store_workspace ws;
	struct error error = {0};

	if (store_open(w->dir, &w->store, &error))
		fail_msg("%s", error.text);
	assert_int_equal(store_workspace_default(w->store, &w->arena, &ws), 0);
	w->workspace = ws.id;
}

int world_setup(void **state)
{
	struct world *w = xcalloc(1, sizeof *w);

	snprintf(w->dir, sizeof w->dir, "/tmp/iron-store-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->arena.max = (size_t)256 << 20;
	world_open(w);
	*state = w;
	return 0;
}

int world_teardown(void **state)
{
	struct world *w = *state;

	store_close(w->store);
	arena_finish(&w->arena);
	remove_files(w->dir);
	free(w);
	return 0;
}

void world_reopen(struct world *w)
{
	store_close(take_ptr(w->store));
	world_open(w);
}

int put_open(struct store *s, uint64_t seq, const struct record_open *e)
{
	return store_index_put(s, seq, (int64_t)seq * 1000, RECORD_OPEN, e);
}
