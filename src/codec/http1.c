/* Heads of requests and responses.
 *
 * A head is read in two steps. scan_head looks at every byte once, however it trickles in: forbidden bytes, line ends
 * and lengths are judged as they come, the first line as soon as it is whole. When the empty line is there, the lines
 * are cut into fields and what they mean together is judged (framing, Host, upgrade): that part sees the whole head, so
 * that no header can be overlooked or counted twice. */
#include "codec/http1_internal.h"

#include "base/cleanup.h"

/* --- finding the end --- */

typedef enum http1_result (*first_line_fn)(struct str line, bool whole);

static enum http1_result check_byte(char c, char before)
{
	if (before == '\r' && c != '\n')
		return HTTP1_ERR_BARE_CR;
	if (c == '\n')
		return before == '\r' ? HTTP1_OK : HTTP1_ERR_BARE_LF;
	return c == '\r' || http1_byte_is(c, HTTP1_FIELD) ? HTTP1_OK : HTTP1_ERR_CONTROL;
}

/* The line that ends before position end (of its LF). OK: it was the empty one. */
static enum http1_result end_line(struct http1_scan *scan, struct str in, size_t end, first_line_fn first_line)
{
	struct str line = str_make(in.p + scan->line_start, end - 1 - scan->line_start);

	if (scan->lines == 0) {
		enum http1_result r = first_line(line, true);
		if (r != HTTP1_OK)
			return r;
	} else if (line.len == 0) {
		return HTTP1_OK;
	}
	if (++scan->lines > HTTP1_HEADERS_MAX + 1)
		return HTTP1_ERR_HEADERS_MANY;
	scan->line_start = end + 1;
	return HTTP1_MORE;
}

/* OK: *ret_len bytes are the head. */
static enum http1_result scan_head(struct http1_scan *scan, struct str in, size_t max, first_line_fn first_line,
				   size_t *ret_len)
{
	enum http1_result r;

	if (scan->lines == 0 && in.len) {
		r = first_line(in, false);
		if (http1_is_error(r))
			return r;
	}
	for (size_t i = scan->at; i < in.len; i++) {
		if (i >= max)
			return HTTP1_ERR_HEAD_LONG;
		r = check_byte(in.p[i], i ? in.p[i - 1] : '\0');
		if (r != HTTP1_OK)
			return r;
		if (in.p[i] != '\n')
			continue;
		r = end_line(scan, in, i, first_line);
		if (r == HTTP1_OK)
			*ret_len = i + 1;
		if (r != HTTP1_MORE)
			return r;
	}
	scan->at = in.len;
	return HTTP1_MORE;
}

/* The lines of a head that scan_head found whole. */
static enum http1_result cut_fields(struct str raw, struct http1_head *head)
{
	struct str rest = raw, line;

	head->raw = raw;
	str_split(&rest, '\n', &line);
	head->first_line = str_make(line.p, line.len - 1);
	while (str_split(&rest, '\n', &line) && line.len > 1) {
		enum http1_result r = http1_parse_field(str_make(line.p, line.len - 1), &head->headers[head->n++]);
		if (r != HTTP1_OK)
			return r;
	}
	return HTTP1_OK;
}

/* --- what the fields mean --- */

/* The fields that decide about the message, each as often as it is there. */
struct meaning {
	struct str host, length, encoding, upgrade, expect;
	unsigned hosts, lengths, encodings, upgrades, expects;
	bool close, keep_alive, connection_upgrade;
};

struct known {
	struct str name;
	size_t value, count; /* offsets into struct meaning */
};
#define KNOWN(text, value_, count_)                                                                                    \
	{.name = STR(text), .value = offsetof(struct meaning, value_), .count = offsetof(struct meaning, count_)}
static const struct known known[] = {
	KNOWN("host", host, hosts),          KNOWN("content-length", length, lengths),
	KNOWN("transfer-encoding", encoding, encodings), KNOWN("upgrade", upgrade, upgrades),
	KNOWN("expect", expect, expects),
};

static void note_known(const struct http1_header *h, struct meaning *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!str_ieq(h->name, known[i].name))
			continue;
		*(struct str *)((char *)m + known[i].value) = h->value;
		++*(unsigned *)((char *)m + known[i].count);
	}
}

