#include "control/kept.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"

#define KEPT_MS ((int64_t)24 * 3600 * 1000)
#define KEPT_MAX 10000
#define KEPT_BYTES_MAX ((uint64_t)64 << 20) /* of a workspace: past it, answers are not kept */
#define ANSWER_MAX ((size_t)1 << 20)
#define TRIM_PIECE 64
#define WAIT_MS 20000

/* In control.kept_now: iron-api does the work, or the request that does. */
static char handed;

static struct str name_of(uint64_t workspace, struct str key, char ret[8 + 256])
{
	memcpy(ret, &workspace, 8);
	memcpy(ret + 8, key.p, key.len);
	return str_make(ret, 8 + key.len);
}

static void wake(struct control *c, uint64_t workspace, struct str key)
{
	for (struct request *r = c->requests; r; r = r->next)
		if (r->waits_kept && r->workspace == workspace && str_eq(r->who.idempotency_key, key)) {
			r->woken = true;
			event_active(c->wake, 0, 0);
		}
}

static void release(struct control *c, uint64_t workspace, struct str key, const void *owner)
{
	char bytes[8 + 256];
	struct str name = name_of(workspace, key, bytes);

	if (map_get_str(&c->kept_now, name) != owner)
		return;
	map_remove_str(&c->kept_now, name);
	wake(c, workspace, key);
}

static void own(struct request *r)
{
	char bytes[8 + 256];

	if (r->deadline)
		event_free(take_ptr(r->deadline));
	r->expired = false;
	r->waits_kept = false;
	r->keeps = true;
	r->kept_rows = BUF_MAX(ANSWER_MAX);
	map_put_str(&r->control->kept_now, name_of(r->workspace, r->who.idempotency_key, bytes), r);
}

/* --- a second call --- */

static void mismatch(struct request *r)
{
	request_fail(r, CODE_IDEMPOTENCY_MISMATCH,
		     "Idempotency-Key: it was used for another call within 24 h; use a new key for a new call");
}

static void replay(struct request *r, struct str answer)
{
	_Alignas(16) char record[MSG_RECORD_MAX];
	const struct msg_info *info;
	struct str item;
	uint32_t txn;

	while (wire_list_next(&answer, &item)) {
		if (msg_decode(item, &info, &txn, record))
			break;
		if (info->type == MSG_TYPE_msg_done) {
			request_replay(r, (struct msg_done *)(void *)record);
			return;
		}
		request_row(r, (enum msg_type)info->type, record);
	}
	request_fail(r, CODE_INTERNAL, "the kept answer cannot be read; use another Idempotency-Key");
}

static void wait_for_first(struct request *r, const struct request *first)
{
	if (first != (void *)&handed && !str_eq(first->who.fingerprint, r->who.fingerprint))
		mismatch(r);
	else if (r->expired)
		request_fail(r, CODE_UNAVAILABLE, "Idempotency-Key: the first call with it is still under way; try again");
	else {
		r->waits_kept = true;
		request_wait_vm(r, 0, WAIT_MS);
	}
}

/* There is a row of the same call, and nobody at work on it. True: the call goes on with it. */
static bool go_on(struct request *r, const struct store_kept *k)
{
	if (k->answer.len) {
		replay(r, k->answer);
		return false;
	}
	if (k->state == KEPT_HANDED) {
		request_fail(r, CODE_IDEMPOTENCY_MISMATCH,
			     "Idempotency-Key: the first call with it was begun in the VM, and its answer was not kept (it was too "
			     "large, a stream, or the client left before it came); see what it did, and use a new key");
		return false;
	}
	own(r);
	if (k->state == KEPT_MADE) {
		r->new_id = k->made;
		r->applied = true;
	} else {
		r->resumed = true;
	}
	return true;
}

/* --- the first call --- */

static int add_row(struct request *r, enum kept_state state)
{
	struct store_kept k = {
		.workspace = r->workspace,
		.key = r->who.idempotency_key,
		.fingerprint = r->who.fingerprint,
		.state = (uint8_t)state,
		.made = r->new_id,
		.created_at = real_ms(),
	};

	return store_kept_add(r->control->store, &k);
}

