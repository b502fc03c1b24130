#include "api/rendezvous.h"

#include "base/cleanup.h"
#include "base/log.h"

struct meeting {
	struct rendezvous *v;
	uint64_t token;
	int fd;
	rendezvous_met *met;
	void *arg;
	struct event *timer;
};

void rendezvous_init(struct rendezvous *v, struct event_base *base)
{
	*v = (struct rendezvous){.base = base};
}

static void meeting_free(struct meeting *m)
{
	map_remove(&m->v->waiting, m->token);
	if (m->fd >= 0)
		close(m->fd);
	if (m->timer)
		event_free(m->timer);
	free(m);
}

void rendezvous_finish(struct rendezvous *v)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&v->waiting, &i, &slot)) {
		meeting_free(slot->value);
		i = 0;
	}
	map_finish(&v->waiting);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct meeting *m = arg;
	rendezvous_met *met = m->met;
	void *user = m->arg;

	if (!met)
		log_limited(LOG_LEVEL_WARN, 1, "a stream that nobody asked for is closed", NULL);
	meeting_free(m);
	if (met)
		met(-1, user);
}

static struct meeting *meeting_create(struct rendezvous *v, uint64_t token)
{
	struct timeval tv = {.tv_sec = RENDEZVOUS_MS / 1000};
	struct meeting *m = xcalloc(1, sizeof *m);

	*m = (struct meeting){.v = v, .token = token, .fd = -1};
	map_put(&v->waiting, token, m);
	m->timer = evtimer_new(v->base, on_timeout, m);
	if (!m->timer || event_add(m->timer, &tv)) {
		meeting_free(m);
		return NULL;
	}
	return m;
}

void rendezvous_offer(struct rendezvous *v, uint64_t token, int fd)
{
	struct meeting *m = map_get(&v->waiting, token);

	if (m && m->met) {
		rendezvous_met *met = m->met;
		void *arg = m->arg;
		meeting_free(m);
		met(fd, arg);
		return;
	}
	if (!m && v->waiting.n < RENDEZVOUS_MAX)
		m = meeting_create(v, token);
	else
		m = NULL; /* a second stream for one token, or too many */
	if (m)
		m->fd = fd;
	else
		close(fd);
}

void rendezvous_await(struct rendezvous *v, uint64_t token, rendezvous_met *met, void *arg)
{
	struct meeting *m = map_get(&v->waiting, token);

	if (m && m->fd >= 0) {
		int fd = take_fd(m->fd);
		meeting_free(m);
		met(fd, arg);
		return;
	}
	m = m ? NULL : meeting_create(v, token);
	if (!m) {
		met(-1, arg);
		return;
	}
	m->met = met;
	m->arg = arg;
}

void rendezvous_cancel(struct rendezvous *v, uint64_t token)
{
	struct meeting *m = map_get(&v->waiting, token);

	if (m && m->met)
		meeting_free(m);
}
