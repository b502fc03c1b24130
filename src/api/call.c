#include "api/call_internal.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>

#include "api/channel.h"
#include "api/idempotency.h"
#include "api/metrics.h"
#include "api/openapi.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/scope.h"

#define CALL_ARENA_MAX ((size_t)8 << 20)
#define KEY_MAX 256

/* --- life --- */

static void free_unless_held(struct call *c)
{
	if (c->conn || c->holds)
		return;
	OPENSSL_cleanse(c->key_hash, sizeof c->key_hash);
	answer_finish(&c->answer);
	buf_finish(&c->kept_body);
	arena_finish(&c->arena);
	free(c);
}

void call_hold(struct call *c)
{
	c->holds++;
}

void call_release(struct call *c)
{
	c->holds--;
	free_unless_held(c);
}

static struct call *call_new(struct api *api, struct conn *conn)
{
	struct call *c = xcalloc(1, sizeof *c);

	*c = (struct call){.api = api, .conn = conn, .op = OP_COUNT, .started_us = mono_us(), .arena = {.max = CALL_ARENA_MAX},
			   .metrics = conn_is_metrics(conn)};
	snprintf(c->address, sizeof c->address, "%s", conn_peer(conn));
	return c;
}

/* --- answers --- */

void call_identify(const struct call *c, struct msg_req *ret)
{
	*ret = (struct msg_req){.op = (uint16_t)c->op, .address = str_of(c->address), .client = str_of(c->client)};
	if (c->has_key)
		ret->key_hash = str_make(c->key_hash, sizeof c->key_hash);
	ret->idempotency_key = c->idempotency_key;
	if (c->idempotency_key.len)
		ret->fingerprint = str_make(c->fingerprint, sizeof c->fingerprint);
}

/* Probes and scrapes come every few seconds and say nothing about anyone. */
static bool is_worth_recording(const struct call *c, unsigned status)
{
	/* a flood that is refused does not become one of messages to iron-control either: it is counted */
	if (c->limited) {
		c->api->limited++;
		return false;
	}
	return !c->metrics && !(status < 300 && (c->op == OP_HEALTHZ || c->op == OP_READYZ));
}

/* Once a second at most; what a flood leaves behind goes with the next call. */
static void tell_limited(struct api *api)
{
	const struct msg_api_record r = {.op = OP_COUNT, .status = 429, .count = api->limited};

	if (!api->limited || !api->control || mono_ms() - api->limited_told_ms < 1000)
		return;
	if (ipc_notify(api->control, MSG_TYPE_msg_api_record, &r, NULL, 0))
		return;
	api->limited = 0;
	api->limited_told_ms = mono_ms();
}

void call_record(struct call *c, unsigned status)
{
	uint64_t took_us = mono_us() - c->started_us;
	struct msg_req who;

	if (c->ended)
		return;
	c->ended = true;
	if (!c->metrics)
		metrics_count(c->api->metrics, c->op, status, took_us, c->limited);
	idempotency_tell_lost(c);
	call_identify(c, &who);
	bool worth = is_worth_recording(c, status);
	tell_limited(c->api);
	if (!worth)
		return;
	struct msg_api_record r = {.key_hash = who.key_hash, .op = who.op, .address = who.address, .client = who.client,
				   .method = str_of(c->method), .path = str_of(c->path), .status = (uint16_t)status,
				   .duration_us = (uint32_t)MIN(took_us, (uint64_t)UINT32_MAX)};
	if (!c->api->control || ipc_notify(c->api->control, MSG_TYPE_msg_api_record, &r, NULL, 0))
		c->api->unrecorded++;
}

void call_answer(struct call *c, unsigned status, struct buf *body)
{
	struct conn *conn = take_ptr(c->conn);

	idempotency_tell(c, status, buf_str(body));
	call_record(c, status);
	if (conn)
		conn_answer(conn, status, c->headers, body);
	else
		buf_finish(body);
}

