#include "api/transport.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define PEM_MAX ((size_t)1 << 20)

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
		   unsigned in_len, void *arg)
{
	static const unsigned char ours[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

	if (SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, ours, sizeof ours, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	return SSL_TLSEXT_ERR_OK;
}

static int read_all(int fd, struct buf *out, const char *what, struct error *reterr)
{
	for (;;) {
		void *p = buf_reserve(out, 16384);
		if (!p)
			return error_set(reterr, -EMSGSIZE, "the %s is larger than 1 MiB", what);
		ssize_t n = read(fd, p, 16384);
		if (n < 0)
			return error_set(reterr, -errno, "reading the %s: %s", what, strerror(errno));
		if (n == 0)
			return 0;
		buf_commit(out, (size_t)n);
	}
}

static void put_bio(BIO **b)
{
	BIO_free(*b);
}

static void put_x509(X509 **x)
{
	X509_free(*x);
}

static void put_pkey(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

/* The first certificate is ours, what follows is the chain up. */
static int use_chain(SSL_CTX *ctx, struct buf *pem, struct error *reterr)
{
	_cleanup_(put_bio) BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
	_cleanup_(put_x509) X509 *own = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);

	if (!own || SSL_CTX_use_certificate(ctx, own) != 1)
		return error_set(reterr, -EINVAL, "tls.cert_file holds no certificate in PEM that can be served");
	for (;;) {
		X509 *next = PEM_read_bio_X509(bio, NULL, NULL, NULL);
		if (!next)
			break;
		if (SSL_CTX_add0_chain_cert(ctx, next) != 1) {
			X509_free(next);
			return error_set(reterr, -EINVAL, "tls.cert_file: the chain cannot be used");
		}
	}
	ERR_clear_error(); /* PEM's "no more" is left there */
	return 0;
}

/* A passphrase is never asked for: nobody is there to type one. */
static int no_passphrase(char *text, int size, int rwflag, void *arg)
{
	return 0;
}

static int use_key(SSL_CTX *ctx, struct buf *pem, struct error *reterr)
{
	_cleanup_(put_bio) BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
	_cleanup_(put_pkey) EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

	if (!key)
		return error_set(reterr, -EINVAL, "tls.key_file holds no private key in PEM without a passphrase");
	if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
		return error_set(reterr, -EINVAL, "tls.key_file is not the key of tls.cert_file");
	return 0;
}

int transport_tls_create(int cert_fd, int key_fd, SSL_CTX **ret, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf cert = BUF_MAX(PEM_MAX), key = BUF_MAX(PEM_MAX);
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

	int r = ctx ? 0 : -ENOMEM;
	if (r == 0)
		r = read_all(cert_fd, &cert, "certificate", reterr);
	if (r == 0)
		r = read_all(key_fd, &key, "private key", reterr);
	if (r == 0)
		r = use_chain(ctx, &cert, reterr);
	if (r == 0)
		r = use_key(ctx, &key, reterr);
	if (key.data)
		OPENSSL_cleanse(key.data, key.len);
	if (r) {
		SSL_CTX_free(ctx);
		return r;
	}
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					 SSL_OP_NO_TICKET);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
	*ret = ctx;
	return 0;
}

int transport_init(struct transport *t, int fd, SSL_CTX *ctx)
{
	*t = (struct transport){.fd = fd, .established = !ctx};
	if (!ctx)
		return 0;
	t->ssl = SSL_new(ctx);
	if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1) {
		transport_finish(t);
		return -ENOMEM;
	}
	SSL_set_accept_state(t->ssl);
	return 0;
}

void transport_finish(struct transport *t)
{
	SSL_free(take_ptr(t->ssl));
	if (t->fd >= 0)
		close(take_fd(t->fd));
}

/* What OpenSSL said: sets the flags; true when it only has to be called again. */
static bool note_ssl(struct transport *t, int result)
{
	int e = SSL_get_error(t->ssl, result);

	ERR_clear_error();
	if (e == SSL_ERROR_WANT_READ)
		return true;
	if (e == SSL_ERROR_WANT_WRITE) {
		t->wants_write = true;
		return true;
	}
	if (e == SSL_ERROR_ZERO_RETURN)
		t->eof = true;
	else
		t->broken = true;
	return false;
}

int transport_handshake(struct transport *t)
{
	if (t->established)
		return 1;
	t->wants_write = false;
	ERR_clear_error();
	int r = SSL_accept(t->ssl);
	if (r == 1) {
		t->established = true;
		return 1;
	}
	return note_ssl(t, r) ? 0 : -EPROTO;
}

static ssize_t plain_read(struct transport *t, void *p, size_t n)
{
	ssize_t r = recv(t->fd, p, n, 0);

	if (r == 0)
		t->eof = true;
	else if (r < 0 && errno != EAGAIN && errno != EINTR)
		t->broken = true;
	return r;
}

static ssize_t tls_read(struct transport *t, void *p, size_t n)
{
	size_t got = 0;

	ERR_clear_error();
	int r = SSL_read_ex(t->ssl, p, n, &got);
	if (r == 1)
		return (ssize_t)got;
	note_ssl(t, r);
	return -1;
}

size_t transport_read(struct transport *t, struct buf *in, size_t n)
{
	size_t total = 0;

	t->wants_write = false;
	while (total < n && !t->eof && !t->broken) {
		size_t piece = MIN(n - total, (size_t)16384);
		void *p = buf_reserve(in, piece);
		if (!p)
			break;
		ssize_t r = t->ssl ? tls_read(t, p, piece) : plain_read(t, p, piece);
		if (r <= 0)
			break;
		buf_commit(in, (size_t)r);
		total += (size_t)r;
	}
	return total;
}

static ssize_t plain_write(struct transport *t, struct str out)
{
	ssize_t r = send(t->fd, out.p, out.len, MSG_NOSIGNAL);

	if (r < 0 && errno != EAGAIN && errno != EINTR)
		t->broken = true;
	return r;
}

static ssize_t tls_write(struct transport *t, struct str out)
{
	size_t done = 0;

	ERR_clear_error();
	int r = SSL_write_ex(t->ssl, out.p, out.len, &done);
	if (r == 1)
		return (ssize_t)done;
	note_ssl(t, r);
	return -1;
}

void transport_write(struct transport *t, struct buf *out)
{
	struct str left = buf_str(out);

	while (left.len && !t->broken) {
		ssize_t r = t->ssl ? tls_write(t, left) : plain_write(t, left);
		if (r <= 0)
			break;
		left.p += r;
		left.len -= (size_t)r;
	}
	buf_consume(out, out->len - left.len);
}

bool transport_has_pending(const struct transport *t)
{
	return t->ssl && SSL_has_pending(t->ssl);
}

void transport_shut_write(struct transport *t)
{
	if (t->ssl && t->established && !t->broken) {
		SSL_shutdown(t->ssl);
		ERR_clear_error();
	}
	shutdown(t->fd, SHUT_WR);
}
