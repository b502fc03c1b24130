/* Egress by host, counted in windows of the index (store_sqlite_scan.c), so that a large one is summed up over many turns. */
#include <stdlib.h>

#include "base/clock.h"
#include "store/store_sqlite.h"

#define HOSTS_MAX 50000 /* counted by themselves; a guest can ask for names without end */
#define ORDER_ASC 1

struct store_summary {
	struct scan scan;
	uint64_t workspace;
	struct msg_summary_get asked;
	bool begun;
	struct arena arena;
	struct map hosts; /* name → struct row_summary in the arena */
	struct row_summary others;
	bool has_others;
};

struct store_summary *store_summary_create(struct store *s, uint64_t workspace, const struct msg_summary_get *q)
{
	struct store_summary *x = xcalloc(1, sizeof *x);

	*x = (struct store_summary){.workspace = workspace, .asked = *q, .arena = {.max = (size_t)64 << 20}};
	x->scan = (struct scan){.s = s, .table = SCAN_EVENTS, .order = ORDER_ASC, .since = q->since, .until = q->until};
	return x;
}

void store_summary_destroy(struct store_summary *x)
{
	if (!x)
		return;
	map_finish(&x->hosts);
	arena_finish(&x->arena);
	free(x);
}

/* NULL: there is no room for one more host. */
static struct row_summary *host_get(struct store_summary *x, struct str name)
{
	struct row_summary *h = map_get_str(&x->hosts, name);

	if (h || x->hosts.n >= HOSTS_MAX)
		return h;
	h = arena_alloc(&x->arena, sizeof *h);
	if (!h)
		return NULL;
	*h = (struct row_summary){.host = arena_str(&x->arena, name)};
	map_put_str(&x->hosts, name, h);
	return h;
}

static void add(struct row_summary *to, const struct row_summary *n)
{
	to->total += n->total;
	to->allowed += n->allowed;
	to->warned += n->warned;
	to->denied += n->denied;
	to->bytes_sent += n->bytes_sent;
	to->bytes_received += n->bytes_received;
}

static void add_to_others(struct store_summary *x, const struct row_summary *n)
{
	x->has_others = true;
	add(&x->others, n);
}

static int count_window(struct store_summary *x, uint64_t after, uint64_t to)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)16 << 20};
	_cleanup_(select_finish) struct select sel = {0};
	_cleanup_(query_finish) struct query q = {0};

	select_i64(&sel,
		   "SELECT host, count(*), sum(verdict = 1), sum(verdict = 3), sum(verdict = 2), sum(bytes_sent),"
		   " sum(bytes_received) FROM ix.events WHERE seq > ?",
		   (int64_t)after);
	select_i64(&sel, " AND seq <= ?", (int64_t)to);
	select_i64(&sel, " AND workspace = ?", (int64_t)x->workspace);
	select_i64(&sel, " AND protocol <> ?", PROTO_DNS);
	if (x->asked.vm)
		select_i64(&sel, " AND vm = ?", (int64_t)x->asked.vm);
	if (x->asked.since)
		select_i64(&sel, " AND time >= ?", x->asked.since);
	if (x->asked.until)
		select_i64(&sel, " AND time <= ?", x->asked.until);
	select_add(&sel, " GROUP BY host");
	int r = query_begin_select(x->scan.s, &sel, &a, &q);
	while (r == 0 && (r = query_step(&q)) > 0) {
		struct row_summary n = {.host = column_str(&q)};
		n.total = column_u64(&q);
		n.allowed = column_u64(&q);
		n.warned = column_u64(&q);
		n.denied = column_u64(&q);
		n.bytes_sent = column_u64(&q);
		n.bytes_received = column_u64(&q);
		struct row_summary *h = host_get(x, n.host);
		if (h)
			add(h, &n);
		else
			add_to_others(x, &n);
		r = q.error;
	}
	return r < 0 ? r : 0;
}

int store_summary_step(struct store_summary *x, unsigned most_ms)
{
	uint64_t started = mono_ms(), after, to;
	int r = x->begun ? 0 : scan_bounds(&x->scan);

	x->begun = true;
	while (r == 0 && (r = scan_next(&x->scan, &after, &to)) > 0) {
		r = count_window(x, after, to);
		if (r == 0 && mono_ms() - started >= most_ms)
			return 1;
	}
	return r;
}

static int by_total(const void *a, const void *b)
{
	const struct row_summary *x = a, *y = b;

	if (x->total != y->total)
		return x->total < y->total ? 1 : -1;
	return str_cmp(x->host, y->host);
}

int store_summary_rows(struct store_summary *x, size_t most, struct row_summary **ret, size_t *ret_n)
{
	struct row_summary *v = arena_alloc(&x->arena, (x->hosts.n + 1) * sizeof *v);
	struct map_slot *slot;
	size_t n = 0;

	if (!v)
		return -ENOMEM;
	for (size_t i = 0; map_next(&x->hosts, &i, &slot);)
		v[n++] = *(const struct row_summary *)slot->value;
	if (n)
		qsort(v, n, sizeof *v, by_total);
	while (n > most)
		add_to_others(x, &v[--n]);
	if (x->has_others)
		v[n++] = x->others;
	*ret = v;
	*ret_n = n;
	return 0;
}
