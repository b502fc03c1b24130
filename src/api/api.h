#pragma once
/* The public API: HTTPS server, routing, validation, exec and its WebSocket. What is asked of iron-control goes over the
 * channel that api_set_control gives; the streams of exec come by api_take_stream. Nothing is opened after api_create. */
#include <event2/event.h>

#include "base/error.h"
#include "os/ipc.h"

struct api;

/* Descriptors are taken over, also on failure: certificate, key (unused without tls), then the listeners. */
int api_create(struct event_base *base, const struct msg_api_config *config, int *fds, size_t nfds, struct api **ret,
	       struct error *reterr);
void api_destroy(struct api *api);

/* The channel to iron-control; NULL: it is away (503). Takes no ownership; not to be destroyed while set. */
void api_set_control(struct api *api, struct ipc_peer *control);
/* The listening sockets, for an irond that has to know them again: borrowed. ret_metrics: the last is that of GET /metrics. */
size_t api_listeners(const struct api *api, const int **ret_fds, bool *ret_metrics);
/* A renewed certificate and its key (takes both descriptors): new connections get it, those that are there go on. On
 * failure what was there stays. ret_changed: it is another than before. */
int api_set_certificate(struct api *api, int cert_fd, int key_fd, bool *ret_changed, struct error *reterr);
/* The stream that irond hands over for a token; takes fd. */
void api_take_stream(struct api *api, uint64_t token, int fd);
