/* The runs of VMs, and the starts that restart: always made. */
#include "base/id.h"
#include "base/vec.h"
#include "store/store_sqlite.h"

#define SESSIONS_DEFAULT 50
#define SESSION_COLUMNS                                                                                                \
	"SELECT id, vm, generation, started_at, ended_at, end_reason, cpu_us, memory_peak_bytes, disk_bytes,"          \
	" disk_read_bytes, disk_written_bytes, net_sent_bytes, net_received_bytes FROM sessions WHERE vm = ?"
/* when the last that is known of it was */
#define LAST_KNOWN "max(started_at, sampled_at)"

int store_restarts_count(struct store *s, uint64_t vm, int64_t since, unsigned *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT count(*) FROM vm_restarts WHERE vm = ? AND at >= ?", NULL, &q);

	if (r)
		return r;
	bind_u64(&q, vm);
	bind_i64(&q, since);
	r = query_step(&q);
	if (r <= 0)
		return r ? r : -EUCLEAN;
	*ret = (unsigned)column_i64(&q);
	return 0;
}

static int restarts_forget(struct store *s, uint64_t vm, int64_t before)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "DELETE FROM vm_restarts WHERE vm = ? AND at < ?", &q);

	if (r)
		return r;
	bind_u64(&q, vm);
	bind_i64(&q, before);
	return query_run(&q, NULL);
}

int store_restart_note(struct store *s, uint64_t vm, int64_t now, int64_t since)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = restarts_forget(s, vm, since);

	if (r == 0)
		r = query_begin_write(s, "INSERT INTO vm_restarts (vm, at) VALUES (?, ?)", &q);
	if (r)
		return r;
	bind_u64(&q, vm);
	bind_i64(&q, now);
	return query_run(&q, NULL);
}

/* --- sessions --- */

static int sessions_trim(struct store *s, uint64_t vm)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "DELETE FROM sessions WHERE vm = ? AND generation <= (SELECT generation FROM sessions"
				  " WHERE vm = ? ORDER BY generation DESC LIMIT 1 OFFSET ?)",
				  &q);

	if (r)
		return r;
	bind_u64(&q, vm);
	bind_u64(&q, vm);
	bind_i64(&q, STORE_SESSIONS_MAX);
	return query_run(&q, NULL);
}

int store_session_open(struct store *s, uint64_t vm, uint64_t generation, int64_t now)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "INSERT INTO sessions (id, vm, generation, started_at, ended_at, sampled_at, end_reason,"
				  " cpu_us, memory_peak_bytes, disk_bytes, disk_read_bytes, disk_written_bytes,"
				  " net_sent_bytes, net_received_bytes) VALUES (?, ?, ?, ?, 0, 0, '', 0, 0, 0, 0, 0, 0, 0)"
				  " ON CONFLICT (vm, generation) DO NOTHING",
				  &q);

	if (r)
		return r;
	bind_u64(&q, id_random());
	bind_u64(&q, vm);
	bind_u64(&q, generation);
	bind_i64(&q, now);
	r = query_run(&q, NULL);
	return r ? r : sessions_trim(s, vm);
}

static void bind_used(struct query *q, const struct rec_vm_usage *used)
{
	const uint64_t numbers[] = {used->cpu_us, used->memory_peak_bytes, used->disk_bytes, used->disk_read_bytes,
				    used->disk_written_bytes, used->net_sent_bytes, used->net_received_bytes};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		bind_u64(q, MIN(numbers[i], (uint64_t)INT64_MAX));
}

