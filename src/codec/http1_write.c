#include <errno.h>

#include "base/cleanup.h"
#include "codec/http1_internal.h"

/* All of these append in pieces; the pieces of one call stay or go together. */
static int finish(struct buf *out, size_t start)
{
	if (!out->failed)
		return 0;
	out->len = start;
	return -EMSGSIZE;
}

static void append_z(struct buf *out, const char *z)
{
	buf_append_z(out, z);
}

const char *http1_reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} reasons[] = {
		{100, "Continue"},
		{101, "Switching Protocols"},
		{200, "OK"},
		{201, "Created"},
		{202, "Accepted"},
		{204, "No Content"},
		{304, "Not Modified"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{411, "Length Required"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{421, "Misdirected Request"},
		{422, "Unprocessable Content"},
		{426, "Upgrade Required"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
		{507, "Insufficient Storage"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].text;
	return "Status";
}

int http1_write_status(struct buf *out, unsigned status, const char *reason)
{
	size_t start = out->len;

	if (!reason)
		reason = http1_reason(status);
	if (status < 100 || status > 999 || !http1_all(str_of(reason), HTTP1_FIELD))
		return -EINVAL;
	buf_printf(out, "HTTP/1.1 %u %s\r\n", status, reason);
	return finish(out, start);
}

int http1_write_request_line(struct buf *out, struct str method, struct str target)
{
	size_t start = out->len;

	if (!http1_is_token(method) || target.len == 0 || !http1_all(target, HTTP1_TARGET))
		return -EINVAL;
	buf_append_str(out, method);
	append_z(out, " ");
	buf_append_str(out, target);
	append_z(out, " HTTP/1.1\r\n");
	return finish(out, start);
}

int http1_write_header(struct buf *out, struct str name, struct str value)
{
	size_t start = out->len;

	if (!http1_is_token(name) || !http1_is_value(value))
		return -EINVAL;
	buf_append_str(out, name);
	append_z(out, ": ");
	buf_append_str(out, value);
	append_z(out, "\r\n");
	return finish(out, start);
}

int http1_write_header_u64(struct buf *out, struct str name, uint64_t value)
{
	char text[24];
	int n = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	return http1_write_header(out, name, str_make(text, (size_t)n));
}

int http1_write_end(struct buf *out)
{
	return buf_append_z(out, "\r\n");
}

int http1_write_chunk(struct buf *out, struct str data)
{
	size_t start = out->len;

	if (data.len == 0)
		return 0;
	buf_printf(out, "%zx\r\n", data.len);
	buf_append_str(out, data);
	append_z(out, "\r\n");
	return finish(out, start);
}

int http1_write_last_chunk(struct buf *out)
{
	return buf_append_z(out, "0\r\n\r\n");
}

static bool may_have_body(unsigned status)
{
	return status >= 200 && status != 204 && status != 304;
}

int http1_write_answer(struct buf *out, unsigned status, struct str content_type, struct str body, bool close)
{
	size_t start = out->len;
	int r = http1_write_status(out, status, NULL);

	if (r == 0 && content_type.len)
		r = http1_write_header(out, STR("Content-Type"), content_type);
	if (r == 0 && may_have_body(status))
		r = http1_write_header_u64(out, STR("Content-Length"), body.len);
	else if (r == 0 && body.len)
		r = -EINVAL;
	if (r == 0 && close)
		r = http1_write_header(out, STR("Connection"), STR("close"));
	if (r == 0)
		r = http1_write_end(out);
	if (r == 0)
		r = buf_append_str(out, body);
	if (r)
		out->len = start;
	return r;
}

/* --- heads to send on --- */

static bool is_dropped(const struct http1_header *h, bool keep_upgrade, const struct str *drop, size_t drop_n)
{
	if (h->hop)
		return !(keep_upgrade && str_ieq(h->name, STR("upgrade")));
	for (size_t i = 0; i < drop_n; i++)
		if (str_ieq(h->name, drop[i]))
			return true;
	return false;
}

static const char *connection_line(const struct http1_head *head, bool upgrade, bool close)
{
	if (upgrade)
		return "Connection: Upgrade\r\n";
	if (close)
		return "Connection: close\r\n";
	return head->minor == 0 ? "Connection: keep-alive\r\n" : "";
}

static void append_fields(const struct http1_head *head, bool upgrade, bool close, const struct str *drop,
			  size_t drop_n, struct buf *out)
{
	for (size_t i = 0; i < head->n; i++) {
		if (is_dropped(&head->headers[i], upgrade, drop, drop_n))
			continue;
		buf_append_str(out, head->headers[i].line);
		append_z(out, "\r\n");
	}
	append_z(out, connection_line(head, upgrade, close));
	append_z(out, "\r\n");
}

int http1_request_forward(const struct http1_request *req, bool close, const struct str *drop, size_t drop_n,
			  struct buf *out)
{
	size_t start = out->len;

	if (req->form == HTTP1_ABSOLUTE) {
		buf_append_str(out, req->method);
		append_z(out, " ");
		buf_append_str(out, req->path);
		if (req->query.p) {
			append_z(out, "?");
			buf_append_str(out, req->query);
		}
		append_z(out, req->head.minor ? " HTTP/1.1" : " HTTP/1.0");
	} else {
		buf_append_str(out, req->head.first_line);
	}
	append_z(out, "\r\n");
	append_fields(&req->head, req->websocket, close, drop, drop_n, out);
	return finish(out, start);
}

int http1_response_forward(const struct http1_response *res, bool close, const struct str *drop, size_t drop_n,
			   struct buf *out)
{
	size_t start = out->len;

	buf_append_str(out, res->head.first_line);
	append_z(out, "\r\n");
	append_fields(&res->head, res->switching, close, drop, drop_n, out);
	return finish(out, start);
}
