/* Heads and bodies of requests and responses, all at once and in pieces: the same either way, never more bytes than
 * there are, and a head that was taken is taken again, with the same meaning, from what is sent on. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "codec/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok)
{
	if (!ok)
		abort();
}

/* A fuller head than is taken: one line more is sent on than came (Connection). */
static bool is_brimful(const struct http1_head *head, const struct buf *sent)
{
	return head->n == HTTP1_HEADERS_MAX || sent->len > HTTP1_HEAD_MAX;
}

static void check_body(const struct http1_framing *framing, struct str in, size_t step)
{
	struct http1_body whole, pieces;
	size_t n, taken = 0, have = 0;
	struct str run;
	enum http1_result r, again;

	http1_body_init(&whole, framing);
	r = http1_body_push(&whole, in, &n, NULL);
	need(n <= in.len && (!http1_is_error(r) || n == 0));
	http1_body_init(&pieces, framing);
	do {
		size_t took;
		again = http1_body_push(&pieces, str_make(in.p + taken, have - taken), &took, &run);
		need(took <= have - taken && run.len <= took);
		taken += took;
		if (again == HTTP1_MORE && took == 0)
			have += MIN(step, in.len - have) + (have == in.len);
	} while (again == HTTP1_MORE && have <= in.len);
	need(again == r);
	need(http1_is_error(r) || (taken == n && whole.data_bytes == pieces.data_bytes));
}

static void check_request(struct str in, const struct http1_request_opts *opts, size_t step)
{
	static struct http1_request req, again;
	_cleanup_(buf_finish) struct buf sent = {0};
	struct http1_scan scan = {0}, pieces = {0};
	enum http1_result r = http1_request_parse(&scan, in, opts, &req), s = HTTP1_MORE;

	for (size_t have = MIN(step, in.len); s == HTTP1_MORE; have = MIN(have + step, in.len)) {
		s = http1_request_parse(&pieces, str_make(in.p, have), opts, &again);
		if (have == in.len)
			break;
	}
	need(r == s);
	if (r != HTTP1_OK)
		return;
	need(req.head.raw.len <= in.len && req.path.len && req.method.len);
	need(str_eq(again.head.raw, req.head.raw));
	need(http1_request_forward(&req, step & 1, NULL, 0, &sent) == 0);
	if (is_brimful(&req.head, &sent))
		return;
	scan = (struct http1_scan){0};
	need(http1_request_parse(&scan, buf_str(&sent), opts, &again) == HTTP1_OK);
	need(again.head.raw.len == sent.len && again.framing.kind == req.framing.kind);
	need(again.framing.length == req.framing.length && again.websocket == req.websocket);
	need(str_eq(again.path, req.path) && str_eq(again.query, req.query) && str_eq(again.method, req.method));
	need(strcmp(again.host.name, req.host.name) == 0 && again.host_port == req.host_port);
	check_body(&req.framing, str_make(in.p + req.head.raw.len, in.len - req.head.raw.len), step);
}

static void check_response(struct str in, const struct http1_response_opts *opts, size_t step)
{
	static struct http1_response res, again;
	_cleanup_(buf_finish) struct buf sent = {0};
	struct http1_scan scan = {0}, pieces = {0};
	enum http1_result r = http1_response_parse(&scan, in, opts, &res), s = HTTP1_MORE;

	for (size_t have = MIN(step, in.len); s == HTTP1_MORE; have = MIN(have + step, in.len)) {
		s = http1_response_parse(&pieces, str_make(in.p, have), opts, &again);
		if (have == in.len)
			break;
	}
	need(r == s);
	if (r != HTTP1_OK)
		return;
	need(http1_response_forward(&res, step & 1, NULL, 0, &sent) == 0);
	if (is_brimful(&res.head, &sent))
		return;
	scan = (struct http1_scan){0};
	need(http1_response_parse(&scan, buf_str(&sent), opts, &again) == HTTP1_OK);
	need(again.head.raw.len == sent.len && again.status == res.status && again.framing.kind == res.framing.kind);
	need(again.switching == res.switching);
	check_body(&res.framing, str_make(in.p + res.head.raw.len, in.len - res.head.raw.len), step);
}

/* The first byte chooses what is read, the second the size of the pieces. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct str in = str_make(data + 2, size - 2);
	size_t step = (size_t)data[1] + 1;
	struct http1_request_opts request = {
	        .port = data[0] & 2 ? 80 : 0, .tls = data[0] & 4, .require_host = data[0] & 8};
	struct http1_response_opts response = {.to_head = data[0] & 2, .to_websocket = data[0] & 4};

	if (data[0] & 1)
		check_response(in, &response, step);
	else
		check_request(in, &request, step);
	if (data[0] & 16)
		check_body(&(struct http1_framing){.kind = HTTP1_BODY_CHUNKED}, in, step);
	return 0;
}
