/* Two passes: the record headers are walked until the handshake message they carry is whole (so a hello that trickles
 * in costs a walk each time, not a copy); then its bytes, gathered if several records hold them, are parsed once. */
#include "codec/tls_hello.h"

#include "base/cleanup.h"

enum { RECORD_HEADER = 5, HANDSHAKE_HEADER = 4, RECORD_MAX = 16384 };
enum { CONTENT_HANDSHAKE = 22, CONTENT_ALERT = 21, CLIENT_HELLO = 1 };
enum { TLS12 = 0x0303 };
enum {
	EXT_SERVER_NAME = 0,
	EXT_ALPN = 16,
	EXT_PRE_SHARED_KEY = 41,
	EXT_EARLY_DATA = 42,
	EXT_SUPPORTED_VERSIONS = 43,
	EXT_ECH = 0xfe0d,
};

static unsigned be16(const char *p)
{
	return (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1];
}

static unsigned be24(const char *p)
{
	return (unsigned)(uint8_t)p[0] << 16 | be16(p + 1);
}

static bool take(struct str *in, size_t n, struct str *ret)
{
	if (in->len < n)
		return false;
	*ret = str_make(in->p, n);
	*in = str_make(in->p + n, in->len - n);
	return true;
}

/* A run of bytes with its length before it, in `width` (1 or 2) bytes. */
static bool take_vector(struct str *in, size_t width, struct str *ret)
{
	struct str length;
	if (!take(in, width, &length))
		return false;
	return take(in, width == 1 ? (uint8_t)length.p[0] : be16(length.p), ret);
}

/* --- records --- */

struct walk {
	uint8_t first[HANDSHAKE_HEADER]; /* of the message */
	size_t gathered;                 /* bytes of the message seen */
	size_t end;                      /* input bytes up to the message's end */
	unsigned records;
	char *copy_to; /* NULL, or TLS_HELLO_MESSAGE_MAX bytes */
};

static size_t message_size(const struct walk *w)
{
	return HANDSHAKE_HEADER + ((size_t)w->first[1] << 16 | (size_t)w->first[2] << 8 | w->first[3]);
}

/* The payload of one record, as far as it has come. */
static enum tls_hello_result gather(struct walk *w, struct str payload)
{
	for (; payload.len && w->gathered < HANDSHAKE_HEADER; w->gathered++) {
		w->first[w->gathered] = (uint8_t)payload.p[0];
		if (w->copy_to)
			w->copy_to[w->gathered] = payload.p[0];
		payload = str_make(payload.p + 1, payload.len - 1);
		w->end++;
	}
	if (w->gathered && w->first[0] != CLIENT_HELLO)
		return TLS_HELLO_MALFORMED;
	if (w->gathered < HANDSHAKE_HEADER)
		return TLS_HELLO_MORE;
	if (message_size(w) > TLS_HELLO_MESSAGE_MAX)
		return TLS_HELLO_TOO_BIG;
	size_t n = MIN(payload.len, message_size(w) - w->gathered);
	if (w->copy_to && n)
		memcpy(w->copy_to + w->gathered, payload.p, n);
	w->gathered += n;
	w->end += n;
	if (w->gathered < message_size(w))
		return TLS_HELLO_MORE;
	/* RFC 8446 section 5.1: nothing may share the hello's last record, since keys change after it (in 1.2 the
	 * server speaks next). */
	return payload.len > n ? TLS_HELLO_MALFORMED : TLS_HELLO_OK;
}

/* A record header, as far as it has come: 3, minor version at most 4, length. Servers ignore the minor version of a
 * first record (RFC 8446 section 5.1), so a strange one is still TLS, and refused. */
static enum tls_hello_result check_header(struct str in, bool first)
{
	if (in.len >= 1 && in.p[0] != CONTENT_HANDSHAKE)
		return first ? TLS_HELLO_NOT_TLS : TLS_HELLO_MALFORMED;
	if (in.len >= 2 && in.p[1] != 3)
		return first ? TLS_HELLO_NOT_TLS : TLS_HELLO_MALFORMED;
	if (in.len >= 3 && (uint8_t)in.p[2] > 4)
		return TLS_HELLO_MALFORMED;
	if (in.len < RECORD_HEADER)
		return TLS_HELLO_MORE;
	/* An empty handshake record is forbidden, and would make a walk endless. */
	size_t n = be16(in.p + 3);
	return n == 0 || n > RECORD_MAX ? TLS_HELLO_MALFORMED : TLS_HELLO_OK;
}

