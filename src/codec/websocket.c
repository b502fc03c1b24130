#include "codec/websocket.h"

#include <errno.h>
#include <openssl/sha.h>

#include "base/text.h"

#define CONTROL_MAX 125

void ws_decoder_init(struct ws_decoder *d, bool peer_masks, size_t max_message)
{
	*d = (struct ws_decoder){.peer_masks = peer_masks, .max_message = max_message};
	d->message.max = max_message;
	d->control.max = CONTROL_MAX;
}

void ws_decoder_finish(struct ws_decoder *d)
{
	buf_finish(&d->message);
	buf_finish(&d->control);
}

struct frame {
	bool fin, masked;
	enum ws_opcode opcode;
	uint8_t mask[4];
	uint64_t length;
	size_t header;
};

static uint64_t big_endian(const uint8_t *p, size_t n)
{
	uint64_t v = 0;
	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static bool is_opcode(unsigned op)
{
	return op <= WS_BINARY || (op >= WS_CLOSE && op <= WS_PONG);
}

/* 1: the header is whole; 0: more bytes. The length must be in its shortest form (section 5.2). */
static int parse_header(const struct ws_decoder *d, struct str in, struct frame *ret)
{
	const uint8_t *p = (const uint8_t *)in.p;

	if (in.len < 2)
		return 0;
	struct frame f = {.fin = p[0] >> 7, .opcode = p[0] & 15, .masked = p[1] >> 7, .length = p[1] & 127U, .header = 2};
	bool control = f.opcode >= WS_CLOSE;
	if ((p[0] & 0x70) || !is_opcode(p[0] & 15) || f.masked != d->peer_masks || (control && (!f.fin || f.length > CONTROL_MAX)))
		return -EPROTO;
	size_t extra = f.length == 126 ? 2 : f.length == 127 ? 8 : 0;
	if (in.len < 2 + extra + (f.masked ? 4 : 0))
		return 0;
	if (extra) {
		f.length = big_endian(p + 2, extra);
		if (f.length < (extra == 2 ? 126U : 65536U) || f.length >> 63)
			return -EPROTO;
	}
	f.header += extra;
	if (f.masked) {
		memcpy(f.mask, p + f.header, 4);
		f.header += 4;
	}
	*ret = f;
	return 1;
}

static int append_unmasked(struct buf *to, const struct frame *f, const uint8_t *payload)
{
	uint8_t *at = buf_reserve(to, (size_t)f->length);

	if (!at)
		return -EMSGSIZE;
	for (size_t i = 0; i < f->length; i++)
		at[i] = f->masked ? payload[i] ^ f->mask[i & 3] : payload[i];
	buf_commit(to, (size_t)f->length);
	return 0;
}

/* RFC 3629; unlike what may be shown to a person, a message may hold control characters. */
static bool is_utf8(struct str s)
{
	const unsigned char *p = (const unsigned char *)s.p;

	for (size_t i = 0; i < s.len;) {
		size_t n = p[i] < 0x80 ? 1 : p[i] < 0xe0 ? 2 : p[i] < 0xf0 ? 3 : 4;
		uint32_t c = p[i] < 0x80 ? p[i] : p[i] & (0xffU >> (n + 1));
		if ((p[i] >= 0x80 && p[i] < 0xc2) || p[i] > 0xf4 || s.len - i < n)
			return false;
		for (size_t k = 1; k < n; k++) {
			if ((p[i + k] & 0xc0) != 0x80)
				return false;
			c = c << 6 | (p[i + k] & 0x3fU);
		}
		if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10ffff)) || (c >= 0xd800 && c < 0xe000))
			return false;
		i += n;
	}
	return true;
}

static bool is_close_code(uint16_t code)
{
	return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) || (code >= 3000 && code <= 4999);
}

static int control_event(struct ws_decoder *d, const struct frame *f, struct ws_event *ret)
{
	struct str payload = buf_str(&d->control);
	struct ws_event e = {.opcode = f->opcode, .payload = payload};

	if (f->opcode == WS_CLOSE) {
		e.close_code = 1005;
		if (payload.len == 1)
			return -EPROTO;
		if (payload.len) {
			e.close_code = (uint16_t)big_endian((const uint8_t *)payload.p, 2);
			e.payload = str_make(payload.p + 2, payload.len - 2);
			if (!is_close_code(e.close_code))
				return -EPROTO;
			if (!is_utf8(e.payload))
				return -EILSEQ;
		}
	}
	*ret = e;
	return 1;
}

