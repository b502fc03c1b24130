/* The journal's index: what becomes of records, filters, pages, followers. */
#include "store/store_fixture.h"

#include <errno.h>

/* Event i: seq 10 i. Every third is for b.example.com, every fourth denied, every fifth of VM 2. */
static struct record_open event_of(struct world *w, uint64_t i)
{
	return (struct record_open){
		.vm = i % 5 ? 1 : 2,
		.workspace = w->workspace,
		.host = i % 3 ? STR("a.example.com") : STR("b.example.com"),
		.port = 443,
		.protocol = PROTO_TLS,
		.verdict = i % 4 ? VERDICT_ALLOWED : VERDICT_DENIED,
	};
}

static void add_events(struct world *w, uint64_t from, uint64_t to)
{
	struct store_tx tx = {0};

	assert_int_equal(store_begin(w->store, STORE_NORMAL, &tx), 0);
	for (uint64_t i = from; i <= to; i++) {
		struct record_open e = event_of(w, i);
		assert_int_equal(put_open(w->store, i * 10, &e), 0);
	}
	struct msg_audit_head head = {.segment = 1, .offset = 4096, .seq = to * 10};
	assert_int_equal(store_index_advance(w->store, &head), 0);
	assert_int_equal(store_commit(&tx), 0);
}

static struct store_events events(struct world *w, const struct msg_events_list *q)
{
	struct store_events page;

	assert_int_equal(store_events_list(w->store, w->workspace, q, &w->arena, &page), 0);
	return page;
}

static void test_event_life(void **state)
{
	struct world *w = *state;
	struct msg_events_list q = {0};
	struct record_progress progress = {.open_seq = 10, .bytes_sent = 5, .bytes_received = 6};
	struct record_close close = {.open_seq = 10, .bytes_sent = 50, .bytes_received = 60, .duration_ms = 70, .status = 200,
				     .outcome = CLOSE_DONE, .address = STR("192.0.2.1")};
	struct record_close aborted = {.open_seq = 20, .outcome = CLOSE_ABORTED};

	add_events(w, 1, 2);
	assert_int_equal(WRITE(w, store_index_put(w->store, 30, 1, RECORD_PROGRESS, &progress)), 0);
	struct row_event e = events(w, &q).v[1];
	assert_true(e.seq == 10 && !e.closed && e.bytes_sent == 5 && e.bytes_received == 6 && e.timestamp == 10000);
	assert_int_equal(WRITE(w, store_index_put(w->store, 40, 2, RECORD_CLOSE, &close)), 0);
	e = events(w, &q).v[1];
	assert_true(e.closed && e.bytes_sent == 50 && e.duration_ms == 70 && e.status == 200);
	assert_str(e.address, "192.0.2.1");
	/* the same again, from the open on, changes nothing */
	add_events(w, 1, 2);
	assert_int_equal(WRITE(w, store_index_put(w->store, 30, 1, RECORD_PROGRESS, &progress)), 0);
	e = events(w, &q).v[1];
	assert_true(e.closed && e.bytes_sent == 50 && events(w, &q).n == 2);
	/* an assumption gives way to the worker's word, and not the other way round */
	assert_int_equal(WRITE(w, store_index_put(w->store, 50, 2, RECORD_CLOSE, &aborted)), 0);
	close.open_seq = 20;
	assert_int_equal(WRITE(w, store_index_put(w->store, 60, 2, RECORD_CLOSE, &close)), 0);
	assert_int_equal(WRITE(w, store_index_put(w->store, 70, 2, RECORD_CLOSE, &aborted)), 0);
	assert_int_equal(events(w, &q).v[0].status, 200);
}