int store_session_sample(struct store *s, uint64_t vm, uint64_t generation, int64_t now, const struct rec_vm_usage *used)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s,
				  "UPDATE sessions SET cpu_us = max(cpu_us, ?), memory_peak_bytes = max(memory_peak_bytes, ?),"
				  " disk_bytes = ?, disk_read_bytes = max(disk_read_bytes, ?),"
				  " disk_written_bytes = max(disk_written_bytes, ?), net_sent_bytes = max(net_sent_bytes, ?),"
				  " net_received_bytes = max(net_received_bytes, ?), sampled_at = ?"
				  " WHERE vm = ? AND generation = ? AND ended_at = 0",
				  &q);

	if (r)
		return r;
	bind_used(&q, used);
	bind_i64(&q, now);
	bind_u64(&q, vm);
	bind_u64(&q, generation);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_session_close(struct store *s, uint64_t vm, uint64_t generation, int64_t now, struct str reason,
			const struct rec_vm_usage *used)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = used ? store_session_sample(s, vm, generation, now, used) : 0;

	if (r == 0)
		r = query_begin_write(s,
				      "UPDATE sessions SET ended_at = CASE WHEN ?1 = 0 THEN " LAST_KNOWN
				      " ELSE max(?1, started_at) END, end_reason = ?2"
				      " WHERE vm = ?3 AND generation = ?4 AND ended_at = 0",
				      &q);
	if (r)
		return r == -ENOENT ? 0 : r;
	bind_i64(&q, now);
	bind_str(&q, str_make(reason.p, MIN(reason.len, (size_t)255)));
	bind_u64(&q, vm);
	bind_u64(&q, generation);
	return query_run(&q, NULL);
}

int store_sessions_close(struct store *s, uint64_t vm, uint64_t running, struct str reason)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s,
				  "UPDATE sessions SET ended_at = " LAST_KNOWN ", end_reason = ?"
				  " WHERE vm = ? AND generation <> ? AND ended_at = 0",
				  &q);

	if (r)
		return r;
	bind_str(&q, str_make(reason.p, MIN(reason.len, (size_t)255)));
	bind_u64(&q, vm);
	bind_u64(&q, running);
	return query_run(&q, NULL);
}

static int session_columns(struct query *q, struct row_session *ret)
{
	struct row_session row = {0};

	row.id = column_u64(q);
	row.vm = column_u64(q);
	row.generation = column_u64(q);
	row.started_at = column_i64(q);
	row.ended_at = column_i64(q);
	row.end_reason = column_str(q);
	row.cpu_time_ms = column_u64(q) / 1000;
	row.memory_peak_bytes = column_u64(q);
	row.disk_bytes = column_u64(q);
	row.disk_read_bytes = column_u64(q);
	row.disk_written_bytes = column_u64(q);
	row.network_sent_bytes = column_u64(q);
	row.network_received_bytes = column_u64(q);
	row.duration_ms = row.ended_at > row.started_at ? (uint64_t)(row.ended_at - row.started_at) : 0;
	if (q->error)
		return q->error;
	*ret = row;
	return 0;
}

int store_session_last(struct store *s, uint64_t vm, struct arena *a, struct row_session *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, SESSION_COLUMNS " ORDER BY generation DESC LIMIT 1", a, &q);

	if (r)
		return r;
	bind_u64(&q, vm);
	r = query_step(&q);
	return r <= 0 ? (r ? r : -ENOENT) : session_columns(&q, ret);
}

static int sessions_page(struct query *q, uint64_t vm, size_t limit, struct store_sessions *ret)
{
	struct store_sessions page = {0};
	size_t cap = 0;
	int r = 0;

	while (r == 0 && (r = query_step(q)) > 0) {
		page.page.has_more = page.n == limit;
		if (page.page.has_more)
			break;
		struct row_session *row = rows_push(q->a, (void **)&page.v, &page.n, &cap, sizeof *row);
		r = row ? session_columns(q, row) : -ENOMEM;
	}
	if (r < 0)
		return r;
	if (page.page.has_more) {
		struct cursor c = {.list = CURSOR_SESSIONS, .number = (int64_t)page.v[page.n - 1].generation, .id = vm};
		r = cursor_format(&c, q->a, &page.page.cursor);
		if (r)
			return r;
	}
	*ret = page;
	return 0;
}

int store_sessions_list(struct store *s, uint64_t vm, struct str cursor, uint32_t limit, struct arena *a,
			struct store_sessions *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	size_t n = limit ? limit : SESSIONS_DEFAULT;
	struct cursor c = {.number = INT64_MAX};
	bool given;

	int r = cursor_parse(cursor, CURSOR_SESSIONS, 0, 0, a, &c, &given);
	if (r == 0 && given && c.id != vm)
		r = -EINVAL;
	if (r == 0)
		r = query_begin(s, SESSION_COLUMNS " AND generation < ? ORDER BY generation DESC LIMIT ?", a, &q);
	if (r)
		return r;
	bind_u64(&q, vm);
	bind_i64(&q, c.number);
	bind_i64(&q, (int64_t)n + 1);
	return sessions_page(&q, vm, n, ret);
}
