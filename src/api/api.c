#include "api/api_internal.h"

#include <errno.h>

#include "api/conn.h"
#include "api/listener.h"
#include "api/metrics.h"
#include "api/transport.h"
#include "model/op.h"

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(take_fd(fds[i]));
}

static int set_up(struct api *api, const struct msg_api_config *config, int *fds, size_t nfds, struct error *reterr)
{
	if (config->listeners <= config->metrics || config->listeners > API_LISTENERS_MAX || nfds != 2U + config->listeners)
		return error_set(reterr, -EINVAL, "configuration: %u listeners and %zu descriptors", config->listeners, nfds);
	if (str_copy(config->public_host, api->public_host, sizeof api->public_host))
		return error_set(reterr, -EINVAL, "configuration: public_host");
	int r = config->tls ? transport_tls_create(fds[0], fds[1], &api->tls, reterr) : 0;
	for (size_t i = 2; r == 0 && i < nfds; i++) {
		r = listener_add(api, take_fd(fds[i]));
		if (r)
			error_set(reterr, r, "no memory for a listener");
	}
	if (r == 0 && config->metrics)
		api->metrics_fd = api->listener_fds[api->nlisteners - 1];
	return r;
}

int api_create(struct event_base *base, const struct msg_api_config *config, int *fds, size_t nfds, struct api **ret,
	       struct error *reterr)
{
	struct api *api = xcalloc(1, sizeof *api);

	*api = (struct api){.base = base, .config = *config, .metrics_fd = -1, .metrics = metrics_create()};
	api->config.public_host = STR_NONE;
	rendezvous_init(&api->streams, base);
	api->rates = rates_create(config->requests_per_key, config->requests_per_address, config->failures_per_address);
	int r = set_up(api, config, fds, nfds, reterr);
	close_all(fds, nfds);
	if (r) {
		api_destroy(api);
		return r;
	}
	*ret = api;
	return 0;
}

void api_destroy(struct api *api)
{
	if (!api)
		return;
	listener_finish(api);
	while (api->conns)
		conn_destroy(api->conns);
	rendezvous_finish(&api->streams);
	map_finish(&api->per_address);
	buf_finish(&api->description);
	map_finish(&api->channels);
	rates_destroy(api->rates);
	metrics_destroy(api->metrics);
	SSL_CTX_free(api->tls);
	free(api);
}

void api_set_control(struct api *api, struct ipc_peer *control)
{
	api->control = control;
	if (!control || !api->unrecorded)
		return;
	const struct msg_api_record r = {.op = OP_COUNT, .status = 503, .count = api->unrecorded};
	if (ipc_notify(control, MSG_TYPE_msg_api_record, &r, NULL, 0) == 0)
		api->unrecorded = 0;
}

int api_set_certificate(struct api *api, int cert_fd, int key_fd, bool *ret_changed, struct error *reterr)
{
	SSL_CTX *next = NULL;

	int r = api->tls ? transport_tls_create(cert_fd, key_fd, &next, reterr)
			 : error_set(reterr, -EINVAL, "the API is served without TLS");
	close(cert_fd);
	close(key_fd);
	if (r)
		return r;
	*ret_changed = X509_cmp(SSL_CTX_get0_certificate(api->tls), SSL_CTX_get0_certificate(next)) != 0;
	SSL_CTX_free(api->tls); /* connections hold it as long as they need it */
	api->tls = next;
	return 0;
}

void api_take_stream(struct api *api, uint64_t token, int fd)
{
	rendezvous_offer(&api->streams, token, fd);
}

size_t api_listeners(const struct api *api, const int **ret_fds, bool *ret_metrics)
{
	*ret_metrics = api->metrics_fd >= 0;
	*ret_fds = api->listener_fds;
	return api->nlisteners;
}