/* A data frame whose payload is in d->message already. 1: the message is whole. */
static int data_event(struct ws_decoder *d, const struct frame *f, struct ws_event *ret)
{
	if (!f->fin)
		return 0;
	*ret = (struct ws_event){.opcode = d->opcode, .payload = buf_str(&d->message)};
	d->opcode = WS_CONTINUATION;
	d->delivered = true;
	return ret->opcode == WS_TEXT && !is_utf8(ret->payload) ? -EILSEQ : 1;
}

static int begin_data(struct ws_decoder *d, const struct frame *f)
{
	/* a continuation needs a message that has begun, and nothing else may come while one has */
	if ((f->opcode == WS_CONTINUATION) == (d->opcode == WS_CONTINUATION))
		return -EPROTO;
	if (f->length > d->max_message || d->message.len > d->max_message - f->length)
		return -EMSGSIZE;
	if (f->opcode != WS_CONTINUATION)
		d->opcode = f->opcode;
	return 0;
}

int ws_decode(struct ws_decoder *d, struct str *in, struct ws_event *ret)
{
	if (d->delivered) {
		buf_clear(&d->message);
		d->delivered = false;
	}
	for (;;) {
		struct frame f;
		int r = parse_header(d, *in, &f);
		if (r <= 0)
			return r;
		bool control = f.opcode >= WS_CLOSE;
		if (!control && f.length > d->max_message)
			return -EMSGSIZE;
		if (in->len - f.header < f.length)
			return 0;
		if (!control && (r = begin_data(d, &f)))
			return r;
		if (control)
			buf_clear(&d->control);
		r = append_unmasked(control ? &d->control : &d->message, &f, (const uint8_t *)in->p + f.header);
		if (r)
			return r;
		*in = str_make(in->p + f.header + f.length, in->len - f.header - (size_t)f.length);
		r = control ? control_event(d, &f, ret) : data_event(d, &f, ret);
		if (r)
			return r;
	}
}

int ws_encode(enum ws_opcode opcode, struct str payload, const uint8_t mask[4], struct buf *out)
{
	uint8_t h[WS_FRAME_OVERHEAD] = {(uint8_t)(0x80 | opcode)};
	size_t n = 2, size = payload.len < 126 ? 0 : payload.len < 65536 ? 2 : 8;

	h[1] = (uint8_t)((mask ? 0x80 : 0) | (size == 0 ? payload.len : size == 2 ? 126 : 127));
	for (size_t i = 0; i < size; i++)
		h[n++] = (uint8_t)((uint64_t)payload.len >> (8 * (size - 1 - i)));
	if (mask)
		for (size_t i = 0; i < 4; i++)
			h[n++] = mask[i];
	uint8_t *at = buf_reserve(out, n + payload.len);
	if (!at)
		return -EMSGSIZE;
	memcpy(at, h, n);
	for (size_t i = 0; i < payload.len; i++)
		at[n + i] = mask ? (uint8_t)payload.p[i] ^ mask[i & 3] : (uint8_t)payload.p[i];
	buf_commit(out, n + payload.len);
	return 0;
}

int ws_encode_close(uint16_t code, const char *reason, const uint8_t mask[4], struct buf *out)
{
	char payload[CONTROL_MAX];
	size_t n = MIN(strlen(reason), sizeof payload - 2);

	payload[0] = (char)(code >> 8);
	payload[1] = (char)code;
	memcpy(payload + 2, reason, n);
	return ws_encode(WS_CLOSE, str_make(payload, n + 2), mask, out);
}

int ws_accept(struct str key, char ret[29])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	_cleanup_(buf_finish) struct buf b = {0};
	uint8_t hash[SHA_DIGEST_LENGTH];

	if (key.len != 24 || base64_decode(key, &b) || b.len != 16)
		return -EINVAL;
	buf_clear(&b);
	buf_append_str(&b, key);
	buf_append_z(&b, guid);
	SHA1(b.data, b.len, hash);
	buf_clear(&b);
	base64_encode(str_make(hash, sizeof hash), &b);
	memcpy(ret, b.data, 28);
	ret[28] = '\0';
	return 0;
}
