#include "broker/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "os/ipc.h"

#define LOOK_INTERVAL_S 60

static void put_mark(struct buf *out, const char *path)
{
	struct stat st = {0};

	/* one that is not there (yet) is told when it is opened */
	if (stat(path, &st) == 0)
		buf_printf(out, "%s %lu %ld %ld.%09ld\n", path, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void put_marks(const struct broker *b, struct buf *out)
{
	put_mark(out, b->conf->tls.cert_file);
	put_mark(out, b->conf->tls.key_file);
}

static int open_one(const char *path, const char *key, int *ret_fd, struct error *reterr)
{
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (*ret_fd >= 0)
		return 0;
	return error_set(reterr, -errno, "tls.%s: %s: %s; quickstart makes a certificate, or give your own", key, path,
			 strerror(errno));
}

int certificate_open(const struct conf *conf, int *ret_cert_fd, int *ret_key_fd, struct error *reterr)
{
	_cleanup_close_ int cert = -1;

	int r = open_one(conf->tls.cert_file, "cert_file", &cert, reterr);
	if (r == 0)
		r = open_one(conf->tls.key_file, "key_file", ret_key_fd, reterr);
	if (r == 0)
		*ret_cert_fd = take_fd(cert);
	return r;
}

void certificate_told(struct broker *b)
{
	buf_clear(&b->certificate_mark);
	put_marks(b, &b->certificate_mark);
}

void certificate_check(struct broker *b)
{
	_cleanup_(buf_finish) struct buf now = {0};
	_cleanup_close_ int cert = -1;
	_cleanup_close_ int key = -1;
	struct error e = {0};

	put_marks(b, &now);
	if (role_state(b->api) != ROLE_UP || str_eq(buf_str(&now), buf_str(&b->certificate_mark)))
		return;
	int r = certificate_open(b->conf, &cert, &key, &e);
	if (r == 0) {
		const int fds[] = {cert, key};
		r = ipc_notify(role_peer(b->api), MSG_TYPE_msg_api_tls, &(struct msg_api_tls){}, fds, 2);
		if (r < 0)
			error_set(&e, r, "%s", strerror(-r));
	}
	if (r < 0)
		log_error("the API goes on with the certificate that it has", "reason=%s", log_quote(e.text));
	certificate_told(b); /* as well when it failed: said once, and tried again when a file changes */
}

static void on_look(evutil_socket_t fd, short what, void *user)
{
	certificate_check(user);
}

int certificate_watch(struct broker *b, struct error *reterr)
{
	const struct timeval interval = {.tv_sec = LOOK_INTERVAL_S};

	b->certificate_timer = event_new(b->base, -1, EV_PERSIST, on_look, b);
	if (!b->certificate_timer || event_add(b->certificate_timer, &interval))
		return error_set(reterr, -ENOMEM, "out of memory");
	return 0;
}

void certificate_unwatch(struct broker *b)
{
	if (b->certificate_timer)
		event_free(take_ptr(b->certificate_timer));
	buf_finish(&b->certificate_mark);
}
