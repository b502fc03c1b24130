#include "control/auth.h"

#include <errno.h>
#include <sodium.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/request.h"

#define TOUCH_INTERVAL_MS 60000

/* When a key was used last is for people: a minute's precision, and a failure to write it is no reason to refuse. */
static void touch(struct control *c, uint64_t key)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};
	uint64_t now = mono_ms() + 1, last = (uint64_t)(uintptr_t)map_get(&c->touched, key);

	if (last && now - last < TOUCH_INTERVAL_MS)
		return;
	map_put(&c->touched, key, (void *)(uintptr_t)now);
	if (store_begin(c->store, STORE_NORMAL, &tx) || store_key_touch(c->store, key, real_ms()) || store_commit(&tx))
		log_limited(LOG_LEVEL_WARN, 1, "last use of a key is not stored", NULL);
}

int auth_check(struct control *c, struct str hash, struct request *r)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_key key;

	if (hash.len != STORE_KEY_HASH_SIZE || store_key_find(c->store, (const uint8_t *)hash.p, &a, &key))
		return -EACCES;
	if (key.row.expires_at && key.row.expires_at <= real_ms())
		return -EACCES;
	r->key = key.row.id;
	r->workspace = key.workspace;
	r->scopes = key.row.scopes;
	touch(c, r->key);
	return 0;
}

void key_generate(char ret_text[KEY_TEXT_SIZE], uint8_t ret_hash[STORE_KEY_HASH_SIZE])
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	static const char prefix[] = "iron_live_";
	size_t n = sizeof prefix - 1;

	_Static_assert(STORE_KEY_HASH_SIZE == crypto_hash_sha256_BYTES, "SHA-256");
	memcpy(ret_text, prefix, n);
	for (; n < KEY_TEXT_SIZE - 1; n++)
		ret_text[n] = digits[randombytes_uniform(sizeof digits - 1)];
	ret_text[n] = '\0';
	crypto_hash_sha256(ret_hash, (const uint8_t *)ret_text, n);
}
