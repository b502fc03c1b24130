#pragma once
/* What a TLS ClientHello says before anything is answered (RFC 8446 section 4.1.2, RFC 5246, RFC 6066, RFC 7301).
 *
 * Stateless: give all bytes that came so far, from the first; TLS_HELLO_MORE costs a walk over record headers only. The
 * bytes are only looked at: whoever passes the connection on sends them as they came. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "codec/hostname.h"

/* Bounds: the handshake message with its header, the records it may be spread over, and so the bytes to peek at. */
#define TLS_HELLO_MESSAGE_MAX 16384
#define TLS_HELLO_RECORDS_MAX 64
#define TLS_HELLO_PEEK_MAX (TLS_HELLO_MESSAGE_MAX + 5 * TLS_HELLO_RECORDS_MAX)

/* E(name, text) */
#define TLS_HELLO_RESULTS(E)                                                                                           \
	E(OK, "a ClientHello")                                                                                         \
	E(MORE, "more bytes are needed")                                                                               \
	E(NOT_TLS, "not TLS")                                                                                          \
	E(SSLV2, "an SSLv2 hello")                                                                                     \
	E(TOO_BIG, "a ClientHello longer than 16 KiB or in more than 64 records")                                      \
	E(MALFORMED, "a malformed ClientHello")                                                                        \
	E(OLD_VERSION, "a ClientHello that offers nothing newer than TLS 1.1")                                         \
	E(BAD_SNI, "a server name that is not exactly one valid host name")

#define TLS_HELLO_ENUM(name, text) TLS_HELLO_##name,
enum tls_hello_result { TLS_HELLO_RESULTS(TLS_HELLO_ENUM) };

struct tls_hello {
	size_t end; /* bytes of the input up to the hello's end: the rest is the client's next flight (early data) */
	char sni[HOSTNAME_SIZE]; /* canonical; "" when the extension is absent */
	uint16_t legacy_version, max_version; /* 0x0303, 0x0304 … ; GREASE values are not counted */
	bool tls13;
	bool ech;        /* encrypted_client_hello is present; sni is then the outer name, the only one that is judged.
			  * Browsers send a dummy (GREASE) one, which looks the same. */
	bool early_data; /* 0-RTT data will follow */
	bool psk;
	bool alpn_h2, alpn_http11, alpn_other;
	/* ALPN names in wire form (u8 length, bytes), as offered, walked with tls_alpn_next: as many as fit. */
	uint16_t alpn_len;
	uint8_t alpn[256];
};

/* ret is written for OK and, as far as it was read (end and versions; sni ""), for OLD_VERSION and BAD_SNI.
 * Everything but OK and MORE is final. `in` of no bytes is MORE. */
enum tls_hello_result tls_hello_parse(struct str in, struct tls_hello *ret);
const char *tls_hello_text(enum tls_hello_result r);

/* str names = str_make(h.alpn, h.alpn_len); while (tls_alpn_next(&names, &name)) … */
bool tls_alpn_next(struct str *names, struct str *ret_name);

/* A fatal alert as a plain record, for a client whose hello was refused. */
enum tls_alert { TLS_ALERT_HANDSHAKE_FAILURE = 40, TLS_ALERT_ACCESS_DENIED = 49, TLS_ALERT_DECODE_ERROR = 50,
		 TLS_ALERT_PROTOCOL_VERSION = 70, TLS_ALERT_INTERNAL_ERROR = 80, TLS_ALERT_UNRECOGNIZED_NAME = 112 };
#define TLS_ALERT_SIZE 7
void tls_alert_build(enum tls_alert alert, uint8_t ret[TLS_ALERT_SIZE]);
/* The alert that tells a client of this result. */
enum tls_alert tls_hello_alert(enum tls_hello_result r);
