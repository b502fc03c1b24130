#include "cli/client.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string.h>

#include "base/buf.h"
#include "base/text.h"
#include "cli/client_internal.h"

#define ANSWER_MAX ((size_t)64 << 20)
#define RETRIES 5
#define RETRY_AFTER_MAX_S 15
#define TIMEOUT_S 90 /* the API holds no JSON call longer than 25 s */

struct client {
	const struct settings *settings;
	CURL *curl;
	char *authority;
	uint8_t pin[32];
	char code[64];
	long status, timeout_s;
	int (*tick)(void *user);
	void *tick_user;
};

static long timeout_of(const char *text)
{
	uint64_t v;
	return text && str_parse_u64(str_of(text), 86400, &v) == 0 && v > 0 ? (long)v : TIMEOUT_S;
}

struct client *client_create(const struct settings *settings)
{
	struct client *c = xcalloc(1, sizeof *c);

	curl_global_init(CURL_GLOBAL_DEFAULT);
	c->settings = settings;
	c->timeout_s = timeout_of(getenv("IRON_API_TIMEOUT"));
	const char *host = strstr(settings->url, "://") + 3;
	c->authority = xstrndup(host, strcspn(host, "/"));
	if (*settings->pin)
		hex_decode(str_of(settings->pin), c->pin, sizeof c->pin);
	return c;
}

void client_destroy(struct client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->curl);
	free(c->authority);
	free(c);
}

void reply_finish(struct reply *r)
{
	json_decref(r->body);
	*r = (struct reply){0};
}

void client_set_tick(struct client *c, int (*tick)(void *), void *user)
{
	c->tick = tick;
	c->tick_user = user;
}

const char *client_error_code(const struct client *c)
{
	return c->code;
}

long client_error_status(const struct client *c)
{
	return c->status;
}

const char *client_authority(const struct client *c)
{
	return c->authority;
}

const char *client_key(const struct client *c)
{
	return c->settings->key;
}

char *client_escape(struct client *c, const char *value)
{
	char *escaped = curl_easy_escape(NULL, value, (int)strlen(value));
	char *copy = xstrdup(escaped ? escaped : "");
	curl_free(escaped);
	return copy;
}

static size_t on_data(char *p, size_t size, size_t n, void *user)
{
	return buf_append(user, p, size * n) ? 0 : size * n;
}

/* The pinned certificate is trusted by its hash, whoever signed it and whatever it names. */
static int verify_pin(X509_STORE_CTX *store, void *user)
{
	struct client *c = user;
	uint8_t hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	X509 *leaf = X509_STORE_CTX_get0_cert(store);

	if (leaf && X509_digest(leaf, EVP_sha256(), hash, &n) && n == sizeof c->pin && mem_eq_ct(hash, c->pin, n))
		return 1;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
	return 0;
}

static CURLcode on_ssl_ctx(CURL *curl, void *ctx, void *user)
{
	SSL_CTX_set_cert_verify_callback(ctx, verify_pin, user);
	return CURLE_OK;
}

static int on_progress(void *user, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	const struct client *c = user;
	return c->tick ? c->tick(c->tick_user) : 0;
}