static enum tls_hello_result walk_records(struct walk *w, struct str in)
{
	for (;;) {
		enum tls_hello_result r = check_header(in, w->records == 0);
		if (r != TLS_HELLO_OK)
			return r;
		if (++w->records > TLS_HELLO_RECORDS_MAX)
			return TLS_HELLO_TOO_BIG;
		size_t n = be16(in.p + 3);
		size_t have = MIN(n, in.len - RECORD_HEADER);
		w->end += RECORD_HEADER;
		r = gather(w, str_make(in.p + RECORD_HEADER, have));
		/* A whole message in a record that has not ended: something else is to come in it. */
		if (r == TLS_HELLO_OK && have < n)
			return TLS_HELLO_MALFORMED;
		if (r != TLS_HELLO_MORE || have < n)
			return r;
		in = str_make(in.p + RECORD_HEADER + n, in.len - RECORD_HEADER - n);
	}
}

/* An SSLv2 hello: a two-byte length with the high bit set, message type 1, version 0x0002 or 0x03nn. */
static bool is_sslv2(struct str in)
{
	return in.len >= 5 && ((uint8_t)in.p[0] & 0x80) && in.p[2] == CLIENT_HELLO &&
	       (in.p[3] == 3 || (in.p[3] == 0 && in.p[4] == 2));
}

static bool may_become_sslv2(struct str in)
{
	return in.len < 5 && ((uint8_t)in.p[0] & 0x80) && (in.len < 3 || in.p[2] == CLIENT_HELLO) &&
	       (in.len < 4 || in.p[3] == 3 || in.p[3] == 0);
}

/* --- extensions --- */

/* RFC 6066 section 3: a list with one entry, a host_name. Literals are not allowed there, and would be no name here. */
static enum tls_hello_result parse_server_name(struct str body, struct tls_hello *h)
{
	struct str list, type, name;

	if (!take_vector(&body, 2, &list) || body.len || list.len == 0)
		return TLS_HELLO_MALFORMED;
	if (!take(&list, 1, &type) || !take_vector(&list, 2, &name))
		return TLS_HELLO_MALFORMED;
	/* A final dot is not part of an SNI; and a second name, or one of another type, would go unjudged. */
	if (list.len || type.p[0] != 0 || str_has_suffix(name, STR(".")) || hostname_parse(name, h->sni))
		return TLS_HELLO_BAD_SNI;
	return TLS_HELLO_OK;
}

static void note_alpn(struct str name, struct tls_hello *h)
{
	if (str_eq(name, STR("h2")))
		h->alpn_h2 = true;
	else if (str_eq(name, STR("http/1.1")))
		h->alpn_http11 = true;
	else
		h->alpn_other = true;
	if (h->alpn_len + 1 + name.len > sizeof h->alpn)
		return;
	h->alpn[h->alpn_len] = (uint8_t)name.len;
	memcpy(h->alpn + h->alpn_len + 1, name.p, name.len);
	h->alpn_len = (uint16_t)(h->alpn_len + 1 + name.len);
}

static enum tls_hello_result parse_alpn(struct str body, struct tls_hello *h)
{
	struct str list, name;

	if (!take_vector(&body, 2, &list) || body.len || list.len == 0)
		return TLS_HELLO_MALFORMED;
	while (list.len) {
		if (!take_vector(&list, 1, &name) || name.len == 0)
			return TLS_HELLO_MALFORMED;
		note_alpn(name, h);
	}
	return TLS_HELLO_OK;
}

static enum tls_hello_result parse_versions(struct str body, struct tls_hello *h)
{
	struct str list, version;

	if (!take_vector(&body, 1, &list) || body.len || list.len == 0 || list.len % 2)
		return TLS_HELLO_MALFORMED;
	h->max_version = 0;
	while (take(&list, 2, &version)) {
		unsigned v = be16(version.p);
		if (v >> 8 != 3 || v > 0x0304)
			continue; /* GREASE, drafts */
		h->max_version = MAX(h->max_version, (uint16_t)v);
		h->tls13 |= v == 0x0304;
	}
	return TLS_HELLO_OK;
}

static enum tls_hello_result parse_extension(unsigned type, struct str body, struct tls_hello *h)
{
	switch (type) {
	case EXT_SERVER_NAME:
		return parse_server_name(body, h);
	case EXT_ALPN:
		return parse_alpn(body, h);
	case EXT_SUPPORTED_VERSIONS:
		return parse_versions(body, h);
	case EXT_ECH:
		h->ech = true;
		return TLS_HELLO_OK;
	case EXT_EARLY_DATA:
		h->early_data = true;
		return TLS_HELLO_OK;
	case EXT_PRE_SHARED_KEY:
		h->psk = true;
		return TLS_HELLO_OK;
	default:
		return TLS_HELLO_OK;
	}
}

/* The ones that are judged may come once: of two, the server might take the other. */
static bool is_repeat(unsigned type, unsigned *seen)
{
	static const uint16_t once[] = {EXT_SERVER_NAME,	EXT_ALPN, EXT_PRE_SHARED_KEY, EXT_EARLY_DATA,
					EXT_SUPPORTED_VERSIONS, EXT_ECH};

	for (unsigned i = 0; i < ARRAY_SIZE(once); i++) {
		if (once[i] != type)
			continue;
		if (*seen & 1U << i)
			return true;
		*seen |= 1U << i;
	}
	return false;
}

