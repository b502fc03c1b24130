#include <string.h>

#include "base/text.h"
#include "store/store_sqlite.h"

WIRE_DEFINE(cursor, CURSOR_FIELDS);

void select_finish(struct select *q)
{
	buf_finish(&q->text);
}

void select_add(struct select *q, const char *text)
{
	buf_append_z(&q->text, text);
}

void select_i64(struct select *q, const char *text, int64_t v)
{
	select_add(q, text);
	if (q->n < SELECT_BINDS_MAX)
		q->binds[q->n++].number = v;
	else
		q->text.failed = true;
}

void select_str(struct select *q, const char *text, struct str v)
{
	select_i64(q, text, 0);
	q->binds[q->n - 1].is_text = true;
	q->binds[q->n - 1].text = v;
}

int query_begin_select(struct store *s, const struct select *q, struct arena *a, struct query *ret)
{
	_cleanup_free_ char *sql = str_dup(buf_str(&q->text));

	if (q->text.failed)
		return -EMSGSIZE;
	int r = query_begin(s, sql, a, ret);
	for (unsigned i = 0; r == 0 && i < q->n; i++) {
		if (q->binds[i].is_text)
			bind_str(ret, q->binds[i].text);
		else
			bind_i64(ret, q->binds[i].number);
	}
	return r;
}

int cursor_format(const struct cursor *c, struct arena *a, struct str *ret)
{
	_cleanup_(buf_finish) struct buf bytes = BUF_MAX(120);
	int r = wire_encode(&cursor_wire, c, &bytes);

	if (r)
		return r;
	char *text = arena_alloc(a, 2 * bytes.len + 1);
	if (!text)
		return -ENOMEM;
	hex_encode(bytes.data, bytes.len, text);
	*ret = str_make(text, 2 * bytes.len);
	return 0;
}

int cursor_parse(struct str text, enum cursor_list list, uint8_t sort, uint8_t order, struct arena *a,
		 struct cursor *ret, bool *ret_given)
{
	*ret_given = text.len > 0;
	if (text.len == 0)
		return 0;
	if (text.len % 2 || text.len > 255)
		return -EINVAL;
	uint8_t *bytes = arena_alloc(a, text.len / 2);
	if (!bytes)
		return -ENOMEM;
	if (hex_decode(text, bytes, text.len / 2) || wire_decode(&cursor_wire, str_make(bytes, text.len / 2), ret))
		return -EINVAL;
	return ret->list == list && ret->sort == sort && ret->order == order ? 0 : -EINVAL;
}

void *rows_push(struct arena *a, void **v, size_t *n, size_t *cap, size_t size)
{
	if (*n == *cap) {
		size_t more = *cap ? *cap * 2 : 16;
		void *room = arena_alloc(a, more * size);
		if (!room)
			return NULL;
		if (*n)
			memcpy(room, *v, *n * size);
		*v = room;
		*cap = more;
	}
	return (char *)*v + (*n)++ * size;
}
