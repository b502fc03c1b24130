#include "egress/refuse.h"

#include "codec/http1.h"

void json_text(struct buf *out, struct str s)
{
	buf_append_byte(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		uint8_t ch = (uint8_t)s.p[i];
		if (ch == '"' || ch == '\\')
			buf_printf(out, "\\%c", ch);
		else if (ch < 0x20 || ch >= 0x7f)
			buf_printf(out, "\\u%04x", ch);
		else
			buf_append_byte(out, ch);
	}
	buf_append_byte(out, '"');
}

static void write_message(struct buf *out, const char *host, const struct refusal *r)
{
	if (r->policy)
		buf_printf(out,
			   "Blocked by this machine's egress policy, not by %s. Do not retry: %s. "
			   "http://" IRON_INTERNAL "/ shows what is allowed.",
			   host, r->reason);
	else
		buf_printf(out, "This machine's egress door did not pass this on to %s: %s.", host, r->reason);
}

static void write_body(struct buf *out, const char *host, uint16_t port, const struct refusal *r)
{
	_cleanup_(buf_finish) struct buf message = {0};

	write_message(&message, host, r);
	buf_append_z(out, "{\"error\": {\"code\": ");
	json_text(out, str_of(r->code));
	buf_append_z(out, ", \"message\": ");
	json_text(out, buf_str(&message));
	buf_append_z(out, ", \"host\": ");
	json_text(out, str_of(host));
	buf_printf(out, ", \"port\": %u, \"reason\": ", port);
	json_text(out, str_of(r->reason));
	buf_append_z(out, "}}\n");
}

/* A structured-field string holds printable ASCII only (RFC 8941 section 3.3.3). */
static void write_proxy_status(struct buf *out, const struct refusal *r)
{
	_cleanup_(buf_finish) struct buf value = {0};

	buf_printf(&value, "iron; error=%s; details=\"", r->error);
	for (const char *p = r->reason; *p; p++) {
		if (*p == '"' || *p == '\\')
			buf_append_byte(&value, '\\');
		buf_append_byte(&value, *p >= 0x20 && *p < 0x7f ? (uint8_t)*p : '?');
	}
	buf_append_byte(&value, '"');
	http1_write_header(out, STR("Proxy-Status"), buf_str(&value));
}

void refusal_write(struct buf *out, const char *host, uint16_t port, const struct refusal *r)
{
	_cleanup_(buf_finish) struct buf body = {0};

	write_body(&body, host, port, r);
	http1_write_status(out, r->status, NULL);
	write_proxy_status(out, r);
	http1_write_header(out, STR("Content-Type"), STR("application/json"));
	http1_write_header_u64(out, STR("Content-Length"), body.len);
	http1_write_header(out, STR("Cache-Control"), STR("no-store"));
	if (r->retry_after_s)
		http1_write_header_u64(out, STR("Retry-After"), r->retry_after_s);
	if (r->close)
		http1_write_header(out, STR("Connection"), STR("close"));
	http1_write_end(out);
	if (!r->to_head)
		buf_append_str(out, buf_str(&body));
}

void refuse_tls(struct conn *c, enum tls_alert alert)
{
	struct buf out = {0};
	uint8_t record[TLS_ALERT_SIZE];

	tls_alert_build(alert, record);
	buf_append(&out, record, sizeof record);
	conn_farewell(c, &out);
}
