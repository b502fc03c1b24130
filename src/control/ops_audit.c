/* The record, read: lists and sums of the index. */
#include <errno.h>

#include "base/clock.h"
#include "control/ops.h"

#define SUMMARY_HOSTS 1000
#define SUMMARY_TURN_MS 10
#define SUMMARIES_MAX 4		/* at once, as each holds up to 34 MB; of one workspace: one */
#define SUMMARY_MOST_MS 24000 /* then iron-api waits no longer, whether its client is there still or not */
#define INDEX_WAIT_MS 5000

/* What an index that is being built would leave out must not look as if it had not happened. A small one is waited for. */
static bool index_is_whole(struct request *r)
{
	struct tail_status s;

	tail_get_status(r->control->tail, &s);
	if (s.whole)
		return true;
	if (r->expired)
		request_fail(r, CODE_UNAVAILABLE, "the audit index is being built anew, %u %% are done: try again",
			     s.permille / 10);
	else
		request_wait_vm(r, REQUEST_WAITS_INDEX, INDEX_WAIT_MS);
	return false;
}

static void fail_list(struct request *r, int code, const char *what)
{
	if (code == -EUCLEAN)
		tail_reindex(r->control->tail, "it is damaged");
	request_fail_list(r, code, what);
}

void op_audit_egress(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)32 << 20};
	struct msg_events_list q = *REQUEST_RECORD(r, msg_events_list);
	char host[HOST_PATTERN_SIZE], cidr[CIDR_TEXT_SIZE];
	struct store_events events;

	if (!index_is_whole(r))
		return;
	q.host = op_canonical_host(q.host, host);
	q.cidr = op_canonical_cidr(q.cidr, cidr);
	int code = store_events_list(r->control->store, r->workspace, &q, &a, &events);
	if (code) {
		fail_list(r, code, "events_list");
		return;
	}
	for (size_t i = 0; i < events.n; i++)
		request_row(r, MSG_TYPE_row_event, &events.v[i]);
	request_done_page(r, events.page.has_more, events.page.cursor);
}

/* What belongs to no workspace (daemons, callers without a key) is for those who may see everything. */
void op_audit_events(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {.max = (size_t)32 << 20};
	struct store_generals events;

	if (!index_is_whole(r))
		return;
	int code = store_generals_list(r->control->store, r->workspace, r->scopes & SCOPE_ADMIN,
				       REQUEST_RECORD(r, msg_generals_list), &a, &events);
	if (code) {
		fail_list(r, code, "generals_list");
		return;
	}
	for (size_t i = 0; i < events.n; i++)
		request_row(r, MSG_TYPE_row_general, &events.v[i]);
	request_done_page(r, events.page.has_more, events.page.cursor);
}

struct summing {
	struct store_summary *summary;
	uint64_t ends_ms;
};

static void free_summing(void *work)
{
	struct summing *s = work;

	store_summary_destroy(s->summary);
	free(s);
}

/* False: it has been answered. */
static bool begin_summing(struct request *r)
{
	unsigned all = 0, own = 0;

	for (const struct request *other = r->control->requests; other; other = other->next) {
		if (other->work_free != free_summing)
			continue;
		all++;
		own += other->workspace == r->workspace;
	}
	if (own || all >= SUMMARIES_MAX) {
		request_fail(r, CODE_RATE_LIMITED, "a summary is being counted %s; try again when it is through",
			     own ? "for this workspace already" : "for too many others");
		return false;
	}
	struct summing *s = xcalloc(1, sizeof *s);
	*s = (struct summing){
		.summary = store_summary_create(r->control->store, r->workspace, REQUEST_RECORD(r, msg_summary_get)),
		.ends_ms = mono_ms() + SUMMARY_MOST_MS,
	};
	r->work = s;
	r->work_free = free_summing;
	return true;
}

static void answer_summary(struct request *r)
{
	struct row_summary *rows;
	size_t n;

	int code = store_summary_rows(((struct summing *)r->work)->summary, SUMMARY_HOSTS, &rows, &n);
	if (code) {
		request_fail_store(r, code, "summary_rows");
		return;
	}
	for (size_t i = 0; i < n; i++)
		request_row(r, MSG_TYPE_row_summary, &rows[i]);
	request_done_page(r, false, STR_NONE);
}

void op_audit_summary(struct request *r)
{
	if (!index_is_whole(r))
		return;
	if (!r->work && !begin_summing(r))
		return;
	struct summing *s = r->work;
	int code = store_summary_step(s->summary, SUMMARY_TURN_MS);
	if (code > 0 && mono_ms() >= s->ends_ms)
		request_fail(r, CODE_UNAVAILABLE, "there is too much to count in %d s; ask for less with since and until",
			     SUMMARY_MOST_MS / 1000);
	else if (code > 0)
		request_again(r);
	else if (code < 0)
		fail_list(r, code, "summary");
	else
		answer_summary(r);
}
