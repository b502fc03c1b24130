#include "api/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

#include "api/conn.h"
#include "base/log.h"

#define ACCEPT_TURN 64
#define PER_ADDRESS_MIN 16

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_storage storage;
};

static void format_address(const union address *a, char peer[INET6_ADDRSTRLEN], char key[ADDRESS_KEY_SIZE])
{
	if (a->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
		inet_ntop(AF_INET, &a->in6.sin6_addr.s6_addr[12], peer, INET6_ADDRSTRLEN);
	} else if (a->any.sa_family == AF_INET6) {
		struct in6_addr net = a->in6.sin6_addr;
		inet_ntop(AF_INET6, &net, peer, INET6_ADDRSTRLEN);
		memset(&net.s6_addr[8], 0, 8);
		inet_ntop(AF_INET6, &net, key, ADDRESS_KEY_SIZE);
		return;
	} else {
		inet_ntop(AF_INET, &a->in.sin_addr, peer, INET6_ADDRSTRLEN);
	}
	snprintf(key, ADDRESS_KEY_SIZE, "%s", peer);
}

static unsigned per_address_max(const struct api *api)
{
	return MAX(api->config.max_connections / 2, PER_ADDRESS_MIN);
}

static void count(struct api *api, const char *key, int by)
{
	struct str k = str_of(key);
	uintptr_t n = (uintptr_t)map_get_str(&api->per_address, k) + (uintptr_t)by;

	if (n)
		map_put_str(&api->per_address, k, (void *)n);
	else
		map_remove_str(&api->per_address, k);
}

void listener_conn_closed(struct api *api, const char *address_key, bool refused)
{
	if (refused) {
		api->nrefused--;
		return;
	}
	api->nconns--;
	count(api, address_key, -1);
}

/* A client that vanished is noticed where something waits for its acknowledgement. */
static void set_options(int fd)
{
	int on = 1, gone_ms = 60000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone_ms, sizeof gone_ms);
}

static void admit(struct api *api, int fd, const union address *from, bool metrics)
{
	char peer[INET6_ADDRSTRLEN], key[ADDRESS_KEY_SIZE];
	unsigned refused = 0;

	set_options(fd);
	format_address(from, peer, key);
	if ((uintptr_t)map_get_str(&api->per_address, str_of(key)) >= per_address_max(api))
		refused = 429;
	else if (api->nconns >= api->config.max_connections && !conn_evict(api))
		refused = 503;
	if (refused && api->nrefused >= API_REFUSED_MAX) {
		log_limited(LOG_LEVEL_WARN, 1, "connection closed: too many", "address=%s", peer);
		close(fd);
		return;
	}
	if (refused) {
		api->nrefused++;
	} else {
		api->nconns++;
		count(api, key, 1);
	}
	conn_create(api, fd, peer, key, metrics, refused);
}

/* Without a descriptor to spare, accepting again at once would only spin. */
static void pause_accepting(struct api *api)
{
	struct timeval tv = {.tv_usec = 100000};

	log_limited(LOG_LEVEL_ERROR, 1, "out of descriptors: not accepting for a moment", NULL);
	for (size_t i = 0; i < api->nlisteners; i++)
		event_del(api->listeners[i]);
	event_add(api->accept_again, &tv);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	struct api *api = arg;

	for (size_t i = 0; i < api->nlisteners; i++)
		event_add(api->listeners[i], NULL);
}

static void on_acceptable(evutil_socket_t listener, short what, void *arg)
{
	struct api *api = arg;

	for (int i = 0; i < ACCEPT_TURN; i++) {
		union address from = {0};
		socklen_t len = sizeof from;
		int fd = accept4(listener, &from.any, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			admit(api, fd, &from, listener == api->metrics_fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			if (!conn_evict(api))
				pause_accepting(api);
			return;
		}
		if (errno == EAGAIN)
			return;
	}
}

int listener_add(struct api *api, int fd)
{
	size_t i = api->nlisteners;

	if (!api->accept_again)
		api->accept_again = evtimer_new(api->base, on_accept_again, api);
	evutil_make_socket_nonblocking(fd);
	api->listener_fds[i] = fd;
	api->listeners[i] = event_new(api->base, fd, EV_READ | EV_PERSIST, on_acceptable, api);
	api->nlisteners++;
	if (!api->accept_again || !api->listeners[i] || event_add(api->listeners[i], NULL))
		return -ENOMEM;
	return 0;
}

void listener_finish(struct api *api)
{
	for (size_t i = 0; i < api->nlisteners; i++) {
		if (api->listeners[i])
			event_free(api->listeners[i]);
		close(api->listener_fds[i]);
	}
	if (api->accept_again)
		event_free(api->accept_again);
	api->nlisteners = 0;
}
