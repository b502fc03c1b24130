#include "broker/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "broker/requests.h"
#include "broker/vms.h"
#include "os/fdutil.h"
#include "os/ipc.h"

#define LINE_MAX_BYTES 1024
#define MAX_CONNECTIONS 32
#define MAX_WORDS 5
#define KEY_TIMEOUT_MS 10000
#define WORKSPACES_TIMEOUT_MS 2000
#define INDEX_TIMEOUT_MS 30000
#define INDEX_POLL_MS 300
#define INDEX_MISSES 60 /* polls without an answer: iron-control may be between two lives */

struct conn {
	struct ctl_server *server;
	struct conn *next;
	int fd;
	struct event *readable;
	char line[LINE_MAX_BYTES];
	size_t len;
	bool asked, stopping; /* stopping: waits for irond's end */
	bool owed;            /* an answer is under way: not freed before it comes */
	struct event *poll;   /* of the index's state, or NULL */
	unsigned permille, misses;
};

struct ctl_server {
	struct broker *b;
	int fd;
	char *path;
	struct event *acceptable;
	struct conn *conns;
	unsigned n;
};

static void conn_close(struct conn *c)
{
	struct conn **p = &c->server->conns;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	c->server->n--;
	event_free(c->readable);
	if (c->poll)
		event_free(c->poll);
	close(c->fd);
	free(c);
}

/* Root at the other end, and little text: what does not fit into the socket's buffer is dropped with the connection. */
static void say(struct conn *c, const char *kind, const char *text)
{
	_cleanup_(buf_finish) struct buf b = {0};

	buf_printf(&b, "%s%s%s\n", kind, *text ? " " : "", text);
	if (send(c->fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)b.len)
		log_debug("control connection does not read", NULL);
}

static void answer(struct conn *c, int code, const char *reason)
{
	say(c, code == 0 ? "ok" : "fail", code == 0 ? "" : reason);
	conn_close(c);
}

/* --- status --- */

static void put_role(struct conn *c, const struct role_info *r)
{
	char line[160], id[ID_TEXT_SIZE] = "", since[RFC3339_SIZE] = "";

	if (r->id)
		id_format(strcmp(r->name, "iron-vm") == 0 ? "vm_" : "ws_", r->id, id);
	if (r->pid)
		rfc3339_format(r->started_at, since);
	snprintf(line, sizeof line, "%-13s %-18s %-9s %7d  restarts %-3u %s", r->name, id, r->state, r->pid,
		 r->restarts, since);
	say(c, "text", line);
}

/* iron-control's to know; a status without them is one too. */
static bool on_workspaces(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct conn *c = user;
	char line[200], id[ID_TEXT_SIZE];

	if (!m || m->info->type != MSG_TYPE_msg_root_workspace) {
		c->owed = false;
		answer(c, 0, "");
		return true;
	}
	const struct msg_root_workspace *w = IPC_RECORD(m, msg_root_workspace);
	id_format("ws_", w->id, id);
	snprintf(line, sizeof line, "workspace     %-18s %.*s: %lu VMs, %lu running, %lu keys", id, STR_ARG(w->name), w->vms,
		 w->running, w->keys);
	say(c, "text", line);
	return false;
}

static void on_status(const struct role_info *roles, size_t n, void *user)
{
	struct conn *c = user;
	const struct broker *b = c->server->b;
	struct host_text space;
	struct msg_host host;
	char line[768], since[RFC3339_SIZE];

	c->owed = false;
	host_describe(b, &space, &host);
	rfc3339_format(b->started_at, since);
	snprintf(line, sizeof line, "irond %s, pid %d, since %s", IRON_VERSION, getpid(), since);
	say(c, "text", line);
	snprintf(line, sizeof line, "accelerator %.*s (%s), sandbox %s, cgroup %.*s, images %zu, VMs running %u",
		 STR_ARG(host.accelerator), space.reason, space.sandbox, STR_ARG(host.cgroup), b->images.n,
		 vms_running(b));
	say(c, "text", line);
	for (size_t i = 0; i < n; i++)
		put_role(c, &roles[i]);
	c->owed = true;
	if (ipc_call(role_peer(b->control), MSG_TYPE_msg_root_workspaces_get, &(struct msg_root_workspaces_get){}, NULL, 0,
		     WORKSPACES_TIMEOUT_MS, on_workspaces, c) == 0)
		return;
	c->owed = false;
	answer(c, 0, "");
}

