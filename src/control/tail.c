#include "control/tail.h"

#include <errno.h>

#include "audit/index.h"
#include "base/log.h"

#define TURN_RECORDS 500 /* about 10 ms: requests wait no longer for the index than that */
#define SEGMENT_TIMEOUT_MS 10000

struct tail {
	struct store *store;
	struct links *links;
	struct audit_index *index;
	struct event *turn;
	struct store_tx tx;
};

struct want {
	struct tail *tail;
	uint64_t number;
};

static void again(struct tail *t, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};
	evtimer_add(t->turn, &tv);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct tail *t = arg;
	int r = audit_index_step(t->index, TURN_RECORDS);

	if (r < 0)
		log_limited(LOG_LEVEL_WARN, 1, "the audit index does not advance", "code=%d", r);
	if (r)
		again(t, r > 0 ? 0 : 1000);
}

static int sink_position(struct msg_audit_head *ret, void *user)
{
	return store_index_position(((struct tail *)user)->store, ret);
}

static int sink_begin(void *user)
{
	struct tail *t = user;
	return store_begin(t->store, STORE_NORMAL, &t->tx);
}

static int sink_put(uint64_t seq, int64_t time_ms, uint16_t type, const void *record, void *user)
{
	return store_index_put(((struct tail *)user)->store, seq, time_ms, type, record);
}

static int sink_commit(const struct msg_audit_head *position, void *user)
{
	struct tail *t = user;
	int r = store_index_advance(t->store, position);

	if (r == 0)
		return store_commit(&t->tx);
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

void tail_on_head(struct tail *t, const struct msg_audit_head *head)
{
	audit_index_head(t->index, head);
	if (!evtimer_pending(t->turn, NULL))
		again(t, 0);
}

struct tail *tail_create(struct event_base *base, struct store *store, struct links *links)
{
	static const struct audit_index_sink sink = {sink_position, sink_begin,    sink_put,
	                                             sink_commit,   sink_rollback, sink_want};
	struct tail *t = xcalloc(1, sizeof *t);

	*t = (struct tail){.store = store, .links = links};
	t->index = audit_index_create(&sink, t);
	t->turn = evtimer_new(base, on_turn, t);
	if (!t->index || !t->turn)
		abort();
	return t;
}

void tail_destroy(struct tail *t)
{
	if (!t)
		return;
	event_free(t->turn);
	audit_index_destroy(t->index);
	store_tx_finish(&t->tx);
	free(t);
}