void client_common_options(struct client *c, CURL *h)
{
	curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(h, CURLOPT_XFERINFODATA, c);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, 10L);
	curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(h, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(h, CURLOPT_USERAGENT, "iron/" IRON_VERSION);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	/* the API is ours: it is not behind the proxy that the environment names for the outside */
	curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
	if (*c->settings->pin) {
		curl_easy_setopt(h, CURLOPT_CAINFO,
		                 NULL); /* not asked, so not needed: a client may be kept from all files */
		curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
		curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
		curl_easy_setopt(h, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
		curl_easy_setopt(h, CURLOPT_SSL_CTX_DATA, c);
	}
}

int client_no_answer(const struct client *c, CURLcode e, const char *detail, struct error *reterr)
{
	const char *why = detail && *detail ? detail : curl_easy_strerror(e);

	switch ((int)e) {
	case CURLE_COULDNT_CONNECT:
		return error_set(reterr, -EIO, "%s does not answer (%s); is irond running there? sudo irond status",
		                 c->settings->url, why);
	case CURLE_PEER_FAILED_VERIFICATION:
		return error_set(reterr, -EIO,
		                 "%s shows a certificate that is not trusted (%s); tls_sha256 in "
		                 "~/.config/iron/config.yaml names the one to trust",
		                 c->settings->url, why);
	case CURLE_ABORTED_BY_CALLBACK:
		return error_set(reterr, -EINTR, "interrupted");
	case CURLE_OPERATION_TIMEDOUT:
		return error_set(reterr, -EIO, "%s did not answer in time (%s); IRON_API_TIMEOUT=SECONDS waits longer",
		                 c->settings->url, why);
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
		return error_set(reterr, -EIO, "%s broke off in the middle of its answer (%s)", c->settings->url, why);
	case CURLE_WRITE_ERROR:
		return error_set(reterr, -EIO, "%s answered more than %zu MiB; is the URL right?", c->settings->url,
		                 ANSWER_MAX >> 20);
	default:
		return error_set(reterr, -EIO, "%s: %s", c->settings->url, why);
	}
}

struct curl_slist *client_headers(const struct client *c, const char *accept)
{
	_cleanup_free_ char *bearer = xasprintf("Authorization: Bearer %s", c->settings->key);
	struct curl_slist *l = curl_slist_append(NULL, accept);

	if (*c->settings->key)
		l = curl_slist_append(l, bearer);
	explicit_bzero(bearer, strlen(bearer));
	return curl_slist_append(l, "Expect:");
}

int client_parse_body(const struct client *c, const struct buf *in, struct reply *ret, struct error *reterr)
{
	json_error_t e;

	if (in->len == 0)
		return 0;
	ret->body = json_loadb((const char *)in->data, in->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
	if (!ret->body || !json_is_object(ret->body))
		return error_set(reterr, -EIO,
		                 "%s answered %ld with something that is not iron's JSON; is the URL right?",
		                 c->settings->url, ret->status);
	return 0;
}

char *client_url(const struct client *c, const char *path)
{
	return xasprintf("%s/v1%s", c->settings->url, path);
}

long client_timeout_s(const struct client *c)
{
	return c->timeout_s;
}

int client_call(struct client *c, const char *method, const char *path, json_t *body, struct reply *ret,
		struct error *reterr)
{
	_cleanup_(buf_finish) struct buf answer = BUF_MAX(ANSWER_MAX);
	_cleanup_free_ char *url = client_url(c, path);
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	char detail[CURL_ERROR_SIZE] = "";
	struct reply reply = {0};

	if (!c->curl)
		c->curl = curl_easy_init();
	CURL *h = c->curl;
	curl_easy_reset(h); /* the connection stays */
	client_common_options(c, h);
	struct curl_slist *headers = client_headers(c, "Accept: application/json");
	if (body)
		headers = curl_slist_append(headers, "Content-Type: application/json");
	curl_easy_setopt(h, CURLOPT_URL, url);
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, &answer);
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, detail);
	curl_easy_setopt(h, CURLOPT_TIMEOUT, c->timeout_s);
	if (strcmp(method, "GET") != 0)
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, text ? text : "");
	CURLcode e = curl_easy_perform(h);
	curl_slist_free_all(headers);
	if (e != CURLE_OK)
		return client_no_answer(c, e, detail, reterr);
	curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &reply.status);
	curl_off_t retry = 0;
	if (curl_easy_getinfo(h, CURLINFO_RETRY_AFTER, &retry) == CURLE_OK && retry > 0)
		reply.retry_after_s = (long)MIN(retry, (curl_off_t)86400);
	int r = client_parse_body(c, &answer, &reply, reterr);
	if (r) {
		reply_finish(&reply);
		return r;
	}
	*ret = reply;
	return 0;
}

void client_forget_error(struct client *c)
{
	c->code[0] = '\0';
	c->status = 0;
}

/* -EREMOTEIO with the API's reason for a status of 400 or more. */
int client_refusal(struct client *c, const struct reply *reply, struct error *reterr)
{
	const json_t *error = json_object_get(reply->body, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));

	c->status = reply->status;
	snprintf(c->code, sizeof c->code, "%s", code ? code : "");
	if (reply->status == 401)
		return error_set(reterr, -EREMOTEIO,
		                 "%s; set IRON_API_KEY, or api_key in ~/.config/iron/config.yaml (sudo irond key "
		                 "create NAME makes one)",
		                 message ? message : "the key is not accepted");
	if (message && *message)
		return error_set(reterr, -EREMOTEIO, "%s", message);
	return error_set(reterr, -EREMOTEIO, "%s answered %ld without a reason", c->settings->url, reply->status);
}

/* A call that was not begun (429), or changes nothing, may be made again. */
static bool asks_again(const char *method, const struct reply *r)
{
	bool may = r->status == 429 || (r->status == 503 && strcmp(method, "GET") == 0);
	return may && r->retry_after_s > 0 && r->retry_after_s <= RETRY_AFTER_MAX_S;
}

/* Nonzero when the tick ended it. */
static int pause_for(struct client *c, long seconds)
{
	for (long i = 0; i < seconds * 10; i++) {
		if (c->tick && c->tick(c->tick_user))
			return -EINTR;
		usleep(100000);
	}
	return 0;
}

int client_ask(struct client *c, const char *method, const char *path, json_t *body, struct reply *ret,
	       struct error *reterr)
{
	_cleanup_(reply_finish) struct reply reply = {0};

	client_forget_error(c);
	int r = client_call(c, method, path, body, &reply, reterr);
	for (unsigned i = 0; r == 0 && i < RETRIES && asks_again(method, &reply); i++) {
		if (pause_for(c, reply.retry_after_s))
			return error_set(reterr, -EINTR, "interrupted");
		reply_finish(&reply);
		r = client_call(c, method, path, body, &reply, reterr);
	}
	if (r)
		return r;
	/* redirects are not followed: the key is for the API that was named */
	if (reply.status < 200 || reply.status >= 300)
		return client_refusal(c, &reply, reterr);
	*ret = reply;
	reply = (struct reply){0};
	return 0;
}

int client_connect_raw(struct client *c, CURL **ret, struct error *reterr)
{
	char detail[CURL_ERROR_SIZE] = "";
	CURL *h = curl_easy_init();

	client_common_options(c, h);
	curl_easy_setopt(h, CURLOPT_URL, c->settings->url);
	curl_easy_setopt(h, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, detail);
	CURLcode e = curl_easy_perform(h);
	if (e != CURLE_OK) {
		curl_easy_cleanup(h);
		return client_no_answer(c, e, detail, reterr);
	}
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, NULL);
	*ret = h;
	return 0;
}
