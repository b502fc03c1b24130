#include "codec/agent.h"

#include <endian.h>
#include <errno.h>

WIRE_DEFINE(agent_step, AGENT_STEP_FIELDS);
WIRE_DEFINE(agent_step_done, AGENT_STEP_DONE_FIELDS);
WIRE_DEFINE(agent_network, AGENT_NETWORK_FIELDS);
WIRE_DEFINE(agent_dns, AGENT_DNS_FIELDS);
WIRE_DEFINE(agent_clock, AGENT_CLOCK_FIELDS);
WIRE_DEFINE(agent_entropy, AGENT_ENTROPY_FIELDS);
WIRE_DEFINE(agent_identity, AGENT_IDENTITY_FIELDS);
WIRE_DEFINE(agent_environment, AGENT_ENVIRONMENT_FIELDS);
WIRE_DEFINE(agent_trust, AGENT_TRUST_FIELDS);
WIRE_DEFINE(agent_generation, AGENT_GENERATION_FIELDS);

struct rule {
	const char *name; /* NULL: no such type */
	enum agent_side sender;
	enum agent_scope scope;
	size_t least, most;
};

#define RULE(number, name_, sender_, scope_, least_, most_)                                                            \
	[number] = {.name = #name_, .sender = (sender_), .scope = (scope_), .least = (least_), .most = (most_)},
static const struct rule rules[] = {AGENT_TABLE(RULE)};

#define MAGIC_SIZE (sizeof(AGENT_MAGIC) - 1)
#define HELLO_FRAME_SIZE (AGENT_HEADER_SIZE + AGENT_HELLO_SIZE)
_Static_assert(MAGIC_SIZE + 4 + AGENT_NONCE_SIZE == AGENT_HELLO_SIZE, "the hello's parts are its size");

static const struct rule *rule_find(unsigned type)
{
	return type < sizeof rules / sizeof rules[0] && rules[type].name ? &rules[type] : NULL;
}

const char *agent_type_name(unsigned type)
{
	const struct rule *r = rule_find(type);
	return r ? r->name : "?";
}

static bool allowed(const struct rule *r, uint32_t stream, size_t len)
{
	return r && (stream != 0) == (r->scope == AGENT_STREAM) && len >= r->least && len <= r->most;
}

int agent_header_encode(enum agent_type type, uint32_t stream, size_t len, uint8_t ret[AGENT_HEADER_SIZE])
{
	if (!allowed(rule_find(type), stream, len))
		return -EINVAL;
	uint32_t words[3] = {htole32((uint32_t)len), htole32((uint32_t)type), htole32(stream)};
	memcpy(ret, words, sizeof words);
	return 0;
}

int agent_frame_encode(enum agent_type type, uint32_t stream, struct str payload, struct buf *out)
{
	uint8_t header[AGENT_HEADER_SIZE];
	int r = agent_header_encode(type, stream, payload.len, header);
	if (r)
		return r;

	size_t start = out->len;
	r = buf_append(out, header, sizeof header);
	if (r == 0)
		r = buf_append_str(out, payload);
	if (r)
		out->len = start;
	return r;
}

int agent_record_encode(enum agent_type type, uint32_t stream, const struct wire_type *t, const void *record,
			struct buf *out)
{
	uint8_t header[AGENT_HEADER_SIZE] = {0};
	size_t start = out->len;

	int r = buf_append(out, header, sizeof header);
	if (r == 0)
		r = wire_encode(t, record, out);
	if (r == 0)
		r = agent_header_encode(type, stream, out->len - start - sizeof header, header);
	if (r) {
		out->len = start;
		return r;
	}
	memcpy(out->data + start, header, sizeof header);
	return 0;
}

static uint32_t word_at(const char *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof v);
	return le32toh(v);
}

int agent_frame_next(struct str *in, enum agent_side sender, struct agent_frame *ret)
{
	if (in->len < AGENT_HEADER_SIZE)
		return 0;

	/* The two zero bytes are the upper half of the type's word: a type past the table. */
	uint32_t len = word_at(in->p), type = word_at(in->p + 4), stream = word_at(in->p + 8);
	const struct rule *r = rule_find(type);
	if (!allowed(r, stream, len) || !(r->sender & sender))
		return -EBADMSG;
	if (in->len - AGENT_HEADER_SIZE < len)
		return 0;
	*ret = (struct agent_frame){
		.type = (enum agent_type)type, .stream = stream, .payload = str_make(in->p + AGENT_HEADER_SIZE, len)};
	*in = str_make(in->p + AGENT_HEADER_SIZE + len, in->len - AGENT_HEADER_SIZE - len);
	return 1;
}

int agent_hello_encode(enum agent_type type, const uint8_t nonce[AGENT_NONCE_SIZE], struct buf *out)
{
	uint8_t payload[AGENT_HELLO_SIZE];
	uint32_t version = htole32(AGENT_VERSION);

	memcpy(payload, AGENT_MAGIC, MAGIC_SIZE);
	memcpy(payload + MAGIC_SIZE, &version, sizeof version);
	memcpy(payload + MAGIC_SIZE + sizeof version, nonce, AGENT_NONCE_SIZE);
	return agent_frame_encode(type, 0, str_make(payload, sizeof payload), out);
}

int agent_hello_decode(struct str payload, uint32_t *ret_version, uint8_t ret_nonce[AGENT_NONCE_SIZE])
{
	if (payload.len != AGENT_HELLO_SIZE || memcmp(payload.p, AGENT_MAGIC, MAGIC_SIZE) != 0)
		return -EBADMSG;
	*ret_version = word_at(payload.p + MAGIC_SIZE);
	memcpy(ret_nonce, payload.p + MAGIC_SIZE + 4, AGENT_NONCE_SIZE);
	return 0;
}

int agent_sync(struct str *in, enum agent_type type, uint32_t *ret_version, uint8_t ret_nonce[AGENT_NONCE_SIZE])
{
	uint8_t start[AGENT_HEADER_SIZE + MAGIC_SIZE];

	if (agent_header_encode(type, 0, AGENT_HELLO_SIZE, start))
		return 0;
	memcpy(start + AGENT_HEADER_SIZE, AGENT_MAGIC, MAGIC_SIZE);
	const char *at = in->len ? memmem(in->p, in->len, start, sizeof start) : NULL;
	if (!at) {
		size_t keep = in->len < sizeof start - 1 ? in->len : sizeof start - 1;
		*in = str_make(in->p + (in->len - keep), keep);
		return 0;
	}
	*in = str_make(at, in->len - (size_t)(at - in->p));
	if (in->len < HELLO_FRAME_SIZE)
		return 0;
	agent_hello_decode(str_make(at + AGENT_HEADER_SIZE, AGENT_HELLO_SIZE), ret_version, ret_nonce);
	*in = str_make(at + HELLO_FRAME_SIZE, in->len - HELLO_FRAME_SIZE);
	return 1;
}

int agent_credit_encode(uint32_t stream, uint32_t bytes, struct buf *out)
{
	bytes = htole32(bytes);
	return agent_frame_encode(AGENT_CREDIT, stream, str_make(&bytes, sizeof bytes), out);
}

int agent_credit_decode(struct str payload, uint32_t *ret_bytes)
{
	uint32_t v = payload.len == 4 ? word_at(payload.p) : 0;
	if (v == 0 || v > AGENT_WINDOW)
		return -EBADMSG;
	*ret_bytes = v;
	return 0;
}
