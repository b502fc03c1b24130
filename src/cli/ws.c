#include "cli/ws.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#include "base/text.h"
#include "cli/out.h"
#include "codec/websocket.h"

#define HEAD_MAX ((size_t)32 << 10)
#define MESSAGE_MAX ((size_t)1 << 20)
#define HANDSHAKE_MS 30000

struct ws {
	CURL *curl;
	curl_socket_t fd;
	struct ws_decoder decoder;
	struct buf in;
	size_t taken; /* of `in`, by events already given out */
	/* Frames on their way: `out` is not touched while TLS may have begun on it (it must be asked again with the
	 * very same bytes); what comes meanwhile waits in `next`. */
	struct buf out, next;
	size_t sent; /* of `out` */
};

void ws_destroy(struct ws *w)
{
	if (!w)
		return;
	curl_easy_cleanup(w->curl);
	ws_decoder_finish(&w->decoder);
	buf_finish(&w->in);
	buf_finish(&w->out);
	buf_finish(&w->next);
	free(w);
}

int ws_fd(const struct ws *w)
{
	return (int)w->fd;
}

static int wait_socket(const struct ws *w, short events, int ms)
{
	struct pollfd p = {.fd = (int)w->fd, .events = events};
	int n = poll(&p, 1, ms);
	return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : errno == EINTR ? 0 : -errno;
}

static int send_all(struct ws *w, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		size_t n = 0;
		CURLcode e = curl_easy_send(w->curl, p, len, &n);
		if (e == CURLE_AGAIN) {
			if (wait_socket(w, POLLOUT, -1))
				return -EIO;
			continue;
		}
		if (e != CURLE_OK)
			return -EIO;
		p += n;
		len -= n;
	}
	return 0;
}

/* What the socket has, into w->in. 1: something came; 0: nothing now; -EPIPE. */
static int fill(struct ws *w)
{
	size_t n = 0;
	void *to = buf_reserve(&w->in, 32768);

	if (!to)
		return -EPROTO;
	CURLcode e = curl_easy_recv(w->curl, to, 32768, &n);
	if (e == CURLE_AGAIN)
		return 0;
	if (e != CURLE_OK || n == 0)
		return -EPIPE;
	buf_commit(&w->in, n);
	return 1;
}

static void swap_queues(struct ws *w)
{
	struct buf done = w->out;

	buf_clear(&done);
	w->out = w->next;
	w->next = done;
	w->sent = 0;
}

int ws_flush(struct ws *w)
{
	while (w->out.len) {
		size_t n = 0;
		CURLcode e = curl_easy_send(w->curl, w->out.data + w->sent, w->out.len - w->sent, &n);
		if (e == CURLE_AGAIN)
			return 0;
		if (e != CURLE_OK)
			return -EIO;
		w->sent += n;
		if (w->sent == w->out.len)
			swap_queues(w);
	}
	return 0;
}

bool ws_wants_write(const struct ws *w)
{
	return w->out.len > 0;
}

static int send_frame(struct ws *w, enum ws_opcode opcode, struct str payload)
{
	uint8_t mask[4];

	if (getrandom(mask, sizeof mask, 0) != (ssize_t)sizeof mask)
		return -EIO;
	int r = ws_encode(opcode, payload, mask, w->out.len ? &w->next : &w->out);
	return r ? r : ws_flush(w);
}

int ws_send(struct ws *w, enum channel channel, const void *p, size_t n)
{
	_cleanup_(buf_finish) struct buf b = {0};

	buf_append_byte(&b, (uint8_t)channel);
	buf_append(&b, p, n);
	return b.failed ? -EMSGSIZE : send_frame(w, WS_BINARY, buf_str(&b));
}

int ws_send_control(struct ws *w, json_t *control)
{
	_cleanup_free_ char *text = json_dumps(control, JSON_COMPACT);

	json_decref(control);
	return text ? ws_send(w, CHANNEL_CONTROL, text, strlen(text)) : -ENOMEM;
}

int ws_receive(struct ws *w, enum channel *ret_channel, struct str *ret, struct error *reterr)
{
	for (;;) {
		struct str rest = str_make(w->in.data + w->taken, w->in.len - w->taken);
		struct ws_event e;
		int r = ws_decode(&w->decoder, &rest, &e);
		w->taken = w->in.len - rest.len;
		if (r < 0)
			return error_set(reterr, -EPROTO, "the API broke the WebSocket protocol");
		if (r == 0) {
			buf_consume(&w->in, w->taken);
			w->taken = 0;
			r = fill(w);
			if (r <= 0)
				return r;
			continue;
		}
		if (e.opcode == WS_PING) {
			if (send_frame(w, WS_PONG, e.payload))
				return -EPIPE;
		} else if (e.opcode == WS_CLOSE) {
			if (e.close_code != WS_CLOSE_NORMAL && e.payload.len)
				return error_set(reterr, -EIO, "the API closed the stream: %.*s", STR_ARG(e.payload));
			return -EPIPE;
		} else if (e.opcode == WS_BINARY && e.payload.len && (uint8_t)e.payload.p[0] <= CHANNEL_CONTROL) {
			*ret_channel = (enum channel)e.payload.p[0];
			*ret = str_make(e.payload.p + 1, e.payload.len - 1);
			return 1;
		} else if (e.opcode == WS_TEXT) {
			*ret_channel = CHANNEL_CONTROL;
			*ret = e.payload;
			return 1;
		}
	}
}