/* Naming one of these in Connection asks an intermediary to drop what the message needs to be understood the same way
 * by everyone. */
static bool is_end_to_end(struct str name)
{
	static const struct str names[] = {
	        STR("host"),          STR("transfer-encoding"),
	        STR("trailer"),       STR("authorization"),
	        STR("cookie"),        STR("set-cookie"),
	        STR("expect"),        STR("location"),
	        STR("range"),         STR("origin"),
	        STR("cache-control"), STR("date"),
	        STR("connection"),    STR("via"),
	        STR("forwarded"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_ieq(name, names[i]))
			return true;
	return name.len >= 8 && str_ieq(str_make(name.p, 8), STR("content-"));
}

/* One element of a Connection header. */
static enum http1_result note_option(struct http1_head *head, struct str option, struct meaning *m)
{
	if (!http1_is_token(option) || is_end_to_end(option))
		return HTTP1_ERR_CONNECTION_BAD;
	m->close |= str_ieq(option, STR("close"));
	m->keep_alive |= str_ieq(option, STR("keep-alive"));
	m->connection_upgrade |= str_ieq(option, STR("upgrade"));
	for (size_t i = 0; i < head->n; i++)
		head->headers[i].hop |= str_ieq(head->headers[i].name, option);
	return HTTP1_OK;
}

static bool is_always_hop(struct str name)
{
	static const struct str names[] = {
		STR("connection"), STR("keep-alive"),	      STR("proxy-connection"),	  STR("te"),
		STR("upgrade"),	   STR("proxy-authenticate"), STR("proxy-authorization"),
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_ieq(name, names[i]))
			return true;
	return false;
}

static enum http1_result note_fields(struct http1_head *head, struct meaning *m)
{
	struct str value, option;

	for (size_t i = 0; i < head->n; i++) {
		struct http1_header *h = &head->headers[i];
		note_known(h, m);
		h->hop |= is_always_hop(h->name);
		if (!str_ieq(h->name, STR("connection")))
			continue;
		value = h->value;
		while (http1_list_next(&value, &option)) {
			enum http1_result r = note_option(head, option, m);
			if (r != HTTP1_OK)
				return r;
		}
	}
	return HTTP1_OK;
}

/* What Content-Length and Transfer-Encoding say; *ret is BODY_NONE where there is neither. */
static enum http1_result read_framing(const struct meaning *m, uint8_t minor, struct http1_framing *ret)
{
	struct http1_framing f = {0};
	enum http1_result r;

	if (m->lengths && m->encodings)
		return HTTP1_ERR_LENGTH_AND_ENCODING;
	if (m->lengths > 1)
		return HTTP1_ERR_LENGTH_REPEATED;
	if (m->encodings) {
		if (minor == 0)
			return HTTP1_ERR_ENCODING_OLD;
		/* Byte for byte: what one server takes for chunked and another does not is how smuggling begins. */
		if (m->encodings > 1 || !str_eq(m->encoding, STR("chunked")))
			return HTTP1_ERR_ENCODING;
		f.kind = HTTP1_BODY_CHUNKED;
	} else if (m->lengths) {
		f.kind = HTTP1_BODY_LENGTH;
		r = http1_parse_length(m->length, &f.length);
		if (r != HTTP1_OK)
			return r;
	}
	*ret = f;
	return HTTP1_OK;
}

static bool has_body(const struct http1_framing *f)
{
	return f->kind == HTTP1_BODY_CHUNKED || (f->kind == HTTP1_BODY_LENGTH && f->length);
}

static bool persists(const struct meaning *m, uint8_t minor)
{
	return !m->close && (minor == 1 || m->keep_alive);
}

/* --- requests --- */

/* The method as far as it has come: bytes of another protocol show at the first one that no method has. */
static enum http1_result check_method_start(struct str in, ptrdiff_t space)
{
	size_t n = space >= 0 ? (size_t)space : MIN(in.len, (size_t)HTTP1_METHOD_MAX + 1);

	if (!http1_all(str_make(in.p, MIN(n, (size_t)HTTP1_METHOD_MAX)), HTTP1_TCHAR) || n == 0)
		return HTTP1_ERR_NOT_HTTP;
	if (n > HTTP1_METHOD_MAX)
		return HTTP1_ERR_METHOD_LONG;
	return HTTP1_OK;
}

static enum http1_result parse_version(struct str s, uint8_t *ret_minor)
{
	if (s.len != 8 || !str_has_prefix(s, STR("HTTP/")))
		return HTTP1_ERR_REQUEST_LINE;
	if (str_eq(s, STR("HTTP/1.1")))
		*ret_minor = 1;
	else if (str_eq(s, STR("HTTP/1.0")))
		*ret_minor = 0;
	else
		return HTTP1_ERR_VERSION;
	return HTTP1_OK;
}

static const struct {
	struct str text;
	enum http1_method id;
} methods[] = {
	{STR("GET"), HTTP1_GET},       {STR("HEAD"), HTTP1_HEAD},       {STR("POST"), HTTP1_POST},
	{STR("PUT"), HTTP1_PUT},       {STR("DELETE"), HTTP1_DELETE},   {STR("OPTIONS"), HTTP1_OPTIONS},
	{STR("PATCH"), HTTP1_PATCH},
};

/* "head" is no HEAD here, but is to a server that is lax about it: then the two would disagree about the body, and
 * about what a rule for a method covers. */
static enum http1_result check_method(struct str method)
{
	if (str_ieq(method, STR("CONNECT")) || str_ieq(method, STR("TRACE")))
		return HTTP1_ERR_METHOD_REFUSED;
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (str_ieq(method, methods[i].text) && !str_eq(method, methods[i].text))
			return HTTP1_ERR_METHOD_REFUSED;
	return HTTP1_OK;
}

/* Method, target and version, with one space between. */
static enum http1_result split_request_line(struct str line, struct str *ret_method, struct str *ret_target,
					    uint8_t *ret_minor)
{
	struct str rest = line, method, target;
	enum http1_result r;

	if (str_eq(line, STR("PRI * HTTP/2.0")))
		return HTTP1_ERR_HTTP2_PREFACE;
	r = check_method_start(line, str_chr(line, ' '));
	if (r != HTTP1_OK)
		return r;
	if (str_chr(line, ' ') < 0)
		return HTTP1_ERR_REQUEST_LINE;
	str_split(&rest, ' ', &method);
	str_split(&rest, ' ', &target);
	if (rest.p == NULL)
		return target.len ? HTTP1_ERR_HTTP09 : HTTP1_ERR_REQUEST_LINE;
	if (target.len == 0)
		return HTTP1_ERR_REQUEST_LINE;
	if (target.len > HTTP1_TARGET_MAX)
		return HTTP1_ERR_TARGET_LONG;
	if (!http1_all(target, HTTP1_TARGET))
		return HTTP1_ERR_TARGET;
	r = parse_version(rest, ret_minor);
	if (r != HTTP1_OK)
		return r;
	*ret_method = method;
	*ret_target = target;
	return check_method(method);
}

static enum http1_result request_first_line(struct str line, bool whole)
{
	struct str method, target;
	uint8_t minor;

	if (whole)
		return split_request_line(line, &method, &target, &minor);
	ptrdiff_t space = str_chr(str_make(line.p, MIN(line.len, (size_t)HTTP1_METHOD_MAX + 1)), ' ');
	enum http1_result r = check_method_start(line, space);
	if (r != HTTP1_OK || space < 0)
		return r;
	size_t after = (size_t)space + 1;
	if (line.len - after <= HTTP1_TARGET_MAX)
		return HTTP1_OK;
	return str_chr(str_make(line.p + after, HTTP1_TARGET_MAX + 1), ' ') < 0 ? HTTP1_ERR_TARGET_LONG : HTTP1_OK;
}

static enum http1_method method_id(struct str method)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (str_eq(method, methods[i].text))
			return methods[i].id;
	return HTTP1_OTHER;
}

