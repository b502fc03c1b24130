#pragma once
/* One API, spoken to over libcurl: calls that answer JSON, bodies of any size either way, and a raw connection for the
 * WebSocket of exec. */
#include <curl/curl.h>
#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "cli/settings.h"

struct client;

/* settings are borrowed. */
struct client *client_create(const struct settings *settings);
void client_destroy(struct client *c);

struct reply {
	long status;
	json_t *body; /* NULL when empty */
	long retry_after_s; /* 0: not said */
};
void reply_finish(struct reply *r);

/* path begins with "/" and follows /v1; body may be NULL (borrowed). Any HTTP status is an answer: 0 with reply filled.
 * -EIO with a sentence when no answer came (unreachable, TLS, not JSON, none within IRON_API_TIMEOUT seconds: 90);
 * -EINTR when the tick said so. */
int client_call(struct client *c, const char *method, const char *path, json_t *body, struct reply *ret, struct error *reterr);

/* As client_call, but a status of 400 or more is -EREMOTEIO with the API's message (and its code in the reply). What the API
 * has too much to do for, and says when to ask again, is asked again: some times, when that is soon. */
int client_ask(struct client *c, const char *method, const char *path, json_t *body, struct reply *ret, struct error *reterr);

/* Called about each second (and often while bytes move) during a call; nonzero ends it. NULL: none. */
void client_set_tick(struct client *c, int (*tick)(void *), void *user);

/* A body that is not JSON, either way. read: fills up to n bytes; 0 at the end, negative errno ends the transfer; size is
 * how many there will be, -1 unknown. write: takes what came, with a status below 300 only; nonzero ends the transfer. A
 * side that is NULL has no body, or JSON's. total: the answer's Content-Length, 0 when it has none (set before the first
 * write). A stall of IRON_API_TIMEOUT seconds is -EIO. */
struct transfer {
	const char *method, *path;
	const char *accept; /* NULL: anything where bytes are taken, else JSON */
	ssize_t (*read)(void *user, void *p, size_t n);
	int64_t size;
	int (*write)(void *user, const void *p, size_t n);
	void *user;
	uint64_t total;
	unsigned mode; /* Iron-File-Mode, 0 when there was none */
};
/* As client_ask; *ret holds the JSON answer where there is one. -ECANCELED when read or write ended it (who knows why). */
int client_transfer(struct client *c, struct transfer *t, struct reply *ret, struct error *reterr);

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
