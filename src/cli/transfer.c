/* Bodies of any size, either way, over a connection of their own. */
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "cli/client_internal.h"

#define ERROR_MAX ((size_t)1 << 20)

struct state {
	struct transfer *t;
	CURL *h;
	struct buf answer; /* JSON: an error's, or the answer's where nobody takes it as bytes */
	int ended;         /* why read or write ended it */
};

static size_t on_read(char *p, size_t size, size_t n, void *user)
{
	struct state *s = user;
	ssize_t got = s->t->read(s->t->user, p, size * n);

	if (got >= 0)
		return (size_t)got;
	s->ended = (int)got;
	return CURL_READFUNC_ABORT;
}

static size_t on_write(char *p, size_t size, size_t n, void *user)
{
	struct state *s = user;
	long status = 0;

	curl_easy_getinfo(s->h, CURLINFO_RESPONSE_CODE, &status);
	if (!s->t->write || status < 200 || status >= 300)
		return buf_append(&s->answer, p, size * n) ? 0 : size * n;
	curl_off_t total = 0;
	if (curl_easy_getinfo(s->h, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &total) == CURLE_OK && total > 0)
		s->t->total = (uint64_t)total;
	s->ended = s->t->write(s->t->user, p, size * n);
	return s->ended ? 0 : size * n;
}

static size_t on_header(char *p, size_t size, size_t n, void *user)
{
	struct state *s = user;
	struct str line = str_make(p, size * n), name;
	unsigned mode = 0;

	if (!str_split(&line, ':', &name) || !str_ieq(name, STR("Iron-File-Mode")))
		return size * n;
	line = str_trim(line, " \t\r\n");
	for (size_t i = 0; i < line.len; i++) {
		if (line.p[i] < '0' || line.p[i] > '7' || i > 5)
			return size * n;
		mode = mode * 8 + (unsigned)(line.p[i] - '0');
	}
	s->t->mode = mode;
	return size * n;
}

static struct curl_slist *prepare(struct client *c, struct state *s, const char *url)
{
	const struct transfer *t = s->t;
	CURL *h = s->h;

	client_common_options(c, h);
	_cleanup_free_ char *accept = xasprintf("Accept: %s", t->accept  ? t->accept
	                                                      : t->write ? "*/*"
	                                                                 : "application/json");
	struct curl_slist *headers = client_headers(c, accept);
	curl_easy_setopt(h, CURLOPT_URL, url);
	if (t->read) {
		headers = curl_slist_append(headers, "Content-Type: application/octet-stream");
		curl_easy_setopt(h, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(h, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(h, CURLOPT_READDATA, s);
		curl_easy_setopt(h, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
		if (t->size >= 0)
			curl_easy_setopt(h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->size);
	}
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, t->method);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(h, CURLOPT_HEADERDATA, s);
	curl_easy_setopt(h, CURLOPT_BUFFERSIZE, 262144L);
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, client_timeout_s(c));
	return headers;
}

int client_transfer(struct client *c, struct transfer *t, struct reply *ret, struct error *reterr)
{
	_cleanup_free_ char *url = client_url(c, t->path);
	_cleanup_(reply_finish) struct reply reply = {0};
	struct state s = {.t = t, .h = curl_easy_init(), .answer = BUF_MAX(ERROR_MAX)};
	char detail[CURL_ERROR_SIZE] = "";

	client_forget_error(c);
	t->total = 0;
	t->mode = 0;
	struct curl_slist *headers = prepare(c, &s, url);
	curl_easy_setopt(s.h, CURLOPT_ERRORBUFFER, detail);
	CURLcode e = curl_easy_perform(s.h);
	curl_easy_getinfo(s.h, CURLINFO_RESPONSE_CODE, &reply.status);
	curl_slist_free_all(headers);
	curl_easy_cleanup(s.h);
	int r = 0;
	/* a refusal that came before all was sent is the answer, however the sending ended */
	if (s.ended)
		r = -ECANCELED;
	else if (e != CURLE_OK && !(reply.status >= 400 && s.answer.len))
		r = client_no_answer(c, e, detail, reterr);
	else if (!t->write || reply.status >= 300)
		r = client_parse_body(c, &s.answer, &reply, reterr);
	buf_finish(&s.answer);
	if (r == 0 && (reply.status < 200 || reply.status >= 300))
		r = client_refusal(c, &reply, reterr);
	if (r)
		return r;
	*ret = reply;
	reply = (struct reply){0};
	return 0;
}