/* --- key --- */

static bool on_key(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct conn *c = user;
	char text[513] = "iron-control does not answer";
	int code = -EPIPE;

	c->owed = false;
	if (m && m->info->type == MSG_TYPE_msg_result) {
		const struct msg_result *r = IPC_RECORD(m, msg_result);
		snprintf(text, sizeof text, "%.*s", STR_ARG(r->reason));
		code = (int)r->code;
	}
	if (code == 0)
		say(c, "text", text);
	explicit_bzero(text, code == 0 ? sizeof text : 0);
	answer(c, code, text);
	return true;
}

static void cmd_key(struct conn *c, char **words, size_t n)
{
	struct ipc_peer *control = role_peer(c->server->b->control);
	struct msg_root_key_create m = {.name = str_of(n > 1 ? words[1] : "")};
	uint64_t scopes, expires;

	m.workspace = str_of(n > 4 ? words[4] : "");
	if (n != 5 || m.workspace.len > 63 || m.name.len == 0 || m.name.len > 63 || str_parse_u64(str_of(words[2]), UINT32_MAX, &scopes) < 0 ||
	    str_parse_u64(str_of(words[3]), INT64_MAX, &expires) < 0) {
		answer(c, -EINVAL, "the names of a key and of a workspace have 1 to 63 bytes");
		return;
	}
	m.scopes = (uint32_t)scopes;
	m.expires_at = (int64_t)expires;
	c->owed = true;
	if (ipc_call(control, MSG_TYPE_msg_root_key_create, &m, NULL, 0, KEY_TIMEOUT_MS, on_key, c) < 0) {
		c->owed = false;
		answer(c, -EPIPE, "iron-control is not up; see irond status");
	}
}

/* --- audit reindex --- */

static void poll_later(struct conn *c)
{
	evtimer_add(c->poll, &(struct timeval){.tv_usec = INDEX_POLL_MS * 1000});
}

static void put_progress(struct conn *c, unsigned permille)
{
	char line[64];

	if (permille == c->permille)
		return;
	c->permille = permille;
	snprintf(line, sizeof line, "%u.%u %% of the journal", permille / 10, permille % 10);
	say(c, "text", line);
}

static bool on_index(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct conn *c = user;

	if (!m || m->info->type != MSG_TYPE_msg_index) {
		if (++c->misses > INDEX_MISSES) {
			c->owed = false;
			answer(c, -EPIPE, "iron-control does not answer; see irond status");
		} else {
			poll_later(c);
		}
		return true;
	}
	const struct msg_index *x = IPC_RECORD(m, msg_index);
	c->misses = 0;
	if (!x->whole && x->code == 0) {
		put_progress(c, x->permille);
		poll_later(c);
		return true;
	}
	c->owed = false;
	if (x->code == 0 && x->skipped)
		say(c, "text", "parts of the journal could not be read; iron-control's log has more");
	answer(c, (int)x->code, "the index could not be begun anew; iron-control's log says why, and it tries again by itself");
	return true;
}

static void ask_index(struct conn *c, bool reset)
{
	struct ipc_peer *control = role_peer(c->server->b->control);
	const struct msg_index_get m = {.reset = reset};

	if (!control || ipc_call(control, MSG_TYPE_msg_index_get, &m, NULL, 0, INDEX_TIMEOUT_MS, on_index, c) < 0)
		on_index(NULL, NULL, c);
}

static void on_poll(evutil_socket_t fd, short what, void *user)
{
	ask_index(user, false);
}

static void cmd_reindex(struct conn *c, char **words, size_t n)
{
	c->poll = evtimer_new(c->server->b->base, on_poll, c);
	if (!c->poll || !role_peer(c->server->b->control)) {
		answer(c, -EPIPE, "iron-control is not up; see irond status");
		return;
	}
	c->owed = true;
	ask_index(c, true);
}

