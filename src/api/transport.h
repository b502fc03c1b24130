#pragma once
/* A byte stream to a client, plain or TLS, on a non-blocking socket. It knows no events: each call says what it needs to
 * go on, since TLS may have to write in order to read. */
#include <openssl/ssl.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"

struct transport {
	int fd;
	SSL *ssl; /* NULL: plain */
	bool established;
	bool wants_write; /* TLS cannot go on before the socket takes bytes */
	bool eof;	  /* the client will send no more */
	bool broken;
};

/* TLS 1.2 and later, ALPN http/1.1, from the two PEM descriptors (read to their ends; the caller closes them). Prefers
 * the server's order of ciphers; tickets are off, since a ticket key would have to be renewed. */
int transport_tls_create(int cert_fd, int key_fd, SSL_CTX **ret, struct error *reterr);

/* Takes fd. ctx NULL: plain. */
int transport_init(struct transport *t, int fd, SSL_CTX *ctx);
void transport_finish(struct transport *t);

/* 1: done (at once when plain); 0: later; -EPROTO: no TLS that is spoken here. */
int transport_handshake(struct transport *t);
/* Appends what can be read, at most n bytes. >0: how many; 0: nothing now (see eof, broken). */
size_t transport_read(struct transport *t, struct buf *in, size_t n);
/* Writes and consumes what the socket takes. */
void transport_write(struct transport *t, struct buf *out);
/* Bytes that TLS holds decoded: no event will tell of them. */
bool transport_has_pending(const struct transport *t);
/* Says "nothing more from here": close_notify, then FIN. */
void transport_shut_write(struct transport *t);