/* --- the handshake --- */

static int send_request(struct ws *w, struct client *c, const char *path, char ret_accept[29])
{
	_cleanup_(buf_finish) struct buf key = {0}, head = {0};
	uint8_t nonce[16];

	if (getrandom(nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce)
		return -EIO;
	base64_encode(str_make(nonce, sizeof nonce), &key);
	ws_accept(buf_str(&key), ret_accept);
	buf_printf(&head,
	           "GET /v1%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: iron/" IRON_VERSION
	           "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %.*s\r\n",
	           path, client_authority(c), STR_ARG(buf_str(&key)));
	if (*client_key(c))
		buf_printf(&head, "Authorization: Bearer %s\r\n", client_key(c));
	buf_append_z(&head, "\r\n");
	int r = send_all(w, head.data, head.len);
	explicit_bzero(head.data, head.len);
	return r;
}

/* Bytes of the head once it is all there. */
static int read_head(struct ws *w, size_t *ret)
{
	for (;;) {
		char *end = w->in.len ? memmem(w->in.data, w->in.len, "\r\n\r\n", 4) : NULL;
		if (end) {
			*ret = (size_t)(end + 4 - (char *)w->in.data);
			return 0;
		}
		if (w->in.len > HEAD_MAX)
			return -EPROTO;
		int r = fill(w);
		if (r < 0)
			return r;
		if (r == 0 && wait_socket(w, POLLIN, HANDSHAKE_MS))
			return -ETIMEDOUT;
	}
}

/* The value of a field in the head, compared without case. */
static struct str field(struct str head, struct str name)
{
	struct str line;

	while (str_split(&head, '\n', &line))
		if (line.len > name.len && line.p[name.len] == ':' && str_ieq(str_make(line.p, name.len), name))
			return str_trim(str_make(line.p + name.len + 1, line.len - name.len - 1), " \t\r");
	return STR_NONE;
}

/* The API said no: its error object, read to its end. The head is in w->in, which moves while more is read. */
static int refused(struct ws *w, size_t head_len, struct error *reterr)
{
	struct str head = str_make(w->in.data, head_len), line;
	uint64_t length = 0;

	str_parse_u64(field(head, STR("Content-Length")), HEAD_MAX, &length);
	str_split(&head, '\n', &line);
	_cleanup_free_ char *status = str_dup(str_trim(line, "\r"));
	while (w->in.len < head_len + length) {
		int r = fill(w);
		if (r < 0 || (r == 0 && wait_socket(w, POLLIN, HANDSHAKE_MS)))
			break;
	}
	json_t *body = json_loadb((char *)w->in.data + head_len, MIN(w->in.len - head_len, (size_t)length), 0, NULL);
	const char *message = get_string(json_object_get(body, "error"), "message");
	error_set(reterr, -EREMOTEIO, *message ? "%s" : "the API answered %s", *message ? message : status);
	json_decref(body);
	return -EREMOTEIO;
}

static int handshake(struct ws *w, struct client *c, const char *path, struct error *reterr)
{
	char accept[29];
	size_t n = 0;

	int r = send_request(w, c, path, accept);
	if (r == 0)
		r = read_head(w, &n);
	if (r)
		return error_set(reterr, r, "the API did not answer the request to run a command");
	struct str head = str_make(w->in.data, n);
	if (!str_has_prefix(head, STR("HTTP/1.1 101 ")))
		return refused(w, n, reterr);
	if (!str_eq(field(head, STR("Sec-WebSocket-Accept")), str_of(accept)))
		return error_set(reterr, -EPROTO, "what answered is no WebSocket server");
	buf_consume(&w->in, n);
	return 0;
}

int ws_open(struct client *c, const char *path, const json_t *first, struct ws **ret, struct error *reterr)
{
	_cleanup_free_ char *text = json_dumps(first, JSON_COMPACT);
	struct ws *w = xcalloc(1, sizeof *w);

	ws_decoder_init(&w->decoder, false, MESSAGE_MAX);
	w->in.max = 4 * MESSAGE_MAX;
	int r = client_connect_raw(c, &w->curl, reterr);
	if (r == 0 && curl_easy_getinfo(w->curl, CURLINFO_ACTIVESOCKET, &w->fd) != CURLE_OK)
		r = error_set(reterr, -EIO, "no connection to the API");
	if (r == 0)
		r = handshake(w, c, path, reterr);
	if (r == 0 && send_frame(w, WS_TEXT, str_of(text)))
		r = error_set(reterr, -EIO, "the connection to the API broke");
	if (r) {
		ws_destroy(w);
		return r;
	}
	*ret = w;
	return 0;
}
