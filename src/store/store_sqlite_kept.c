/* Answers kept for Idempotency-Key. */
#include "store/store_sqlite.h"

int store_kept_get(struct store *s, uint64_t workspace, struct str key, struct arena *a, struct store_kept *ret)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT fingerprint, state, made, answer, created_at FROM kept WHERE workspace = ? AND key = ?", a,
			    &q);

	if (r)
		return r;
	bind_u64(&q, workspace);
	bind_str(&q, key);
	r = query_step(&q);
	if (r <= 0)
		return r ? r : -ENOENT;
	struct store_kept k = {
		.workspace = workspace,
		.key = key,
		.fingerprint = column_str(&q),
		.state = column_u8(&q),
		.made = column_u64(&q),
		.answer = column_str(&q),
		.created_at = column_i64(&q),
	};
	if (q.error)
		return q.error;
	*ret = k;
	return 0;
}

int store_kept_add(struct store *s, const struct store_kept *k)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "INSERT INTO kept (workspace, key, fingerprint, state, made, answer, created_at)"
				     " VALUES (?, ?, ?, ?, ?, ?, ?)", &q);

	if (r)
		return r;
	bind_u64(&q, k->workspace);
	bind_str(&q, k->key);
	bind_blob(&q, k->fingerprint);
	bind_i64(&q, k->state);
	bind_u64(&q, k->made);
	bind_blob(&q, k->answer);
	bind_i64(&q, k->created_at);
	return query_run(&q, NULL);
}

int store_kept_set(struct store *s, uint64_t workspace, struct str key, uint8_t state, struct str answer)
{
	_cleanup_(query_finish) struct query q = {0};
	unsigned changed = 0;
	int r = query_begin_write(s, "UPDATE kept SET state = ?, answer = ? WHERE workspace = ? AND key = ?", &q);

	if (r)
		return r;
	bind_i64(&q, state);
	bind_blob(&q, answer);
	bind_u64(&q, workspace);
	bind_str(&q, key);
	r = query_run(&q, &changed);
	return r ? r : changed ? 0 : -ENOENT;
}

int store_kept_remove(struct store *s, uint64_t workspace, struct str key)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "DELETE FROM kept WHERE workspace = ? AND key = ?", &q);

	if (r)
		return r;
	bind_u64(&q, workspace);
	bind_str(&q, key);
	return query_run(&q, NULL);
}

int store_kept_trim(struct store *s, int64_t before_ms, unsigned most)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin_write(s, "DELETE FROM kept WHERE rowid IN"
				     " (SELECT rowid FROM kept WHERE created_at < ? ORDER BY created_at LIMIT ?)", &q);

	if (r)
		return r;
	bind_i64(&q, before_ms);
	bind_i64(&q, most);
	return query_run(&q, NULL);
}

int store_kept_usage(struct store *s, uint64_t workspace, uint64_t *ret_n, uint64_t *ret_bytes)
{
	_cleanup_(query_finish) struct query q = {0};
	int r = query_begin(s, "SELECT count(*), coalesce(sum(length(answer)), 0) FROM kept WHERE workspace = ?", NULL, &q);

	if (r)
		return r;
	bind_u64(&q, workspace);
	r = query_step(&q);
	if (r <= 0)
		return r ? r : -ENOENT;
	*ret_n = column_u64(&q);
	*ret_bytes = column_u64(&q);
	return 0;
}