static void test_event_filters(void **state)
{
	struct world *w = *state;
	struct record_dns dns = {.vm = 1, .workspace = w->workspace, .name = STR("x.example"), .qtype = 28,
				 .answer = STR("nxdomain"), .count = 3};
	struct record_drop drop = {.vm = 1, .workspace = w->workspace, .protocol = PROTO_UDP, .port = 443,
				   .address = STR("192.0.2.9"), .reason = STR("udp"), .count = 7};

	add_events(w, 1, 60);
	assert_int_equal(WRITE(w, store_index_put(w->store, 605, 1, RECORD_DNS, &dns)), 0);
	assert_int_equal(WRITE(w, store_index_put(w->store, 606, 1, RECORD_DROP, &drop)), 0);
	assert_int_equal(WRITE(w, store_index_advance(w->store, &(struct msg_audit_head){1, 1, 606})), 0);
#define COUNT(...) (events(w, &(struct msg_events_list){.limit = 500, __VA_ARGS__}).n)
	assert_int_equal(COUNT(), 61);
	assert_int_equal(COUNT(.vm = 2), 12);
	assert_int_equal(COUNT(.verdict = 1), 45);
	assert_int_equal(COUNT(.verdict = 2), 16);
	assert_int_equal(COUNT(.verdict = 4), 16);
	assert_int_equal(COUNT(.verdict = 3), 0);
	assert_int_equal(COUNT(.allowed = 1), 16);
	assert_int_equal(COUNT(.allowed = 2), 45);
	assert_int_equal(COUNT(.mode = 1), 61);
	assert_int_equal(COUNT(.mode = 2), 0);
	assert_int_equal(COUNT(.host = STR("b.example.com")), 20);
	assert_int_equal(COUNT(.host = STR("*.example.com")), 60);
	assert_int_equal(COUNT(.host = STR("*.b.example.com")), 20); /* itself too */
	assert_int_equal(COUNT(.host = STR("*.xample.com")), 0);
	assert_int_equal(COUNT(.cidr = STR("10.0.0.0/8")), 0);
	assert_int_equal(COUNT(.protocol = PROTO_DNS), 1);
	assert_int_equal(COUNT(.protocol = PROTO_UDP), 1);
	assert_int_equal(COUNT(.since = 301000), 30); /* i > 30: seq 310 on */
	assert_int_equal(COUNT(.until = 300000, .since = 100000), 21);
	assert_int_equal(COUNT(.since = 700000), 0);
	assert_int_equal(COUNT(.until = 1), 1); /* the drop, stamped 1 */
	struct row_event e = events(w, &(struct msg_events_list){.protocol = PROTO_DNS}).v[0];
	assert_str(e.host, "x.example");
	assert_str(e.reason, "type 28: nxdomain, 3 times");
	e = events(w, &(struct msg_events_list){.protocol = PROTO_UDP}).v[0];
	assert_str(e.reason, "7 packets dropped: udp");
	assert_true(e.verdict == VERDICT_DENIED && e.closed);
	struct store_events page;
	assert_int_equal(store_events_list(w->store, w->workspace + 1, &(struct msg_events_list){0}, &w->arena, &page), 0);
	assert_int_equal(page.n, 0);
}

/* A follower sees each event once, in order, whatever is appended, closed and empty between its calls. */
static void test_follow(void **state)
{
	struct world *w = *state;
	struct msg_events_list q = {.order = 1, .limit = 7, .host = STR("b.example.com")};
	uint64_t made = 0, next = 30, calls = 0;

	while (next <= 300 * 10) {
		struct store_events page = events(w, &q);
		for (size_t i = 0; i < page.n; i++, next += 30)
			assert_int_equal(page.v[i].seq, next);
		assert_true(page.page.cursor.len > 0);
		q.cursor = page.page.cursor;
		if (made < 300 && calls % 3 == 0) {
			add_events(w, made + 1, made + 20);
			made += 20;
			struct record_close close = {.open_seq = made * 10, .outcome = CLOSE_DONE};
			assert_int_equal(WRITE(w, store_index_put(w->store, made * 10 + 1, 1, RECORD_CLOSE, &close)), 0);
		}
		assert_true(calls++ < 1000);
	}
	assert_int_equal(events(w, &q).n, 0);
}

static void test_event_pages_backwards(void **state)
{
	struct world *w = *state;
	struct msg_events_list q = {.limit = 9};
	uint64_t expect = 200;

	add_events(w, 1, 200);
	for (uint64_t made = 200;; made += 5) {
		struct store_events page = events(w, &q);
		for (size_t i = 0; i < page.n; i++)
			assert_int_equal(page.v[i].seq, 10 * expect--);
		assert_int_equal(page.page.has_more, page.page.cursor.len > 0);
		q.cursor = page.page.cursor;
		if (!page.page.has_more)
			break;
		add_events(w, made + 1, made + 5);
	}
	assert_int_equal(expect, 0);
	q.order = 1; /* a cursor of the other order */
	q.cursor = events(w, &(struct msg_events_list){.limit = 1}).page.cursor;
	struct store_events page;
	assert_int_equal(store_events_list(w->store, w->workspace, &q, &w->arena, &page), -EINVAL);
}