int request_keep(struct request *r)
{
	return r->keeps && !r->applied ? add_row(r, KEPT_MADE) : 0;
}

/* Old ones go; whether there is room for one more; and its row, where its own transaction does not write it. */
static int begin_row(struct request *r, uint64_t *ret_n)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;
	uint64_t bytes;

	int code = store_begin(s, STORE_NORMAL, &tx);
	if (code == 0)
		code = store_kept_trim(s, real_ms() - KEPT_MS, TRIM_PIECE);
	if (code == 0)
		code = store_kept_usage(s, r->workspace, ret_n, &bytes);
	if (code == 0 && *ret_n < KEPT_MAX && !r->entry->keeps)
		code = add_row(r, KEPT_BEGUN);
	return code ? code : store_commit(&tx);
}

static bool begin_first(struct request *r)
{
	uint64_t n = 0;

	int code = begin_row(r, &n);
	if (code) {
		request_fail_store(r, code, "kept");
		return false;
	}
	if (n >= KEPT_MAX) {
		request_fail(r, CODE_QUOTA_EXCEEDED, "Idempotency-Key: the workspace used %d within 24 h; leave it out", KEPT_MAX);
		return false;
	}
	own(r);
	return true;
}

static int forget_row(struct request *r)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	struct store *s = r->control->store;

	int code = store_begin(s, STORE_NORMAL, &tx);
	if (code == 0)
		code = store_kept_remove(s, r->workspace, r->who.idempotency_key);
	return code ? code : store_commit(&tx);
}

bool kept_begin(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	char bytes[8 + 256];
	struct store_kept k;

	if (r->who.idempotency_key.len == 0 || r->root)
		return true;
	int code = store_kept_get(r->control->store, r->workspace, r->who.idempotency_key, &a, &k);
	if (code == 0 && k.created_at < real_ms() - KEPT_MS) {
		code = forget_row(r);
		code = code ? code : -ENOENT;
	}
	if (code && code != -ENOENT) {
		request_fail_store(r, code, "kept");
		return false;
	}
	if (code == 0 && !str_eq(k.fingerprint, r->who.fingerprint)) {
		mismatch(r);
		return false;
	}
	const struct request *first =
		map_get_str(&r->control->kept_now, name_of(r->workspace, r->who.idempotency_key, bytes));
	if (first) {
		wait_for_first(r, first);
		return false;
	}
	return code == 0 ? go_on(r, &k) : begin_first(r);
}

/* --- its answer --- */

static int add_item(struct buf *list, enum msg_type type, const void *record)
{
	_cleanup_(buf_finish) struct buf item = BUF_MAX(MSG_MAX);

	int code = msg_encode(type, 0, record, &item);
	return code ? code : wire_list_add(list, buf_str(&item));
}

void kept_row(struct request *r, enum msg_type type, const void *row)
{
	struct row_key key;

	if (!r->keeps)
		return;
	if (type == MSG_TYPE_row_key) {
		key = *(const struct row_key *)row;
		key.key = STR_NONE; /* a key is shown once, and kept nowhere */
		row = &key;
	}
	if (add_item(&r->kept_rows, type, row))
		r->kept_rows.failed = true;
}

static int set_row(struct control *c, uint64_t workspace, struct str key, enum kept_state state, struct str answer)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	uint64_t n, bytes;

	int code = store_begin(c->store, STORE_NORMAL, &tx);
	if (code == 0)
		code = store_kept_usage(c->store, workspace, &n, &bytes);
	if (code == 0 && bytes + answer.len > KEPT_BYTES_MAX)
		answer = STR_NONE;
	if (code == 0)
		code = store_kept_set(c->store, workspace, key, (uint8_t)state, answer);
	return code ? code : store_commit(&tx);
}

