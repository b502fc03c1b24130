/* A list of the index is read in windows of sequence numbers, in journal order, until the page is full or the call has
 * looked long enough: so a filter that matches little cannot hold iron-control up, and the cursor is always the place in
 * the journal that was reached. Numbers without a row (they jump at each start of iron-audit) cost one look-up. */
#include "base/clock.h"
#include "store/store_sqlite.h"

#define PAGE_DEFAULT 50
#define WINDOW ((uint64_t)1 << 14)
#define LOOK_MS 100
#define ORDER_ASC 1
#define ORDER_DESC 2

static const struct scan_table {
	enum cursor_list cursor;
	const char *first_since, *last_until, *next_up, *next_down;
} tables[] = {
	[SCAN_EVENTS] = {CURSOR_EVENTS, "SELECT seq FROM ix.events WHERE time >= ? ORDER BY time, seq LIMIT 1",
			 "SELECT seq FROM ix.events WHERE time <= ? ORDER BY time DESC, seq DESC LIMIT 1",
			 "SELECT seq FROM ix.events WHERE seq > ? ORDER BY seq LIMIT 1",
			 "SELECT seq FROM ix.events WHERE seq <= ? ORDER BY seq DESC LIMIT 1"},
	[SCAN_GENERALS] = {CURSOR_GENERALS, "SELECT seq FROM ix.generals WHERE time >= ? ORDER BY time, seq LIMIT 1",
			   "SELECT seq FROM ix.generals WHERE time <= ? ORDER BY time DESC, seq DESC LIMIT 1",
			   "SELECT seq FROM ix.generals WHERE seq > ? ORDER BY seq LIMIT 1",
			   "SELECT seq FROM ix.generals WHERE seq <= ? ORDER BY seq DESC LIMIT 1"},
};

static int sequence(struct store *s, const char *sql, int64_t v, uint64_t otherwise, uint64_t *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, sql, NULL, &q);

	if (r)
		return r;
	bind_i64(&q, v);
	r = query_step(&q);
	if (r >= 0)
		*ret = r ? column_u64(&q) : otherwise;
	return r < 0 ? r : 0;
}

int scan_bounds(struct scan *x)
{
	const struct scan_table *t = &tables[x->table];
	struct msg_audit_head position;
	uint64_t first = 1;
	int r = store_index_position(x->s, &position);

	x->from = 0;
	x->to = position.seq;
	if (r == 0 && x->since) {
		r = sequence(x->s, t->first_since, x->since, x->to + 1, &first);
		x->from = first - 1;
	}
	/* asc: what is appended later may be stamped earlier, where the clock was stepped, and is still to be found */
	if (r == 0 && x->until && x->order != ORDER_ASC)
		r = sequence(x->s, t->last_until, x->until, 0, &x->to);
	return r;
}

int scan_next(struct scan *x, uint64_t *ret_after, uint64_t *ret_to)
{
	const struct scan_table *t = &tables[x->table];
	bool up = x->order == ORDER_ASC;
	uint64_t at = 0;

	int r = x->from >= x->to ? 0 :
		up		 ? sequence(x->s, t->next_up, (int64_t)x->from, x->to + 1, &at) :
				   sequence(x->s, t->next_down, (int64_t)x->to, 0, &at);
	if (r)
		return r;
	if (x->from >= x->to || at <= x->from || at > x->to) {
		*(up ? &x->from : &x->to) = up ? MAX(x->from, x->to) : x->from;
		return 0;
	}
	if (up) {
		*ret_after = at - 1;
		*ret_to = x->from = MIN(x->to, at - 1 + WINDOW);
	} else {
		*ret_to = at;
		*ret_after = x->to = MAX(x->from, at > WINDOW ? at - WINDOW : 0);
	}
	return 1;
}

int scan_select(struct scan *x, struct select *sel, struct query *ret)
{
	select_i64(sel, x->order == ORDER_ASC ? " ORDER BY seq LIMIT ?" : " ORDER BY seq DESC LIMIT ?",
		   (int64_t)(x->limit - x->n + 1));
	return query_begin_select(x->s, sel, x->a, ret);
}

bool scan_has_room(struct scan *x)
{
	x->full = x->n == x->limit;
	return !x->full;
}

void scan_found(struct scan *x, uint64_t seq)
{
	x->n++;
	x->last = seq;
}

/* *ret_at: the place reached. */
static int look(struct scan *x, bool *ret_more, uint64_t *ret_at)
{
	uint64_t started = mono_ms(), after, to;
	bool up = x->order == ORDER_ASC;
	int r;

	*ret_more = true;
	while ((r = scan_next(x, &after, &to)) > 0) {
		r = x->window(x, after, to, x->user);
		if (r)
			return r;
		if (x->full) {
			*ret_at = x->last;
			return 0;
		}
		if (mono_ms() - started > LOOK_MS && x->from < x->to) {
			*ret_at = up ? x->from : x->to + 1;
			return 0;
		}
	}
	*ret_more = false;
	*ret_at = up ? x->from : 0;
	return r;
}

int scan_run(struct scan *x, struct str cursor, struct store_page *ret)
{
	struct cursor c = {0};
	bool given = false, more = false;
	uint64_t at = 0;

	x->order = x->order ? x->order : x->since ? ORDER_ASC : ORDER_DESC;
	x->limit = x->limit ? x->limit : PAGE_DEFAULT;
	if (x->order > ORDER_DESC)
		return -EINVAL;
	bool up = x->order == ORDER_ASC;
	int r = cursor_parse(cursor, tables[x->table].cursor, 0, x->order, x->a, &c, &given);
	if (r == 0 && given && (c.id > INT64_MAX || (c.id == 0 && !up)))
		r = -EINVAL;
	if (r == 0)
		r = scan_bounds(x);
	if (r)
		return r;
	if (given && up)
		x->from = MAX(x->from, c.id);
	else if (given)
		x->to = MIN(x->to, c.id - 1);
	/* nothing new: the cursor stays where it is, also when it is past what is indexed */
	bool stays = up && x->from > x->to;
	uint64_t stay = given ? c.id : x->to;
	r = look(x, &more, &at);
	if (r)
		return r;
	*ret = (struct store_page){.has_more = more};
	if (!up && !more)
		return 0;
	c = (struct cursor){.list = (uint8_t)tables[x->table].cursor, .order = x->order, .id = stays ? stay : at};
	return cursor_format(&c, x->a, &ret->cursor);
}