void call_add_header(struct call *c, const char *fmt, ...)
{
	size_t n = strlen(c->headers);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->headers + n, sizeof c->headers - n, fmt, ap);
	va_end(ap);
}

void call_answer_begin(struct call *c, unsigned status, const char *type, uint64_t length, uint32_t stall_ms,
		       const struct conn_stream *ops, void *user)
{
	call_add_header(c, "Content-Type: %s\r\n", type);
	conn_answer_begin(c->conn, status, c->headers, length, stall_ms, ops, user);
}

void call_answer_end(struct call *c, unsigned status, bool whole)
{
	struct conn *conn = take_ptr(c->conn);

	idempotency_tell_lost(c);
	call_record(c, status);
	if (conn)
		conn_answer_end(conn, whole);
}

static void answer_failure(struct call *c, unsigned status, const char *code, struct str message)
{
	struct buf body = {0};

	if (status == 401)
		call_add_header(c, "WWW-Authenticate: Bearer\r\n");
	if ((status == 429 || status == 503) && !strstr(c->headers, "Retry-After"))
		call_add_header(c, "Retry-After: %u\r\n", status == 503 ? 2U : 10U);
	answer_error(&body, code, message);
	call_answer(c, status, &body);
}

void call_fail(struct call *c, enum api_code code, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	answer_failure(c, code_status(code), code_text(code), str_of(message));
}

/* What iron-control refuses with is in the table of the operation: a client may rely on the description. */
static bool documents(const struct call *c, struct str code)
{
	for (unsigned i = 0; i < CODE_COUNT; i++)
		if (str_eq(code, str_of(code_text((enum api_code)i))))
			return openapi_errors(c->op) & 1ULL << i;
	return false;
}

void call_fail_done(struct call *c, const struct msg_done *done)
{
	char code[64];

	if (str_copy(done->code, code, sizeof code) || done->status < 400) {
		call_fail(c, CODE_INTERNAL, "an answer of iron's own made no sense; the log has more");
		return;
	}
	if (!documents(c, done->code))
		log_limited(LOG_LEVEL_ERROR, 1, "an error that the description does not have: op_shape.errors", "op=%s code=%s",
			    op_info_get(c->op)->name, code);
	if (done->retry_after_s)
		call_add_header(c, "Retry-After: %u\r\n", done->retry_after_s);
	answer_failure(c, done->status, code, done->message);
}

