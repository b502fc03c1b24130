#pragma once
/* Between client.c and transfer.c. */
#include "base/buf.h"
#include "cli/client.h"

void client_common_options(struct client *c, CURL *h);
/* The key, and `accept` (a whole field). The caller's to free. */
struct curl_slist *client_headers(const struct client *c, const char *accept);
char *client_url(const struct client *c, const char *path);
long client_timeout_s(const struct client *c);
/* Sentences: no answer came; the answer is no JSON; the API said no (and the code is kept). */
int client_no_answer(const struct client *c, CURLcode e, const char *detail, struct error *reterr);
int client_parse_body(const struct client *c, const struct buf *in, struct reply *ret, struct error *reterr);
void client_forget_error(struct client *c);
int client_refusal(struct client *c, const struct reply *reply, struct error *reterr);