static void split_query(struct str s, struct http1_request *req)
{
	str_split(&s, '?', &req->path);
	req->query = s; /* p is NULL where there was no "?" */
	if (req->path.len == 0)
		req->path = STR("/");
}

/* "http://authority/path?query": *ret_authority, and path and query into req. */
static enum http1_result split_absolute(struct http1_request *req, bool tls, struct str *ret_authority)
{
	struct str scheme = tls ? STR("https://") : STR("http://");
	struct str target = req->target;
	size_t n = scheme.len;

	if (target.len < n || !str_ieq(str_make(target.p, n), scheme))
		return HTTP1_ERR_TARGET;
	while (n < target.len && target.p[n] != '/' && target.p[n] != '?')
		n++;
	*ret_authority = str_make(target.p + scheme.len, n - scheme.len);
	split_query(str_make(target.p + n, target.len - n), req);
	return HTTP1_OK;
}

static enum http1_result read_target(struct http1_request *req, bool tls, struct str *ret_authority)
{
	*ret_authority = STR_NONE;
	if (req->target.p[0] == '/') {
		req->form = HTTP1_ORIGIN;
		split_query(req->target, req);
		return HTTP1_OK;
	}
	if (str_eq(req->target, STR("*"))) {
		req->form = HTTP1_ASTERISK;
		req->path = req->target;
		return req->method_id == HTTP1_OPTIONS ? HTTP1_OK : HTTP1_ERR_TARGET;
	}
	req->form = HTTP1_ABSOLUTE;
	return split_absolute(req, tls, ret_authority);
}

