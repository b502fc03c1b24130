#include "control/tail.h"

#include <errno.h>

#include "audit/index.h"
#include "base/clock.h"
#include "base/log.h"
#include "control/control.h"

#define TURN_RECORDS 500 /* about 10 ms: what comes meanwhile waits no longer for the index than that */
#define SEGMENT_TIMEOUT_MS 10000
#define STARVED_MS 1000 /* where requests leave it no turn at all, it takes one as often as that */
#define TRIM_EVENTS 500
#define TRIM_INTERVAL_S 60
#define DAY_MS 86400000

struct tail {
	struct store *store;
	struct links *links;
	struct audit_index *index;
	struct event *turn, *trim;
	struct event *starved; /* of a request's priority */
	struct store_tx tx;
	unsigned keep_days;
	bool fresh;	 /* nothing is indexed, and how much there is to index is not known yet */
	bool broken;	 /* the store's index has to be begun anew, and could not be yet */
	int64_t created_ns; /* as the store has it */
	uint64_t target; /* the index is not whole before it has this sequence; 0: it is whole */
	void (*whole)(void *user);
	void *user;
};

struct want {
	struct tail *tail;
	uint64_t number;
};

static void again(struct tail *t, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};
	struct timeval late = {.tv_sec = (ms + STARVED_MS) / 1000, .tv_usec = (long)((ms + STARVED_MS) % 1000) * 1000};
	evtimer_add(t->turn, &tv);
	evtimer_add(t->starved, &late);
}

/* --- an index that is begun anew --- */

static int set_target(struct tail *t, uint64_t seq)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	int r = store_begin(t->store, STORE_NORMAL, &tx);

	if (r == 0)
		r = store_index_set_target(t->store, seq);
	if (r == 0)
		r = store_commit(&tx);
	if (r == 0)
		t->target = seq;
	return r;
}

static int load(struct tail *t)
{
	struct msg_audit_head position;
	int r = store_index_position(t->store, &position);

	if (r == 0)
		r = store_index_target(t->store, &t->target);
	if (r == 0)
		t->fresh = position.segment == 0 && t->target == 0;
	return r;
}

static bool is_reached(const struct tail *t, const struct audit_index_status *s)
{
	return s->position.seq >= t->target ||
	       (s->position.segment == s->head.segment && s->position.offset >= s->head.offset);
}

static void look_whether_whole(struct tail *t)
{
	struct audit_index_status s;

	audit_index_status(t->index, &s);
	if (t->fresh || !t->target || !is_reached(t, &s) || set_target(t, 0))
		return;
	log_info("the audit index is whole", "seq=%llu skipped=%llu", (unsigned long long)s.position.seq,
		 (unsigned long long)s.skipped);
	t->whole(t->user);
}

int tail_reindex(struct tail *t, const char *why)
{
	log_warn("the audit index is built anew", "reason=%s", log_quote(why));
	store_tx_finish(&t->tx);
	int r = store_index_reset(t->store);
	audit_index_restart(t->index);
	t->fresh = true;
	t->target = 0;
	t->broken = r != 0;
	if (r)
		log_limited(LOG_LEVEL_ERROR, 1, "the audit index cannot be begun anew", "code=%d", r);
	again(t, r ? 1000 : 0);
	return r;
}

/* --- turns --- */

static int step(struct tail *t)
{
	struct audit_index_status s;

	audit_index_status(t->index, &s);
	if (s.head.segment == 0)
		return 0;
	if (t->fresh) {
		int r = set_target(t, s.head.seq);
		if (r)
			return r;
		t->fresh = false;
	}
	return audit_index_step(t->index, TURN_RECORDS);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct tail *t = arg;
	evtimer_del(t->turn);
	evtimer_del(t->starved);
	int r = t->broken ? -EUCLEAN : step(t);

	if (r == -EUCLEAN || r == -ESTALE) {
		tail_reindex(t, r == -EUCLEAN ? "it is damaged" : "it is that of another journal");
		return;
	}
	if (r < 0)
		log_limited(LOG_LEVEL_WARN, 1, "the audit index does not advance", "code=%d", r);
	look_whether_whole(t);
	if (r)
		again(t, r > 0 ? 0 : 1000);
}

static int64_t forget_before(const struct tail *t)
{
	return t->keep_days ? real_ms() - (int64_t)t->keep_days * DAY_MS : INT64_MIN;
}

static int trim_some(struct tail *t, uint64_t *ret_n)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	int r = store_begin(t->store, STORE_NORMAL, &tx);

	if (r == 0)
		r = store_index_trim(t->store, forget_before(t), TRIM_EVENTS, ret_n);
	return r ? r : store_commit(&tx);
}

static void on_trim(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval soon, later = {.tv_sec = TRIM_INTERVAL_S};
	struct tail *t = arg;
	uint64_t n = 0;
	int r = t->broken ? 0 : trim_some(t, &n);

	if (r)
		log_limited(LOG_LEVEL_WARN, 1, "the audit index is not trimmed", "code=%d", r);
	evtimer_add(t->trim, n == TRIM_EVENTS ? &soon : &later);
}

