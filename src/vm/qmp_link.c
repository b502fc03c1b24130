#include "vm/qmp_link.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/log.h"

#define READ_MAX 16384
#define PENDING_MAX 32
#define OUT_MAX ((size_t)64 << 10)

struct pending {
	uint64_t id; /* 0: free */
	qmp_answer *on_answer;
	void *arg;
};

struct qmp_link {
	int fd;
	struct event *readable, *writable;
	const struct qmp_link_ops *ops;
	void *user;
	struct buf in, out;
	uint64_t last_id;
	struct pending pending[PENDING_MAX];
};

static void release(struct qmp_link *l)
{
	if (l->readable)
		event_free(take_ptr(l->readable));
	if (l->writable)
		event_free(take_ptr(l->writable));
	if (l->fd >= 0)
		close(take_fd(l->fd));
}

static void shut(struct qmp_link *l, const char *reason)
{
	if (l->fd < 0)
		return;
	release(l);
	for (size_t i = 0; i < PENDING_MAX; i++) {
		struct pending p = l->pending[i];
		l->pending[i] = (struct pending){0};
		if (p.id && p.on_answer)
			p.on_answer(NULL, p.arg);
	}
	l->ops->closed(reason, l->user);
}

static void on_answer(struct qmp_link *l, const struct qmp_message *m)
{
	for (size_t i = 0; i < PENDING_MAX; i++) {
		struct pending p = l->pending[i];
		if (!m->has_id || p.id == 0 || p.id != m->id)
			continue;
		l->pending[i] = (struct pending){0};
		if (m->kind == QMP_ERROR)
			log_limited(LOG_LEVEL_WARN, 2, "qmp error", "class=%s text=%s", log_quote(m->name),
				    log_quote(m->text));
		if (p.on_answer)
			p.on_answer(m, p.arg);
		return;
	}
	shut(l, "protocol: an answer to no command");
}

static void digest(struct qmp_link *l)
{
	struct str in = buf_str(&l->in), line;

	while (l->fd >= 0) {
		int r = qmp_line_next(&in, &line);
		if (r == 0)
			break;
		struct qmp_message m = {0};
		if (r < 0 || qmp_message_parse(line, &m)) {
			shut(l, "protocol: malformed line");
			return;
		}
		if (m.kind == QMP_EVENT)
			l->ops->event(&m, l->user);
		else if (m.kind != QMP_GREETING)
			on_answer(l, &m);
		qmp_message_finish(&m);
	}
	buf_consume(&l->in, l->in.len - in.len);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_link *l = arg;
	void *to = buf_reserve(&l->in, READ_MAX);

	if (!to) {
		shut(l, "protocol: line too long");
		return;
	}
	ssize_t n = recv(fd, to, READ_MAX, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		shut(l, n == 0 ? "closed by QEMU" : strerror(errno));
		return;
	}
	buf_commit(&l->in, (size_t)n);
	digest(l);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct qmp_link *l = arg;
	ssize_t n = send(fd, l->out.data, l->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		shut(l, strerror(errno));
		return;
	}
	if (n > 0)
		buf_consume(&l->out, (size_t)n);
	if (l->out.len == 0)
		event_del(l->writable);
}

bool qmp_link_is_open(const struct qmp_link *l)
{
	return l && l->fd >= 0;
}

int qmp_link_command(struct qmp_link *l, const char *name, qmp_answer *on_answer_, void *arg)
{
	size_t i = 0;

	if (!qmp_link_is_open(l))
		return -EPIPE;
	while (i < PENDING_MAX && l->pending[i].id)
		i++;
	if (i == PENDING_MAX)
		return -EBUSY;
	int r = qmp_command_encode(name, NULL, l->last_id + 1, &l->out);
	if (r)
		return r;
	l->pending[i] = (struct pending){.id = ++l->last_id, .on_answer = on_answer_, .arg = arg};
	return event_add(l->writable, NULL) ? -ENOMEM : 0;
}

struct qmp_link *qmp_link_create(struct event_base *base, int fd, const struct qmp_link_ops *ops, void *user)
{
	struct qmp_link *l = xcalloc(1, sizeof *l);

	*l = (struct qmp_link){
		.fd = fd, .ops = ops, .user = user, .in.max = QMP_LINE_MAX + READ_MAX, .out.max = OUT_MAX};
	l->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, l);
	l->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_writable, l);
	if (!l->readable || !l->writable || event_add(l->readable, NULL) ||
	    qmp_link_command(l, "qmp_capabilities", NULL, NULL)) {
		qmp_link_destroy(l);
		return NULL;
	}
	return l;
}

void qmp_link_destroy(struct qmp_link *l)
{
	if (!l)
		return;
	release(l);
	buf_finish(&l->in);
	buf_finish(&l->out);
	free(l);
}