static uint16_t port_or_default(uint16_t port, bool tls)
{
	return port ? port : tls ? 443 : 80;
}

static enum http1_result read_host(struct http1_request *req, const struct meaning *m,
				   const struct http1_request_opts *opts, struct str authority)
{
	struct host other;
	uint16_t other_port;

	if (m->hosts > 1)
		return HTTP1_ERR_HOST_REPEATED;
	if (m->hosts == 0)
		return req->head.minor == 1 || opts->require_host || authority.p ? HTTP1_ERR_HOST_MISSING : HTTP1_OK;
	req->has_host = true;
	if (authority_parse(m->host, &req->host, &req->host_port))
		return HTTP1_ERR_HOST_BAD;
	uint16_t port = port_or_default(req->host_port, opts->tls);
	if (authority.p) {
		if (authority_parse(authority, &other, &other_port))
			return HTTP1_ERR_TARGET;
		if (!str_eq(str_of(other.name), str_of(req->host.name)) ||
		    port_or_default(other_port, opts->tls) != port)
			return HTTP1_ERR_TARGET_HOST;
	}
	return opts->port && port != opts->port ? HTTP1_ERR_HOST_PORT : HTTP1_OK;
}

static enum http1_result read_upgrade(struct http1_request *req, const struct meaning *m)
{
	if (m->upgrades == 0)
		return m->connection_upgrade ? HTTP1_ERR_UPGRADE_BAD : HTTP1_OK;
	if (m->upgrades > 1 || !str_ieq(m->upgrade, STR("websocket")))
		return HTTP1_ERR_UPGRADE;
	if (!m->connection_upgrade || req->head.minor == 0 || req->method_id != HTTP1_GET || has_body(&req->framing))
		return HTTP1_ERR_UPGRADE_BAD;
	req->websocket = true;
	return HTTP1_OK;
}

static enum http1_result read_expect(struct http1_request *req, const struct meaning *m)
{
	if (m->expects == 0)
		return HTTP1_OK;
	if (m->expects > 1 || !str_ieq(m->expect, STR("100-continue")))
		return HTTP1_ERR_EXPECT;
	req->expect_continue = req->head.minor == 1 && has_body(&req->framing);
	return HTTP1_OK;
}

static enum http1_result read_request(struct str raw, const struct http1_request_opts *opts, struct http1_request *req)
{
	struct meaning m = {0};
	struct str authority;
	enum http1_result r;

	if ((r = cut_fields(raw, &req->head)) != HTTP1_OK)
		return r;
	if ((r = split_request_line(req->head.first_line, &req->method, &req->target, &req->head.minor)) != HTTP1_OK)
		return r;
	req->method_id = method_id(req->method);
	if ((r = read_target(req, opts->tls, &authority)) != HTTP1_OK ||
	    (r = note_fields(&req->head, &m)) != HTTP1_OK ||
	    (r = read_framing(&m, req->head.minor, &req->framing)) != HTTP1_OK ||
	    (r = read_host(req, &m, opts, authority)) != HTTP1_OK || (r = read_upgrade(req, &m)) != HTTP1_OK)
		return r;
	req->keep_alive = persists(&m, req->head.minor);
	return read_expect(req, &m);
}