/* Numbers jump at each start of iron-audit: a scan over the gaps reaches what is behind them. */
static void test_events_over_gaps(void **state)
{
	struct world *w = *state;
	struct record_open e = event_of(w, 1);

	for (uint64_t i = 1; i <= 20; i++)
		assert_int_equal(WRITE(w, put_open(w->store, i << 22, &e)), 0);
	assert_int_equal(WRITE(w, store_index_advance(w->store, &(struct msg_audit_head){1, 1, 20 << 22})), 0);
	assert_int_equal(COUNT(), 20);
	assert_int_equal(COUNT(.order = 1), 20);
}

static void test_reset_and_trim(void **state)
{
	struct world *w = *state;
	struct msg_audit_head head;
	uint64_t n = 0;

	add_events(w, 1, 50);
	assert_int_equal(WRITE(w, store_index_trim(w->store, 201000, 15, &n)), 0);
	assert_int_equal(n, 15);
	assert_int_equal(WRITE(w, store_index_trim(w->store, 201000, 15, &n)), 0);
	assert_int_equal(n, 5);
	assert_int_equal(COUNT(), 30);
	assert_int_equal(WRITE(w, store_index_set_target(w->store, 500)), 0);
	assert_int_equal(WRITE(w, store_index_reset(w->store)), -EALREADY);
	assert_int_equal(store_index_reset(w->store), 0);
	assert_int_equal(COUNT(), 0);
	assert_int_equal(store_index_position(w->store, &head), 0);
	assert_int_equal(store_index_target(w->store, &n), 0);
	assert_true(head.seq == 0 && head.segment == 0 && n == 0);
	add_events(w, 1, 3); /* and it is one again */
	world_reopen(w);
	assert_int_equal(COUNT(), 3);
}

static void test_general_events(void **state)
{
	struct world *w = *state;
	struct msg_generals_list q = {.limit = 2, .order = 1};
	struct store_generals page;
	size_t n = 0;

	for (uint64_t i = 1; i <= 9; i++) {
		struct record_event e = {.kind = i % 2 ? STR("exec") : STR("key"), .workspace = w->workspace, .vm = i % 3, .key = 4,
					 .action = STR("run"), .outcome = STR("ok"), .detail = STR("{}")};
		assert_int_equal(WRITE(w, store_index_put(w->store, i, (int64_t)i, RECORD_EVENT, &e)), 0);
		assert_int_equal(WRITE(w, store_index_put(w->store, i, (int64_t)i, RECORD_EVENT, &e)), 0);
	}
	assert_int_equal(WRITE(w, store_index_advance(w->store, &(struct msg_audit_head){1, 1, 9})), 0);
	do {
		assert_int_equal(store_generals_list(w->store, w->workspace, false, &q, &w->arena, &page), 0);
		n += page.n;
		q.cursor = page.page.cursor;
	} while (page.page.has_more);
	assert_int_equal(n, 9);
	assert_true(q.cursor.len > 0);
	assert_int_equal(store_generals_list(w->store, w->workspace, false, &q, &w->arena, &page), 0);
	assert_int_equal(page.n, 0);
	q = (struct msg_generals_list){.kind = STR("key"), .vm = 1};
	assert_int_equal(store_generals_list(w->store, w->workspace, false, &q, &w->arena, &page), 0);
	assert_int_equal(page.n, 1); /* 4 */
	assert_true(page.v[0].seq == 4 && str_eq(page.v[0].action, STR("run")));
}

/* What an event says is taken apart where it is iron's own, and shown as nothing where it is not. */
static void test_general_columns(void **state)
{
	struct world *w = *state;
	const struct store_key key = {.row = {.id = 77, .name = STR("ci"), .hint = STR("x")}, .workspace = w->workspace};
	const uint8_t hash[STORE_KEY_HASH_SIZE] = {1};
	static const char *const details[] = {"{\"client\":\"curl/8 \\\"x\\\"\",\"n\":1}", "{\"n\":1}", "not JSON", "{\"client\":\"a\"}"};
	struct store_generals page;

	assert_int_equal(WRITE(w, store_key_create(w->store, &key, hash)), 0);
	for (uint64_t i = 0; i < 4; i++) {
		struct record_event e = {.kind = STR("api"), .workspace = i == 3 ? 0 : w->workspace, .key = i == 1 ? 78 : 77,
					 .detail = str_of(details[i])};
		assert_int_equal(WRITE(w, store_index_put(w->store, i + 1, 5, RECORD_EVENT, &e)), 0);
	}
	assert_int_equal(WRITE(w, store_index_advance(w->store, &(struct msg_audit_head){1, 1, 4})), 0);
	struct msg_generals_list q = {.order = 1};
	assert_int_equal(store_generals_list(w->store, w->workspace, false, &q, &w->arena, &page), 0);
	assert_int_equal(page.n, 3);
	assert_str(page.v[0].client, "curl/8 \"x\"");
	assert_str(page.v[0].detail, "{\"n\":1}");
	assert_str(page.v[0].key_name, "ci");
	assert_true(page.v[1].client.len == 0 && page.v[1].key_name.len == 0 && page.v[1].key == 78);
	assert_str(page.v[2].detail, "{}");
	assert_int_equal(WRITE(w, store_key_revoke(w->store, w->workspace, 77, 9)), 0);
	assert_int_equal(store_generals_list(w->store, w->workspace, true, &q, &w->arena, &page), 0);
	assert_int_equal(page.n, 4); /* with what is nobody's */
	assert_str(page.v[3].key_name, "ci");
	assert_str(page.v[3].client, "a");
}

