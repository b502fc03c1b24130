#include "prog/role_parent.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "prog/sandboxes.h"

struct role_parent {
	struct event_base *base;
	const struct ipc_rule *rules;
	size_t nrules;
	role_parent_away *on_away;
	void *user;
	struct ipc_peer *peer; /* NULL: away */
	bool ending;
	struct event *waiting; /* for the next one; NULL: this role ends with its irond */
};

/* A process has one irond, and the channel's callbacks are given the rules' user. */
static struct role_parent *of_process;

static void on_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct role_parent *p = of_process;

	p->peer = NULL;
	ipc_peer_destroy(peer);
	if (!p->waiting || p->ending) {
		log_info("ending", "irond=%s", log_quote(reason));
		event_base_loopbreak(p->base);
		return;
	}
	log_info("irond gone, going on with what is here", "reason=%s", log_quote(reason));
	p->on_away(true, p->user);
	event_add(p->waiting, NULL);
}

void role_parent_end(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	of_process->ending = true;
	event_base_loopbreak(of_process->base);
}

static bool take(struct role_parent *p, int fd)
{
	p->peer = ipc_peer_create(p->base, fd, "irond", p->rules, p->nrules, on_closed, p->user);
	return p->peer;
}

static void on_another(evutil_socket_t listener, short what, void *user)
{
	struct role_parent *p = user;
	int fd = -1, r = ipc_accept(listener, &fd);

	if (r < 0) {
		log_limited(LOG_LEVEL_WARN, 1, "not taken for irond", "reason=%s", log_quote(strerror(-r)));
		return;
	}
	if (!take(p, fd))
		return;
	log_info("another irond", NULL);
	event_del(p->waiting);
	p->on_away(false, p->user);
}

static bool is_listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof on;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

struct role_parent *role_parent_create(struct event_base *base, const struct ipc_rule *rules, size_t nrules,
				       role_parent_away *on_away, void *user)
{
	struct role_parent *p = xcalloc(1, sizeof *p);

	*p = (struct role_parent){.base = base, .rules = rules, .nrules = nrules, .on_away = on_away, .user = user};
	if (is_listening(ROLE_ADOPT_FD)) {
		p->waiting = event_new(base, ROLE_ADOPT_FD, EV_READ | EV_PERSIST, on_another, p);
		if (!p->waiting)
			abort();
	}
	of_process = p;
	if (!take(p, ROLE_CHANNEL_FD)) {
		role_parent_destroy(p);
		return NULL;
	}
	return p;
}

void role_parent_destroy(struct role_parent *p)
{
	if (!p)
		return;
	of_process = NULL;
	ipc_peer_destroy(p->peer);
	if (p->waiting)
		event_free(p->waiting);
	free(p);
}
