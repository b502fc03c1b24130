#include "api/idempotency.h"

#include <openssl/sha.h>

static bool is_visible(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f)
			return false;
	return s.len > 0;
}

const char *idempotency_take(struct call *c, const struct http1_request *req)
{
	const struct http1_header *h = http1_header_find(&req->head, STR("idempotency-key"), NULL);
	_cleanup_(buf_finish) struct buf target = {0};

	if (!h || req->method_id != HTTP1_POST)
		return NULL;
	if (http1_header_find(&req->head, STR("idempotency-key"), h))
		return "Idempotency-Key: given twice";
	if (h->value.len > 255 || !is_visible(h->value))
		return "Idempotency-Key must be 1 to 255 visible ASCII characters";
	c->idempotency_key = arena_str(&c->arena, h->value);
	buf_append_str(&target, req->path);
	buf_append_byte(&target, '?');
	buf_append_str(&target, req->query);
	SHA256(target.data, target.len, c->fingerprint);
	return NULL;
}

void idempotency_seal(struct call *c, struct str body)
{
	uint8_t both[2 * SHA256_DIGEST_LENGTH];

	if (c->idempotency_key.len == 0)
		return;
	memcpy(both, c->fingerprint, SHA256_DIGEST_LENGTH);
	SHA256((const uint8_t *)(body.p ? body.p : ""), body.len, both + SHA256_DIGEST_LENGTH);
	SHA256(both, sizeof both, c->fingerprint);
}

static void tell(struct call *c, unsigned status, struct str body)
{
	struct msg_req who;

	c->owes_answer = false;
	call_identify(c, &who);
	struct msg_keep m = {.key_hash = who.key_hash, .op = who.op, .address = who.address, .client = who.client,
			     .idempotency_key = who.idempotency_key, .fingerprint = who.fingerprint,
			     .status = (uint16_t)status, .body = body};
	if (c->api->control)
		ipc_notify(c->api->control, MSG_TYPE_msg_keep, &m, NULL, 0);
}

void idempotency_tell(struct call *c, unsigned status, struct str body)
{
	/* 409: the VM stopped under a command, which had begun. The other refusals came before anything was done. */
	bool nothing_done = (status >= 400 && status < 500 && status != 409) || status == 503 || status == 507;

	if (!c->owes_answer)
		return;
	if (nothing_done)
		tell(c, 0, STR_NONE);
	else
		tell(c, status, status >= 500 || body.len > KEPT_BODY_MAX ? STR_NONE : body);
}

void idempotency_tell_lost(struct call *c)
{
	if (c->owes_answer)
		tell(c, 499, STR_NONE);
}