/* --- the commands --- */

static void cmd_status(struct conn *c, char **words, size_t n)
{
	c->owed = true;
	broker_ping_roles(c->server->b, on_status, c);
}

static void cmd_stop(struct conn *c, char **words, size_t n)
{
	c->stopping = true;
	broker_stop(c->server->b, n > 1 && strcmp(words[1], "vms") == 0);
}

static void cmd_reload(struct conn *c, char **words, size_t n)
{
	struct error e = {0};
	int r = broker_reload(c->server->b, &e);

	answer(c, r, e.text);
}

static void cmd_rescan(struct conn *c, char **words, size_t n)
{
	struct error e = {0};
	int r = broker_rescan_images(c->server->b, &e);

	answer(c, r, e.text);
}

static const struct {
	const char *word;
	void (*run)(struct conn *c, char **words, size_t n);
} commands[] = {
	{"status", cmd_status}, {"stop", cmd_stop}, {"reload", cmd_reload}, {"rescan", cmd_rescan}, {"key", cmd_key},
	{"reindex", cmd_reindex}};

static void handle_line(struct conn *c)
{
	char *words[MAX_WORDS], *rest = c->line;
	size_t n = 0;

	c->asked = true;
	while (n < MAX_WORDS && rest)
		words[n++] = strsep(&rest, "\t");
	for (size_t i = 0; !rest && i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].word, words[0]) == 0) {
			commands[i].run(c, words, n);
			return;
		}
	answer(c, -EINVAL, "this irond does not know that request; is it an older one?");
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
	struct conn *c = user;
	ssize_t n = recv(c->fd, c->line + c->len, sizeof c->line - 1 - c->len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || c->asked) {
		event_del(c->readable);
		if (!c->owed)
			conn_close(c);
		return;
	}
	c->len += (size_t)n;
	c->line[c->len] = '\0';
	char *end = memchr(c->line, '\n', c->len);
	if (end) {
		*end = '\0';
		handle_line(c);
	} else if (c->len == sizeof c->line - 1) {
		answer(c, -EMSGSIZE, "request too long");
	}
}

static bool is_root(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == 0;
}

static void on_acceptable(evutil_socket_t fd, short what, void *user)
{
	struct ctl_server *s = user;
	_cleanup_close_ int conn = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (conn < 0 || !is_root(conn) || s->n >= MAX_CONNECTIONS)
		return;
	struct conn *c = xcalloc(1, sizeof *c);
	c->server = s;
	c->readable = event_new(s->b->base, conn, EV_READ | EV_PERSIST, on_readable, c);
	if (!c->readable || event_add(c->readable, NULL) < 0)
		abort();
	c->fd = take_fd(conn);
	c->next = s->conns;
	s->conns = c;
	s->n++;
}

int ctl_server_create(struct broker *b, const char *path, struct ctl_server **ret, struct error *reterr)
{
	struct ctl_server *s;
	int fd, r = unix_listen(path, 0600, &fd);

	if (r < 0)
		return error_set(reterr, r, "%s: %s", path, strerror(-r));
	s = xcalloc(1, sizeof *s);
	*s = (struct ctl_server){.b = b, .fd = fd, .path = xstrdup(path)};
	s->acceptable = event_new(b->base, fd, EV_READ | EV_PERSIST, on_acceptable, s);
	if (!s->acceptable || event_add(s->acceptable, NULL) < 0)
		abort();
	*ret = s;
	return 0;
}

void ctl_server_say(struct ctl_server *s, const char *text)
{
	for (struct conn *c = s->conns; c; c = c->next)
		if (c->stopping)
			say(c, "text", text);
}

void ctl_server_goodbye(struct ctl_server *s)
{
	struct conn *next;

	for (struct conn *c = s->conns; c; c = next) {
		next = c->next;
		if (c->stopping)
			answer(c, 0, "");
	}
}

void ctl_server_destroy(struct ctl_server *s)
{
	if (!s)
		return;
	while (s->conns)
		conn_close(s->conns);
	event_free(s->acceptable);
	unlink(s->path);
	close(s->fd);
	free(s->path);
	free(s);
}
