/* How long iron-control is held up by what is asked of an index of a million events: what each call costs at most, since
 * whoever asks meanwhile waits for it.
 *
 *	store_event_bench DIRECTORY [EVENTS]      the directory is made, and left for a look */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "store/store.h"

#define BATCH 500

static uint64_t workspace;

static void check(int r, const char *what)
{
	if (r == 0)
		return;
	fprintf(stderr, "%s: %d\n", what, r);
	exit(1);
}

static void put_batch(struct store *s, uint64_t from, uint64_t n)
{
	struct store_tx tx = {0};
	char host[64];

	check(store_begin(s, STORE_NORMAL, &tx), "begin");
	for (uint64_t i = from; i < from + n; i++) {
		snprintf(host, sizeof host, "host%llu.example.com", (unsigned long long)(i % 1000));
		struct record_open e = {.vm = i % 50 + 1, .workspace = workspace, .host = str_of(host), .port = 443, .protocol = PROTO_TLS,
					.verdict = i % 10 ? VERDICT_ALLOWED : VERDICT_DENIED, .path = STR("/v1/some/path"),
					.reason = STR("rule egr_0000000000001 allows this")};
		struct record_close c = {.open_seq = 2 * i, .bytes_sent = 1, .bytes_received = 2, .outcome = CLOSE_DONE};
		check(store_index_put(s, 2 * i, (int64_t)i, RECORD_OPEN, &e), "open");
		check(store_index_put(s, 2 * i + 1, (int64_t)i, RECORD_CLOSE, &c), "close");
	}
	struct msg_audit_head head = {.segment = 1, .offset = from + n, .seq = 2 * (from + n)};
	check(store_index_advance(s, &head), "advance");
	check(store_commit(&tx), "commit");
}

/* Every page of a list: how many, how long all of them took, and the longest. */
static void list(struct store *s, const char *name, struct msg_events_list q, unsigned most)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)1 << 30};
	uint64_t begun = mono_us(), longest = 0, n = 0;
	struct store_events page = {.page.has_more = true};
	unsigned pages = 0;

	while (page.page.has_more && pages < most) {
		uint64_t at = mono_us();
		check(store_events_list(s, workspace, &q, &a, &page), name);
		longest = MAX(longest, mono_us() - at);
		n += page.n;
		q.cursor = page.page.cursor;
		pages++;
	}
	printf("%-44s %8llu events %6u pages %9.1f ms, the longest call %6.1f ms\n", name, (unsigned long long)n, pages,
	       (double)(mono_us() - begun) / 1000, (double)longest / 1000);
}

static void summarise(struct store *s)
{
	const struct msg_summary_get q = {0};
	struct store_summary *x = store_summary_create(s, workspace, &q);
	uint64_t begun = mono_us(), longest = 0;
	unsigned steps = 0;
	int r = 1;

	while (r > 0) {
		uint64_t at = mono_us();
		r = store_summary_step(x, 20);
		longest = MAX(longest, mono_us() - at);
		steps++;
	}
	check(r, "summary");
	store_summary_destroy(x);
	printf("%-44s %21u steps %9.1f ms, the longest step %6.1f ms\n", "summary", steps, (double)(mono_us() - begun) / 1000,
	       (double)longest / 1000);
}

int main(int argc, char **argv)
{
	_cleanup_(arena_finish) struct arena a = {0};
	uint64_t total = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
	struct store_workspace w;
	struct error e = {0};
	struct store *s;

	if (argc < 2 || (mkdir(argv[1], 0700) && errno != EEXIST))
		return 2;
	check(store_open(argv[1], &s, &e), e.text);
	check(store_workspace_default(s, &a, &w), "workspace");
	workspace = w.id;
	uint64_t begun = mono_us(), longest = 0;
	for (uint64_t i = 1; i <= total; i += BATCH) {
		uint64_t at = mono_us();
		put_batch(s, i, MIN((uint64_t)BATCH, total - i + 1));
		longest = MAX(longest, mono_us() - at);
	}
	double seconds = (double)(mono_us() - begun) / 1e6;
	printf("%-44s %8llu events %9.0f records/s, the longest turn of %d %6.1f ms\n", "indexed", (unsigned long long)total,
	       2 * (double)total / seconds, 2 * BATCH, (double)longest / 1000);
	list(s, "newest page", (struct msg_events_list){.limit = 50}, 1);
	list(s, "newest page of one VM", (struct msg_events_list){.limit = 50, .vm = 7}, 1);
	list(s, "newest page of one host", (struct msg_events_list){.limit = 50, .host = STR("host7.example.com")}, 1);
	list(s, "a host that is not there, to the end", (struct msg_events_list){.limit = 50, .host = STR("none.example")}, UINT32_MAX);
	list(s, "a filter that nothing passes, to the end", (struct msg_events_list){.limit = 50, .verdict = 3}, UINT32_MAX);
	list(s, "everything, 500 a page", (struct msg_events_list){.limit = 500, .order = 1}, 200);
	summarise(s);
	store_close(s);
	return 0;
}
