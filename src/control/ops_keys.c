#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "control/auth.h"
#include "control/ops.h"
#include "model/name.h"

void op_key_list(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_keys keys;

	int code = store_keys_list(r->control->store, r->workspace, REQUEST_RECORD(r, msg_page), &a, &keys);
	if (code) {
		request_fail_list(r, code, "keys_list");
		return;
	}
	for (size_t i = 0; i < keys.n; i++)
		request_row(r, MSG_TYPE_row_key, &keys.v[i].row);
	request_done_page(r, keys.page.has_more, keys.page.cursor);
}

/* No key makes a stronger one than itself. False: answered. */
static bool key_is_acceptable(struct request *r, const struct msg_key_create *m)
{
	struct error e = {0};

	if (object_name_check("name", m->name, &e)) {
		request_fail(r, CODE_VALIDATION_ERROR, "%s", e.text);
		return false;
	}
	if (m->scopes == 0 || m->scopes & ~(uint32_t)SCOPE_ALL) {
		request_fail(r, CODE_VALIDATION_ERROR, "scopes must name at least one scope");
		return false;
	}
	if (m->expires_at && m->expires_at <= real_ms()) {
		request_fail(r, CODE_VALIDATION_ERROR, "expires_at must be in the future");
		return false;
	}
	for (unsigned i = 0; i < SCOPE_COUNT; i++) {
		if (!(m->scopes & 1U << i) || scope_covers(r->scopes, 1U << i))
			continue;
		request_fail(r, CODE_SCOPE_MISSING, "a key cannot make one with the scope %s, which it lacks itself",
			     scope_text(i));
		return false;
	}
	return true;
}

static int insert_key(struct request *r, const struct store_key *key, const uint8_t hash[STORE_KEY_HASH_SIZE])
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};

	int code = store_begin(r->control->store, STORE_FULL, &tx);
	if (code == 0)
		code = store_key_create(r->control->store, key, hash);
	if (code == 0)
		code = request_keep(r);
	return code ? code : store_commit(&tx);
}

static void detail_of_scopes(struct detail *d, uint32_t scopes)
{
	_cleanup_(buf_finish) struct buf list = {0};

	for (unsigned i = 0; i < SCOPE_COUNT; i++)
		if (scopes & 1U << i)
			wire_list_add_z(&list, scope_text(i));
	detail_add_list(d, "scopes", buf_str(&list));
}

/* Of a call that was done before a crash (kept.h): the key itself was shown then, or is lost. */
static void answer_made_key(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_key key;

	int code = store_key_get(r->control->store, r->workspace, r->new_id, &a, &key);
	if (code == -ENOENT) {
		request_fail(r, CODE_KEY_NOT_FOUND, "the key was revoked meanwhile; use a new Idempotency-Key for another");
	} else if (code) {
		request_fail_store(r, code, "key_get");
	} else {
		request_row(r, MSG_TYPE_row_key, &key.row);
		request_done(r, 201);
	}
}

void op_key_create(struct request *r)
{
	const struct msg_key_create *m = REQUEST_RECORD(r, msg_key_create);
	_cleanup_(detail_finish) struct detail d = {0};
	uint8_t hash[STORE_KEY_HASH_SIZE];
	char text[KEY_TEXT_SIZE], hint[32];

	if (r->applied) {
		answer_made_key(r);
		return;
	}
	if (!key_is_acceptable(r, m))
		return;
	detail_add_id(&d, "made", "key_", r->new_id);
	detail_add(&d, "name", m->name);
	detail_of_scopes(&d, m->scopes);
	if (!request_on_record(r, EVENT_KEY, "create", 0, &d))
		return;
	key_generate(text, hash);
	snprintf(hint, sizeof hint, "iron_live_...%s", text + KEY_TEXT_SIZE - 5);
	struct store_key key = {
		.workspace = r->workspace,
		.row = {.id = r->new_id, .name = m->name, .hint = str_of(hint), .scopes = m->scopes,
			.created_at = real_ms(), .expires_at = m->expires_at},
	};
	int code = insert_key(r, &key, hash);
	if (code) {
		request_fail_store(r, code, "key_create");
	} else {
		key.row.key = str_of(text);
		request_row(r, MSG_TYPE_row_key, &key.row);
		request_done(r, 201);
	}
	explicit_bzero(text, sizeof text);
}

static int revoke_key(struct request *r, uint64_t id)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};

	int code = store_begin(r->control->store, STORE_FULL, &tx);
	if (code == 0)
		code = store_key_revoke(r->control->store, r->workspace, id, real_ms());
	return code ? code : store_commit(&tx);
}

void op_key_delete(struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	_cleanup_(detail_finish) struct detail d = {0};
	uint64_t id = REQUEST_RECORD(r, msg_object)->id;
	struct store_key key;

	int code = store_key_get(r->control->store, r->workspace, id, &a, &key);
	if (code == 0 && (key.row.scopes & SCOPE_ADMIN) && !(r->scopes & SCOPE_ADMIN)) {
		request_fail(r, CODE_SCOPE_MISSING, "a key with the scope admin is revoked by one that has it too");
		return;
	}
	if (code == 0) {
		detail_add_id(&d, "revoked", "key_", id);
		detail_add(&d, "name", key.row.name);
		if (!request_on_record(r, EVENT_KEY, "revoke", 0, &d))
			return;
		code = revoke_key(r, id);
	}
	if (code == -ENOENT)
		request_fail(r, CODE_KEY_NOT_FOUND, "there is no such key; `iron keys list` shows which there are");
	else if (code)
		request_fail_store(r, code, "key_revoke");
	else
		request_done(r, 204);
}