/* BAD_SNI is told only after all the rest was read, so that a malformed hello is called that. */
static enum tls_hello_result parse_extensions(struct str in, struct tls_hello *h)
{
	enum tls_hello_result worst = TLS_HELLO_OK;
	struct str type, body;
	unsigned seen = 0;

	while (in.len) {
		if (!take(&in, 2, &type) || !take_vector(&in, 2, &body) || is_repeat(be16(type.p), &seen))
			return TLS_HELLO_MALFORMED;
		enum tls_hello_result r = parse_extension(be16(type.p), body, h);
		if (r == TLS_HELLO_BAD_SNI)
			worst = r;
		else if (r != TLS_HELLO_OK)
			return r;
	}
	return worst;
}

/* legacy_version, random, session id, cipher suites, compression methods, extensions. */
static enum tls_hello_result parse_body(struct str in, struct tls_hello *h)
{
	struct str version, random, session, suites, compression, extensions;
	enum tls_hello_result r = TLS_HELLO_OK;

	if (!take(&in, 2, &version) || version.p[0] != 3 || !take(&in, 32, &random) || !take_vector(&in, 1, &session) ||
	    session.len > 32 || !take_vector(&in, 2, &suites) || suites.len < 2 || suites.len % 2 ||
	    !take_vector(&in, 1, &compression) || compression.len == 0)
		return TLS_HELLO_MALFORMED;
	h->legacy_version = (uint16_t)be16(version.p);
	h->max_version = MIN(h->legacy_version, (uint16_t)TLS12);
	if (in.len) {
		if (!take_vector(&in, 2, &extensions) || in.len)
			return TLS_HELLO_MALFORMED;
		r = parse_extensions(extensions, h);
	}
	if (r == TLS_HELLO_MALFORMED)
		return r;
	return h->max_version < TLS12 ? TLS_HELLO_OLD_VERSION : r;
}

enum tls_hello_result tls_hello_parse(struct str in, struct tls_hello *ret)
{
	char gathered[TLS_HELLO_MESSAGE_MAX];
	struct walk w = {0};
	struct tls_hello h = {0};
	const char *message = in.p + RECORD_HEADER;

	if (in.len == 0)
		return TLS_HELLO_MORE;
	if (is_sslv2(in))
		return TLS_HELLO_SSLV2;
	if (may_become_sslv2(in))
		return TLS_HELLO_MORE;
	enum tls_hello_result r = walk_records(&w, in);
	if (r != TLS_HELLO_OK)
		return r;
	if (w.records > 1) {
		w = (struct walk){.copy_to = gathered};
		walk_records(&w, in);
		message = gathered;
	}
	h.end = w.end;
	r = parse_body(str_make(message + HANDSHAKE_HEADER, be24(message + 1)), &h);
	if (r == TLS_HELLO_MALFORMED)
		return r;
	if (r != TLS_HELLO_OK)
		h.sni[0] = '\0';
	*ret = h;
	return r;
}

const char *tls_hello_text(enum tls_hello_result r)
{
#define TLS_HELLO_TEXT(name, text)                                                                                     \
	case TLS_HELLO_##name:                                                                                         \
		return text;
	switch (r) {
		TLS_HELLO_RESULTS(TLS_HELLO_TEXT)
	}
	return "?";
}

bool tls_alpn_next(struct str *names, struct str *ret_name)
{
	return names->len && take_vector(names, 1, ret_name);
}

/* Version 0x0303 on the record, as RFC 8446 section 5.1 wants it from whoever has not negotiated anything else. */
void tls_alert_build(enum tls_alert alert, uint8_t ret[TLS_ALERT_SIZE])
{
	const uint8_t record[TLS_ALERT_SIZE] = {CONTENT_ALERT, 3, 3, 0, 2, 2 /* fatal */, (uint8_t)alert};
	memcpy(ret, record, sizeof record);
}

enum tls_alert tls_hello_alert(enum tls_hello_result r)
{
	switch (r) {
	case TLS_HELLO_OLD_VERSION:
	case TLS_HELLO_SSLV2:
		return TLS_ALERT_PROTOCOL_VERSION;
	case TLS_HELLO_BAD_SNI:
		return TLS_ALERT_UNRECOGNIZED_NAME;
	case TLS_HELLO_MALFORMED:
	case TLS_HELLO_TOO_BIG:
	case TLS_HELLO_NOT_TLS:
		return TLS_ALERT_DECODE_ERROR;
	case TLS_HELLO_OK:
	case TLS_HELLO_MORE:
		return TLS_ALERT_ACCESS_DENIED;
	}
	return TLS_ALERT_INTERNAL_ERROR;
}