static struct row_summary *summary(struct world *w, const struct msg_summary_get *q, size_t most, size_t *n)
{
	struct store_summary *x = store_summary_create(w->store, w->workspace, q);
	struct row_summary *v;
	int r;

	while ((r = store_summary_step(x, 0)) > 0)
		;
	assert_int_equal(r, 0);
	assert_int_equal(store_summary_rows(x, most, &v, n), 0);
	struct row_summary *copy = arena_alloc(&w->arena, (*n + 1) * sizeof *copy);
	for (size_t i = 0; i < *n; i++) {
		copy[i] = v[i];
		copy[i].host = arena_str(&w->arena, v[i].host);
	}
	store_summary_destroy(x);
	return copy;
}

static void test_summary(void **state)
{
	struct world *w = *state;
	struct record_dns dns = {.vm = 1, .workspace = w->workspace, .name = STR("dns.example"), .count = 3};
	struct record_close close = {.open_seq = 30, .bytes_sent = 5, .bytes_received = 7, .outcome = CLOSE_DONE};
	size_t n;

	add_events(w, 1, 60); /* 20 of b, 40 of a; every fourth denied */
	for (uint64_t i = 1; i <= 5; i++) { /* far behind, so that it takes many windows */
		struct record_open e = {.vm = 1, .workspace = w->workspace, .host = STR("c.example"), .verdict = VERDICT_WARN,
					.mode = MODE_WARN, .protocol = PROTO_HTTP};
		assert_int_equal(WRITE(w, put_open(w->store, i << 20, &e)), 0);
	}
	assert_int_equal(WRITE(w, store_index_put(w->store, 601, 1, RECORD_DNS, &dns)), 0);
	assert_int_equal(WRITE(w, store_index_put(w->store, 602, 1, RECORD_CLOSE, &close)), 0);
	assert_int_equal(WRITE(w, store_index_advance(w->store, &(struct msg_audit_head){1, 1, 5 << 20})), 0);
	struct row_summary *v = summary(w, &(struct msg_summary_get){0}, 10, &n);
	assert_int_equal(n, 3);
	assert_str(v[0].host, "a.example.com");
	assert_true(v[0].total == 40 && v[0].allowed == 30 && v[0].denied == 10 && v[0].warned == 0 && v[0].bytes_sent == 0);
	assert_true(v[1].total == 20 && v[1].denied == 5 && v[1].bytes_sent == 5 && v[1].bytes_received == 7);
	assert_true(v[2].total == 5 && v[2].warned == 5);
	v = summary(w, &(struct msg_summary_get){0}, 1, &n); /* the others together */
	assert_true(n == 2 && v[1].host.len == 0 && v[1].total == 25 && v[1].warned == 5 && v[1].bytes_received == 7);
	v = summary(w, &(struct msg_summary_get){.vm = 2}, 10, &n);
	assert_true(n == 2 && v[0].total == 8 && v[1].total == 4);
	summary(w, &(struct msg_summary_get){.since = 301000, .until = 400000}, 10, &n);
	assert_int_equal(n, 2);
	summary(w, &(struct msg_summary_get){.since = INT64_MAX}, 10, &n);
	assert_int_equal(n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_event_life),
		WORLD_TEST(test_event_filters),
		WORLD_TEST(test_follow),
		WORLD_TEST(test_event_pages_backwards),
		WORLD_TEST(test_events_over_gaps),
		WORLD_TEST(test_reset_and_trim),
		WORLD_TEST(test_general_events),
		WORLD_TEST(test_general_columns),
		WORLD_TEST(test_summary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
