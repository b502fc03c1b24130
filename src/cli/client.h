#pragma once
/* One API, spoken to over libcurl: calls that answer JSON, and a raw connection for the WebSocket of exec. */
#include <curl/curl.h>
#include <jansson.h>

#include "base/error.h"
#include "cli/settings.h"

struct client;

/* settings are borrowed. */
struct client *client_create(const struct settings *settings);
void client_destroy(struct client *c);

struct reply {
	long status;
	json_t *body; /* NULL when empty */
};
void reply_finish(struct reply *r);

/* path begins with "/" and follows /v1; body may be NULL (borrowed). Any HTTP status is an answer: 0 with reply filled.
 * -EIO with a sentence when no answer came (unreachable, TLS, not JSON). */
int client_call(struct client *c, const char *method, const char *path, json_t *body, struct reply *ret, struct error *reterr);

/* As client_call, but a status of 400 or more is -EREMOTEIO with the API's message (and its code in the reply). */
int client_ask(struct client *c, const char *method, const char *path, json_t *body, struct reply *ret, struct error *reterr);

/* The error's code of the last client_ask that failed with -EREMOTEIO, "" otherwise; and its HTTP status. */
const char *client_error_code(const struct client *c);
long client_error_status(const struct client *c);

/* Percent-encodes one path segment or query value. Heap. */
char *client_escape(struct client *c, const char *value);

/* A connected easy handle (CURLOPT_CONNECT_ONLY) for curl_easy_send/recv, TLS and pin included. The caller's to clean up. */
int client_connect_raw(struct client *c, CURL **ret, struct error *reterr);
/* "host:port" as it belongs in a Host field; and the key. Borrowed. */
const char *client_authority(const struct client *c);
const char *client_key(const struct client *c);
