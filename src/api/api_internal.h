#pragma once
/* What the pieces of the server share. */
#include <openssl/ssl.h>

#include "api/api.h"
#include "api/rates.h"
#include "api/rendezvous.h"
#include "base/map.h"

#define API_LISTENERS_MAX 9
#define API_HEAD_MAX 16384
/* Beside max_connections: these get their 503 or 429 said; the next ones are closed at once. */
#define API_REFUSED_MAX 32
/* How long a client may take; a stream that moves has no end. */
#define API_HANDSHAKE_MS 10000
#define API_HEAD_MS 10000
#define API_BODY_MS 30000
#define API_WRITE_MS 30000
#define API_LINGER_MS 2000
/* How long iron-control may take, beyond what a call asks to be held. */
#define API_CONTROL_MS 25000

struct conn;

struct api {
	struct event_base *base;
	struct msg_api_config config; /* its public_host is not kept */
	char public_host[254];
	SSL_CTX *tls;
	struct event *listeners[API_LISTENERS_MAX];
	int listener_fds[API_LISTENERS_MAX];
	size_t nlisteners;
	int metrics_fd; /* the listener of GET /metrics among them, -1: none */
	struct metrics *metrics;
	struct event *accept_again; /* after the table of descriptors was full */
	struct ipc_peer *control;
	uint32_t unrecorded; /* calls that iron-control, being away, was not told of */
	struct rendezvous streams;
	struct map channels; /* by VM: how many, as a pointer */
	/* All connections, and those that are between two requests, longest idle first. */
	struct conn *conns;
	struct conn *idle_first, *idle_last;
	unsigned nconns, nrefused;
	struct rates *rates;
	uint32_t limited; /* refusals of theirs that are not on record yet */
	uint64_t limited_told_ms;
	struct buf description; /* openapi.json, once somebody asked for it */
	struct map per_address; /* count, as a pointer */
};