enum http1_result http1_request_parse(struct http1_scan *scan, struct str in, const struct http1_request_opts *opts,
				      struct http1_request *ret)
{
	size_t n;

	memset(ret, 0, offsetof(struct http1_request, head.headers));
	enum http1_result r =
		scan_head(scan, in, opts->head_max ? opts->head_max : HTTP1_HEAD_MAX, request_first_line, &n);
	return r == HTTP1_OK ? read_request(str_make(in.p, n), opts, ret) : r;
}

/* --- responses --- */

/* HTTP-version SP 3DIGIT [ SP reason ]: the space is missing where the reason is, with some servers. */
static enum http1_result split_status_line(struct str line, uint8_t *ret_minor, uint16_t *ret_status,
					   struct str *ret_reason)
{
	struct str rest = line, version, status;
	uint64_t code;

	str_split(&rest, ' ', &version);
	if (!str_has_prefix(version, STR("HTTP/")))
		return HTTP1_ERR_NOT_HTTP;
	if (parse_version(version, ret_minor) != HTTP1_OK)
		return HTTP1_ERR_VERSION;
	if (!str_split(&rest, ' ', &status) || status.len != 3 || str_parse_u64(status, 999, &code))
		return HTTP1_ERR_STATUS_LINE;
	*ret_status = (uint16_t)code;
	*ret_reason = rest;
	return HTTP1_OK;
}

static enum http1_result response_first_line(struct str line, bool whole)
{
	struct str start = STR("HTTP/"), reason;
	uint16_t status;
	uint8_t minor;

	if (whole)
		return split_status_line(line, &minor, &status, &reason);
	size_t n = MIN(line.len, start.len);
	return str_eq(str_make(line.p, n), str_make(start.p, n)) ? HTTP1_OK : HTTP1_ERR_NOT_HTTP;
}

static enum http1_result read_switching(struct http1_response *res, const struct meaning *m, bool asked)
{
	if (res->status != 101)
		return HTTP1_OK;
	if (!asked || m->upgrades != 1 || !str_ieq(m->upgrade, STR("websocket")) || !m->connection_upgrade)
		return HTTP1_ERR_SWITCH_UNASKED;
	res->switching = true;
	return HTTP1_OK;
}

/* RFC 9112 section 6.3. */
static enum http1_result read_response_framing(struct http1_response *res, const struct meaning *m, bool to_head)
{
	bool never = res->status < 200 || res->status == 204;
	enum http1_result r = read_framing(m, res->head.minor, &res->framing);

	if (r != HTTP1_OK)
		return r;
	if (never && has_body(&res->framing))
		return HTTP1_ERR_BODY_FORBIDDEN;
	if (never || to_head || res->status == 304)
		res->framing = (struct http1_framing){.kind = HTTP1_BODY_NONE};
	else if (res->framing.kind == HTTP1_BODY_NONE)
		res->framing.kind = HTTP1_BODY_CLOSE;
	return HTTP1_OK;
}

static enum http1_result read_response(struct str raw, const struct http1_response_opts *opts,
				       struct http1_response *res)
{
	struct meaning m = {0};
	enum http1_result r;

	if ((r = cut_fields(raw, &res->head)) != HTTP1_OK ||
	    (r = split_status_line(res->head.first_line, &res->head.minor, &res->status, &res->reason)) != HTTP1_OK ||
	    (r = note_fields(&res->head, &m)) != HTTP1_OK ||
	    (r = read_response_framing(res, &m, opts->to_head)) != HTTP1_OK)
		return r;
	res->interim = res->status < 200 && res->status != 101;
	res->keep_alive = persists(&m, res->head.minor) && res->framing.kind != HTTP1_BODY_CLOSE;
	return read_switching(res, &m, opts->to_websocket);
}

enum http1_result http1_response_parse(struct http1_scan *scan, struct str in, const struct http1_response_opts *opts,
				       struct http1_response *ret)
{
	size_t n;

	memset(ret, 0, offsetof(struct http1_response, head.headers));
	enum http1_result r =
		scan_head(scan, in, opts->head_max ? opts->head_max : HTTP1_HEAD_MAX, response_first_line, &n);
	return r == HTTP1_OK ? read_response(str_make(in.p, n), opts, ret) : r;
}