static int keep_answer(struct request *r, const struct msg_done *done)
{
	enum kept_state state = r->entry->keeps ? KEPT_MADE : KEPT_BEGUN;

	if (add_item(&r->kept_rows, MSG_TYPE_msg_done, done) || r->kept_rows.failed)
		return 0; /* too large: a retry answers with what there is then */
	return set_row(r->control, r->workspace, r->who.idempotency_key, state, buf_str(&r->kept_rows));
}

int kept_end(struct request *r, const struct msg_done *done)
{
	int code;

	if (!r->keeps)
		return 0;
	if (done->status < 300 && done->value) {
		char bytes[8 + 256];
		code = set_row(r->control, r->workspace, r->who.idempotency_key, KEPT_HANDED, STR_NONE);
		if (code)
			return code;
		r->keeps = false;
		map_put_str(&r->control->kept_now, name_of(r->workspace, r->who.idempotency_key, bytes), &handed);
		return 0;
	}
	if (done->status < 300)
		code = keep_answer(r, done);
	else
		code = r->applied ? 0 : forget_row(r);
	if (code)
		log_limited(LOG_LEVEL_ERROR, 1, "the answer of a call with Idempotency-Key is not stored", "code=%d", code);
	return 0;
}

void kept_forget(struct request *r)
{
	r->waits_kept = false;
	buf_finish(&r->kept_rows);
	if (!r->keeps)
		return;
	r->keeps = false;
	release(r->control, r->workspace, r->who.idempotency_key, r);
}

/* --- iron-api's own answers --- */

static int take_answer(struct control *c, uint64_t workspace, const struct msg_keep *m)
{
	_cleanup_(buf_finish) struct buf answer = BUF_MAX(ANSWER_MAX);
	struct row_kept row = {.status = m->status, .body = m->body};
	struct msg_done done = {.status = 200, .replayed = true};

	int code = add_item(&answer, MSG_TYPE_row_kept, &row);
	if (code == 0)
		code = add_item(&answer, MSG_TYPE_msg_done, &done);
	return code ? code : set_row(c, workspace, m->idempotency_key, KEPT_HANDED, buf_str(&answer));
}

static int remove_row(struct control *c, uint64_t workspace, struct str key)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};

	int code = store_begin(c->store, STORE_NORMAL, &tx);
	if (code == 0)
		code = store_kept_remove(c->store, workspace, key);
	return code ? code : store_commit(&tx);
}

/* Not from a key that was revoked meanwhile: its answer is for nobody. Nor where the row was trimmed. */
static bool may_take(struct control *c, const struct msg_keep *m, uint64_t workspace, struct arena *a, struct store_kept *ret)
{
	struct store_key key;

	return store_key_find(c->store, (const uint8_t *)m->key_hash.p, a, &key) == 0 &&
	       store_kept_get(c->store, workspace, m->idempotency_key, a, ret) == 0;
}

void kept_take(struct control *c, const struct msg_keep *m)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_key key;
	struct store_kept k;
	int code = 0;

	if (m->key_hash.len != STORE_KEY_HASH_SIZE || store_key_find_any(c->store, (const uint8_t *)m->key_hash.p, &a, &key))
		return;
	if (may_take(c, m, key.workspace, &a, &k) && k.state == KEPT_HANDED && k.answer.len == 0 &&
	    str_eq(k.fingerprint, m->fingerprint)) {
		if (m->status == 0)
			code = remove_row(c, key.workspace, m->idempotency_key);
		else if (m->body.len || m->status == 204)
			code = take_answer(c, key.workspace, m);
	}
	if (code)
		log_limited(LOG_LEVEL_ERROR, 1, "the answer of a call with Idempotency-Key is not stored", "code=%d", code);
	/* in any case: whoever waits for it goes on */
	release(c, key.workspace, m->idempotency_key, &handed);
}

void kept_drop_handed(struct control *c)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&c->kept_now, &i, &slot))
		if (slot->value == &handed) {
			map_remove_str(&c->kept_now, str_make(slot->bytes, slot->bytes_len));
			i = 0; /* what followed moved up */
		}
}