/* Kept until the call is started: a body may have to be answered first. The first failure stays. */
static void note_failure(struct call *c, enum api_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void note_failure(struct call *c, enum api_code code, const char *fmt, ...)
{
	va_list ap;

	if (c->fail_status)
		return;
	c->fail_status = code_status(code);
	c->fail_code = code;
	va_start(ap, fmt);
	vsnprintf(c->fail_message, sizeof c->fail_message, fmt, ap);
	va_end(ap);
}

/* --- from the head --- */

static void take_client(struct call *c, const struct http1_request *req)
{
	struct str agent = http1_header_value(&req->head, STR("user-agent"));

	agent.len = MIN(agent.len, sizeof c->client - 1);
	if (str_is_printable_utf8(agent))
		memcpy(c->client, agent.p ? agent.p : "", agent.len);
	memcpy(c->method, req->method.p, MIN(req->method.len, sizeof c->method - 1));
	memcpy(c->path, req->path.p, MIN(req->path.len, sizeof c->path - 1));
}

static void find_route(struct call *c, const struct http1_request *req, struct route *route)
{
	_cleanup_(buf_finish) struct buf allow = BUF_MAX(128);
	enum api_code code;

	int r = req->form == HTTP1_ASTERISK ? -ENOENT : route_find(req->method, req->path, route, &allow, &code);
	if (r == 0) {
		c->op = route->op;
		c->shape = op_shape_get(route->op);
	} else if (r == -EPERM) {
		call_add_header(c, "Allow: %.*s\r\n", STR_ARG(buf_str(&allow)));
		note_failure(c, CODE_METHOD_NOT_ALLOWED, "this path takes %.*s", STR_ARG(buf_str(&allow)));
	} else if (req->form == HTTP1_ASTERISK || code == CODE_NOT_FOUND) {
		note_failure(c, CODE_NOT_FOUND, "there is no such path; the API begins at /v1");
	} else {
		note_failure(c, code, "there is no object of that id; ids are as lists show them");
	}
}

/* "Bearer KEY". The key itself goes no further than its hash. */
static void take_key(struct call *c, const struct http1_request *req)
{
	const struct http1_header *h = http1_header_find(&req->head, STR("authorization"), NULL);
	struct str scheme, rest = h ? h->value : STR_NONE;

	if (c->shape->open)
		return;
	if (!h) {
		note_failure(c, CODE_UNAUTHORIZED, "a key is needed: Authorization: Bearer KEY");
		return;
	}
	bool ok = !http1_header_find(&req->head, STR("authorization"), h) && str_split(&rest, ' ', &scheme) &&
		  str_ieq(scheme, STR("bearer"));
	rest = str_trim(rest, " ");
	if (!ok || rest.len == 0 || rest.len > KEY_MAX) {
		note_failure(c, CODE_UNAUTHORIZED, "Authorization must be: Bearer KEY");
		return;
	}
	SHA256((const uint8_t *)rest.p, rest.len, c->key_hash);
	c->has_key = true;
}

static bool is_json_type(struct str type)
{
	struct str essence;

	return str_split(&type, ';', &essence) && str_ieq(str_trim(essence, " \t"), STR("application/json"));
}

/* "text/event-stream", with or without parameters. */
static bool accepts_events(struct str accept)
{
	struct str element, type;

	while (http1_list_next(&accept, &element))
		if (str_split(&element, ';', &type) && str_ieq(str_trim(type, " \t"), STR("text/event-stream")))
			return true;
	return false;
}

static void check_headers(struct call *c, const struct http1_request *req)
{
	struct str type = http1_header_value(&req->head, STR("content-type"));
	bool has_body = req->framing.kind == HTTP1_BODY_CHUNKED || req->framing.length;
	bool ignores = c->shape->body_media || req->method_id == HTTP1_GET || req->method_id == HTTP1_HEAD || req->method_id == HTTP1_DELETE;

	if (has_body && !ignores && !is_json_type(type))
		note_failure(c, CODE_UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json");
	if (http1_header_find(&req->head, STR("content-encoding"), NULL))
		note_failure(c, CODE_UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported: send the body as it is");
	const char *wrong = idempotency_take(c, req);
	if (wrong)
		note_failure(c, CODE_VALIDATION_ERROR, "%s", wrong);
	c->wants_events = accepts_events(http1_header_value(&req->head, STR("accept")));
	c->last_event = arena_str(&c->arena, http1_header_value(&req->head, STR("last-event-id")));
	if (c->op == OP_VM_EXEC_WS && !req->websocket)
		note_failure(c, CODE_BAD_REQUEST, "a GET here must carry Upgrade: websocket; POST runs a command without one");
}

static void set_id(struct call *c, size_t at, uint64_t id)
{
	if (at)
		memcpy((char *)&c->params + at - 1, &id, sizeof id);
}

static void note_invalid(struct call *c, int r, const struct error *e)
{
	enum api_code code = r == -EBADMSG ? CODE_BAD_REQUEST : r == -EMSGSIZE ? CODE_TOO_LARGE : CODE_VALIDATION_ERROR;

	note_failure(c, code, "%s", e->text);
}

static void take_parameters(struct call *c, const struct http1_request *req, const struct route *route)
{
	struct error e = {0};

	int r = fields_parse_query(c->shape->query, req->query, &c->arena, &c->params, &e);
	if (r)
		note_invalid(c, r, &e);
	set_id(c, c->shape->vm_at, route->vm);
	set_id(c, c->shape->id_at, route->id);
	if (c->shape->name_at) {
		struct str name = arena_str(&c->arena, route->name);
		if (!name.p)
			note_failure(c, CODE_TOO_LARGE, "the request is too large");
		memcpy((char *)&c->params + c->shape->name_at - 1, &name, sizeof name);
	}
	c->upgrades = req->websocket && c->shape->upgrades;
	if (c->upgrades)
		c->websocket_key = arena_str(&c->arena, http1_header_value(&req->head, STR("sec-websocket-key")));
}

static void refuse_limited(struct call *c, unsigned wait_s, const char *what)
{
	if (!wait_s)
		return;
	c->limited = true;
	c->fail_status = 0; /* comes before whatever else is wrong */
	call_add_header(c, "Retry-After: %u\r\n", wait_s);
	note_failure(c, CODE_RATE_LIMITED, "too many calls %s: slow down, and try again in %u s", what, wait_s);
}

static void check_key_limit(struct call *c)
{
	struct str address = str_of(conn_address_key(c->conn));
	unsigned wait_s;

	if (c->shape->open)
		return;
	wait_s = rates_take_key(c->api->rates, c->has_key ? c->key_hash : NULL, address, mono_ms());
	refuse_limited(c, wait_s, "with this key, or with keys that are none");
	if (!c->has_key)
		rates_note_failure(c->api->rates, address, mono_ms());
}

static void take_scrape(struct call *c, const struct http1_request *req)
{
	if (req->form == HTTP1_ASTERISK || !str_eq(req->path, STR("/metrics"))) {
		note_failure(c, CODE_NOT_FOUND, "here is /metrics and nothing else; the API has an address of its own");
	} else if (req->method_id != HTTP1_GET && req->method_id != HTTP1_HEAD) {
		call_add_header(c, "Allow: GET, HEAD\r\n");
		note_failure(c, CODE_METHOD_NOT_ALLOWED, "this path takes GET, HEAD");
	}
}

/* What iron-control said of the key. */
static void note_key(struct call *c, const struct msg_done *done)
{
	if (!c->has_key)
		return;
	if (done->status != 401) {
		rates_note_good(c->api->rates, c->key_hash, mono_ms());
		return;
	}
	rates_note_bad(c->api->rates, c->key_hash);
	if (c->conn)
		rates_note_failure(c->api->rates, str_of(conn_address_key(c->conn)), mono_ms());
}

struct call *call_create(struct api *api, struct conn *conn, const struct http1_request *req)
{
	struct call *c = call_new(api, conn);
	struct route route = {0};

	take_client(c, req);
	refuse_limited(c, rates_take_address(api->rates, str_of(conn_address_key(conn)), mono_ms()), "from your address");
	if (c->fail_status)
		return c;
	if (c->metrics) {
		take_scrape(c, req);
		return c;
	}
	find_route(c, req, &route);
	if (c->fail_status)
		return c;
	take_key(c, req);
	check_key_limit(c);
	if (c->limited)
		return c;
	check_headers(c, req);
	take_parameters(c, req, &route);
	return c;
}

bool call_streams_body(const struct call *c)
{
	return c->shape && c->shape->body_media != NULL;
}

bool call_refused(const struct call *c)
{
	return c->fail_status != 0;
}

static enum api_code code_of_status(unsigned status)
{
	switch (status) {
	case 413:
	case 414:
	case 431:
		return CODE_TOO_LARGE;
	case 429:
		return CODE_RATE_LIMITED;
	case 503:
		return CODE_UNAVAILABLE;
	default:
		return CODE_BAD_REQUEST;
	}
}

void call_fail_body(struct call *c, unsigned status, const char *message)
{
	answer_failure(c, status, code_text(code_of_status(status)), str_of(message));
	free_unless_held(c);
}

void call_refuse(struct api *api, struct conn *conn, unsigned status, const char *message)
{
	struct call *c = call_new(api, conn);

	if (!message)
		message = status == 429 ? "too many connections from your address: close some" : "too many connections: try again";
	call_fail_body(c, status, message);
}

/* --- to iron-control and back --- */

static bool on_answer(struct ipc_peer *peer, const struct ipc_msg *m, void *arg);

static void answer_kept(struct call *c)
{
	struct buf body = c->kept_body;

	c->kept_body = (struct buf){0};
	call_add_header(c, "Idempotent-Replayed: true\r\n");
	call_answer(c, c->kept_status, &body);
	if (c->channel)
		channel_drop(c->channel);
	else
		call_release(c);
}

/* Before the asker's own: what the call was answered with once before needs nothing of it. */
static bool on_asked(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct call *c = arg;
	const struct msg_done *done = m && m->info->type == MSG_TYPE_msg_done ? IPC_RECORD(m, msg_done) : NULL;

	if (m && m->info->type == MSG_TYPE_row_kept) {
		c->kept_status = IPC_RECORD(m, row_kept)->status;
		buf_append_str(&c->kept_body, IPC_RECORD(m, row_kept)->body);
		return false;
	}
	if (done && done->status == 200 && c->kept_status) {
		answer_kept(c);
		return true;
	}
	if (done)
		note_key(c, done);
	if (done && done->replayed)
		call_add_header(c, "Idempotent-Replayed: true\r\n");
	c->owes_answer = done && done->status == 200 && done->value && c->idempotency_key.len;
	if (!c->conn)
		idempotency_tell_lost(c);
	return c->asked(peer, m, arg);
}

int call_send(struct call *c, enum msg_type type, const void *record, unsigned timeout_ms, ipc_answer *answered)
{
	if (!c->api->control)
		return -EPIPE;
	c->asked = answered;
	return ipc_call(c->api->control, type, record, NULL, 0, timeout_ms, on_asked, c);
}

int call_ask(struct call *c, enum msg_type type, const void *record, unsigned timeout_ms, ipc_answer *answered)
{
	int r = call_send(c, type, record, timeout_ms, answered);
	if (r == -EINVAL || r == -EMSGSIZE)
		call_fail(c, CODE_VALIDATION_ERROR, "the request is too large: shorten its lists");
	else if (r)
		call_fail(c, CODE_UNAVAILABLE, "iron-control is starting: try again");
	else
		call_hold(c);
	return r;
}

static void answer_done(struct call *c, const struct msg_done *done)
{
	struct buf body = {0};

	if (done->status < 200 || done->status >= 300) {
		call_fail_done(c, done);
		return;
	}
	if (c->shape->answer == ANSWER_NONE) {
		call_answer(c, c->shape->status, &body);
		return;
	}
	if (answer_end(&c->answer, done)) {
		log_limited(LOG_LEVEL_ERROR, 1, "an answer of iron-control's is not one", "op=%s", op_info_get(c->op)->name);
		call_fail(c, CODE_INTERNAL, "an answer of iron's own made no sense; the log has more");
		return;
	}
	body = c->answer.out;
	c->answer.out = (struct buf){0};
	call_answer(c, c->shape->status, &body);
}

/* True: that was the last. */
static bool on_answer(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct call *c = arg;

	if (m && m->info->type != MSG_TYPE_msg_done) {
		if (!c->fail_status && answer_row(&c->answer, m->info->type, m->record)) {
			log_limited(LOG_LEVEL_ERROR, 1, "a row of iron-control's is none", "type=%u", (unsigned)m->info->type);
			note_failure(c, CODE_INTERNAL, "an answer of iron's own made no sense; the log has more");
		}
		return false;
	}
	if (!m)
		call_fail(c, CODE_UNAVAILABLE, "iron-control did not answer: try again");
	else if (c->fail_status)
		call_fail(c, c->fail_code, "%s", c->fail_message);
	else
		answer_done(c, IPC_RECORD(m, msg_done));
	call_release(c);
	return true;
}

/* --- start --- */

static void answer_description(struct call *c)
{
	struct buf *made = &c->api->description, body = {0};

	if (made->len == 0 && openapi_write(made)) {
		buf_finish(made);
		call_fail(c, CODE_INTERNAL, "the description could not be made");
		return;
	}
	buf_append_str(&body, buf_str(made));
	call_answer(c, 200, &body);
}

static void answer_local(struct call *c)
{
	struct buf body = {0};
	struct json j = {.out = &body};

	if (c->op == OP_OPENAPI) {
		answer_description(c);
		return;
	}
	json_object_begin(&j, NULL);
	json_object_begin(&j, "data");
	json_str(&j, "status", STR("ok"));
	json_str(&j, "version", STR(IRON_VERSION));
	json_object_end(&j);
	json_object_end(&j);
	call_answer(c, 200, &body);
}

static void take_body(struct call *c, struct str body)
{
	struct error e = {0};
	void *record = (char *)&c->params + c->shape->body_at;

	int r = fields_parse_body(c->shape->body, body, &c->arena, record, &e);
	if (r == 0 && c->shape->finish)
		r = c->shape->finish(&c->params, &c->arena, &e);
	if (r)
		note_invalid(c, r, &e);
}

/* Whose key it is, and whether it may: asked before anyone learns what is wrong with the rest of the request, and before an
 * upgrade. True: that was the last. */
static bool on_key_checked(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct call *c = arg;

	if (m && m->info->type == MSG_TYPE_row_me)
		c->scopes = IPC_RECORD(m, row_me)->scopes;
	if (m && m->info->type != MSG_TYPE_msg_done)
		return false;
	if (!c->conn)
		; /* the client left meanwhile */
	else if (!m)
		call_fail(c, CODE_UNAVAILABLE, "iron-control did not answer: try again");
	else if (IPC_RECORD(m, msg_done)->status != 200)
		call_fail_done(c, IPC_RECORD(m, msg_done));
	else if (!scope_covers(c->scopes, op_info_get(c->op)->scope))
		call_fail(c, CODE_SCOPE_MISSING, "this key's scopes do not cover this call; use one that has the scope");
	else if (c->fail_status)
		call_fail(c, c->fail_code, "%s", c->fail_message);
	else
		exec_ws_start(c);
	call_release(c);
	return true;
}

static void check_key(struct call *c)
{
	struct msg_req who;

	call_identify(c, &who);
	struct msg_page me = {.op = OP_ME, .key_hash = who.key_hash, .address = who.address, .client = who.client};
	call_ask(c, MSG_TYPE_msg_page, &me, API_CONTROL_MS, on_key_checked);
}

static unsigned held_ms(const struct call *c)
{
	return c->op == OP_VM_GET ? c->params.object.wait_ms : 0;
}

static void ask(struct call *c)
{
	answer_begin(&c->answer, c->shape->answer);
	call_identify(c, &c->params.req);
	call_ask(c, c->shape->record, &c->params, API_CONTROL_MS + held_ms(c), on_answer);
}

void call_start(struct call *c, struct buf *body)
{
	call_hold(c);
	idempotency_seal(c, buf_str(body));
	if (!c->fail_status && !c->metrics)
		take_body(c, buf_str(body));
	if (c->has_key && !c->limited && (c->fail_status || c->upgrades))
		check_key(c);
	else if (c->fail_status)
		call_fail(c, c->fail_code, "%s", c->fail_message);
	else if (c->metrics)
		metrics_start(c);
	else if (c->shape->answer == ANSWER_LOCAL)
		answer_local(c);
	else if (c->shape->start)
		c->shape->start(c);
	else
		ask(c);
	call_release(c);
}

/* A half-close leaves a question standing, and a file on its way, but nobody waits for a command any more. */
void call_client_eof(struct call *c)
{
	if (c->work && !c->outlives_eof)
		conn_destroy(c->conn);
}

void call_client_gone(struct call *c)
{
	c->conn = NULL;
	call_record(c, 499);
	call_hold(c);
	if (c->work)
		c->cancel(c->work);
	call_release(c);
}