/* --- the sink --- */

static int sink_position(struct msg_audit_head *ret, int64_t *ret_created_ns, void *user)
{
	struct tail *t = user;
	int r = store_index_position(t->store, ret);

	if (r == 0)
		r = store_index_segment(t->store, &t->created_ns);
	*ret_created_ns = t->created_ns;
	return r;
}

static int sink_begin(void *user)
{
	struct tail *t = user;
	return store_begin(t->store, STORE_NORMAL, &t->tx);
}

static int sink_put(uint64_t seq, int64_t time_ms, uint16_t type, const void *record, void *user)
{
	struct tail *t = user;

	if (time_ms < forget_before(t))
		return 0;
	return store_index_put(t->store, seq, time_ms, type, record);
}

static int sink_commit(const struct msg_audit_head *position, int64_t created_ns, void *user)
{
	struct tail *t = user;
	int r = store_index_advance(t->store, position);

	if (r == 0 && created_ns != t->created_ns)
		r = store_index_set_segment(t->store, created_ns);
	if (r == 0)
		r = store_commit(&t->tx);
	if (r == 0) {
		t->created_ns = created_ns;
		return 0;
	}
	store_tx_finish(&t->tx);
	return r;
}

static void sink_rollback(void *user)
{
	store_tx_finish(&((struct tail *)user)->tx);
}

static bool on_segment(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	_cleanup_free_ struct want *w = arg;
	struct tail *t = w->tail;
	int fd = -1, code = -ETIMEDOUT;

	if (!ipc_peer_is_open(p))
		return true; /* this process ends; the tail may be gone */
	if (m && m->info->type == MSG_TYPE_msg_segment && m->nfds == 1) {
		fd = take_fd(m->fds[0]);
		code = 0;
	} else if (m && m->info->type == MSG_TYPE_msg_result) {
		code = (int)IPC_RECORD(m, msg_result)->code;
	}
	audit_index_segment(t->index, w->number, fd, code);
	again(t, code && code != -ENOENT ? 1000 : 0);
	return true;
}

static int sink_want(uint64_t segment, void *user)
{
	struct tail *t = user;
	struct want *w = xcalloc(1, sizeof *w);

	*w = (struct want){.tail = t, .number = segment};
	int r = ipc_call(links_irond(t->links), MSG_TYPE_msg_segment_open,
	                 &(struct msg_segment_open){.number = segment}, NULL, 0, SEGMENT_TIMEOUT_MS, on_segment, w);
	if (r)
		free(w);
	return r;
}

/* --- news, questions --- */

void tail_on_head(struct tail *t, const struct msg_audit_head *head)
{
	audit_index_head(t->index, head);
	if (head->seq == 0)
		t->fresh = false; /* there is nothing to index */
	if (!evtimer_pending(t->turn, NULL))
		again(t, 0);
}

void tail_get_status(const struct tail *t, struct tail_status *ret)
{
	struct audit_index_status s;
	uint64_t done = 0, part = 0;

	audit_index_status(t->index, &s);
	*ret = (struct tail_status){.whole = !t->fresh && !t->target, .skipped = s.skipped, .permille = 1000,
				    .indexed = s.position.seq, .written = s.head.seq};
	if (ret->whole || s.head.segment == 0)
		return;
	if (s.position.segment == s.head.segment)
		part = s.head.offset ? 1000 * MIN(s.position.offset, s.head.offset) / s.head.offset : 0;
	if (s.position.segment)
		done = 1000 * (s.position.segment - 1) + part;
	ret->permille = (unsigned)MIN(done / s.head.segment, (uint64_t)999);
}

static struct event *idle_timer(struct event_base *base, event_callback_fn fn, struct tail *t)
{
	struct event *e = evtimer_new(base, fn, t);

	if (!e)
		abort();
	event_priority_set(e, CONTROL_IDLE);
	return e;
}

struct tail *tail_create(struct event_base *base, struct store *store, struct links *links, unsigned keep_days,
			 void (*whole)(void *user), void *user)
{
	static const struct audit_index_sink sink = {sink_position, sink_begin,    sink_put,
	                                             sink_commit,   sink_rollback, sink_want};
	static const struct timeval soon = {.tv_sec = 1};
	struct tail *t = xcalloc(1, sizeof *t);

	*t = (struct tail){.store = store, .links = links, .keep_days = keep_days, .whole = whole, .user = user};
	t->broken = load(t) == -EUCLEAN;
	t->index = audit_index_create(&sink, t);
	t->turn = idle_timer(base, on_turn, t);
	t->trim = idle_timer(base, on_trim, t);
	t->starved = evtimer_new(base, on_turn, t);
	if (!t->starved)
		abort();
	if (keep_days)
		evtimer_add(t->trim, &soon);
	return t;
}

void tail_destroy(struct tail *t)
{
	if (!t)
		return;
	event_free(t->turn);
	event_free(t->trim);
	event_free(t->starved);
	audit_index_destroy(t->index);
	store_tx_finish(&t->tx);
	free(t);
}
