#include "egress/dial.h"

#include <ares.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "codec/hostname.h"
#include "codec/wire.h"
#include "egress/routes.h"

#define ADDRESSES_MAX 8
#define ARES_SOCKETS 32
#define RESOLVE_TRY_MS 1500
#define ATTEMPT_MIN_MS 1000

struct ares_socket {
	struct event *event;
	ares_socket_t fd;
};

struct dialer {
	struct event_base *base;
	ares_channel ares;
	struct event *ares_timer;
	struct ares_socket sockets[ARES_SOCKETS];
	int routes;
	bool has_resolvers; /* without any, names cannot be resolved; literals can be dialled */
};

struct dial {
	struct dialer *dialer;
	struct dial_handler handler;
	char name[HOSTNAME_SIZE];
	uint16_t port;
	bool resolving, cancelled;
	uint64_t deadline_ms;
	struct ip addresses[ADDRESSES_MAX];
	unsigned naddresses, next;
	int fd;              /* being connected */
	struct event *event; /* of fd */
	struct event *timer; /* the attempt's end, or "soon" */
	bool refused;        /* some address was not allowed */
	int code;            /* of the last failure */
	char reason[200];
};

/* --- c-ares on the loop --- */

static void arm_timer(struct dialer *d)
{
	struct timeval tv;

	if (ares_timeout(d->ares, NULL, &tv))
		event_add(d->ares_timer, &tv);
	else
		event_del(d->ares_timer);
}

static void on_ares_socket(evutil_socket_t fd, short what, void *arg)
{
	struct dialer *d = arg;

	ares_process_fd(d->ares, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
	arm_timer(d);
}

static void on_ares_timer(evutil_socket_t fd, short what, void *arg)
{
	struct dialer *d = arg;

	ares_process_fd(d->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm_timer(d);
}

static struct ares_socket *socket_slot(struct dialer *d, ares_socket_t fd)
{
	struct ares_socket *empty = NULL;

	for (size_t i = 0; i < ARES_SOCKETS; i++) {
		if (d->sockets[i].event && d->sockets[i].fd == fd)
			return &d->sockets[i];
		if (!d->sockets[i].event && !empty)
			empty = &d->sockets[i];
	}
	return empty;
}

/* Without a slot the query just runs into its timeout: 4 resolvers need at most 8 sockets. */
static void on_ares_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct dialer *d = arg;
	struct ares_socket *s = socket_slot(d, fd);

	if (!s)
		return;
	if (s->event)
		event_free(take_ptr(s->event));
	if (!readable && !writable)
		return;
	s->fd = fd;
	s->event = event_new(d->base, fd, (short)((readable ? EV_READ : 0) | (writable ? EV_WRITE : 0) | EV_PERSIST),
			     on_ares_socket, d);
	if (s->event)
		event_add(s->event, NULL);
}

static int resolver_parse(struct str s, struct ares_addr_port_node *ret)
{
	struct str address;
	struct ip ip;
	uint64_t port = 53;

	str_split(&s, '#', &address);
	if (s.p && str_parse_u64(s, 65535, &port))
		return -EINVAL;
	if (ip_parse(address, &ip))
		return -EINVAL;
	ret->family = ip.family == 4 ? AF_INET : AF_INET6;
	memcpy(&ret->addr, ip.bytes, ip.family == 4 ? 4 : 16);
	ret->udp_port = ret->tcp_port = (int)port;
	return 0;
}

static int set_resolvers(struct dialer *d, struct str list, struct error *reterr)
{
	struct ares_addr_port_node nodes[8] = {0};
	struct str item;
	size_t n = 0;

	while (wire_list_next(&list, &item)) {
		if (n == ARRAY_SIZE(nodes) || resolver_parse(item, &nodes[n]))
			return error_set(reterr, -EINVAL, "egress.resolvers: %.*s", STR_ARG(item));
		if (n)
			nodes[n - 1].next = &nodes[n];
		n++;
	}
	d->has_resolvers = n > 0;
	if (n && ares_set_servers_ports(d->ares, nodes))
		return error_set(reterr, -EINVAL, "egress.resolvers were not taken");
	return 0;
}

static int start_ares(struct dialer *d, struct str resolvers, struct error *reterr)
{
	char lookups[] = "b";
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
		.timeout = RESOLVE_TRY_MS,
		.tries = 3,
		.ndots = 0,
		.lookups = lookups,
		.sock_state_cb = on_ares_state,
		.sock_state_cb_data = d,
		.ednspsz = 1232,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_LOOKUPS |
		   ARES_OPT_SOCK_STATE_CB | ARES_OPT_EDNSPSZ;

	if (ares_library_init(ARES_LIB_INIT_ALL) || ares_init_options(&d->ares, &options, mask)) {
		d->ares = NULL;
		return error_set(reterr, -ENOMEM, "c-ares did not start");
	}
	return set_resolvers(d, resolvers, reterr);
}

int dialer_create(struct event_base *base, struct str resolvers, struct dialer **ret, struct error *reterr)
{
	struct dialer *d = xcalloc(1, sizeof *d);
	int r;

	*d = (struct dialer){.base = base, .routes = -1};
	d->ares_timer = evtimer_new(base, on_ares_timer, d);
	r = routes_open(&d->routes);
	if (r)
		error_set(reterr, r, "cannot open a route socket");
	else
		r = start_ares(d, resolvers, reterr);
	if (r) {
		dialer_destroy(d);
		return r;
	}
	*ret = d;
	return 0;
}

void dialer_destroy(struct dialer *d)
{
	if (!d)
		return;
	if (d->ares)
		ares_destroy(d->ares);
	for (size_t i = 0; i < ARES_SOCKETS; i++)
		if (d->sockets[i].event)
			event_free(d->sockets[i].event);
	if (d->ares_timer)
		event_free(d->ares_timer);
	if (d->routes >= 0)
		close(d->routes);
	free(d);
}

/* --- one dial --- */

static void dial_free(struct dial *d)
{
	if (d->event)
		event_free(d->event);
	if (d->timer)
		event_free(d->timer);
	if (d->fd >= 0)
		close(d->fd);
	free(d);
}

void dial_cancel(struct dial *d)
{
	if (!d)
		return;
	if (!d->resolving) {
		dial_free(d);
		return;
	}
	/* c-ares still holds it, and answers some day; the owner may be gone before that */
	d->cancelled = true;
	event_del(d->timer);
}

static void finish(struct dial *d, int code, int fd, const struct ip *address)
{
	struct dial_handler h = d->handler;
	char reason[sizeof d->reason];

	memcpy(reason, d->reason, sizeof reason);
	dial_free(d);
	h.done(code, fd, address, reason, h.arg);
}

static void failed(struct dial *d, int code, const char *what, const struct ip *address)
{
	char text[IP_TEXT_SIZE] = "";

	if (address)
		ip_format(address, text);
	d->code = code;
	snprintf(d->reason, sizeof d->reason, "%s%s%s", text, address ? ": " : "", what);
}

const char *dialer_refuse_local(struct dialer *d, const struct ip *address)
{
	static char why[96];
	char text[IP_TEXT_SIZE];

	if (route_look_up(d->routes, address) != ROUTE_LOCAL)
		return NULL;
	ip_format(address, text);
	snprintf(why, sizeof why, "%s is an address of the host itself", text);
	return why;
}

/* Whether this address may be dialled and has a route. Refusals are remembered: they explain a failure best. */
static bool address_is_usable(struct dial *d, const struct ip *a)
{
	const char *why = d->handler.refuse(a, d->handler.arg);
	enum route_kind route = why ? ROUTE_AWAY : route_look_up(d->dialer->routes, a);

	if (!why && route == ROUTE_LOCAL)
		why = dialer_refuse_local(d->dialer, a);
	if (why) {
		failed(d, -EACCES, why, NULL);
		d->refused = true;
		return false;
	}
	if (route == ROUTE_NONE && !d->refused)
		failed(d, -ENETUNREACH, "no route", a);
	return route == ROUTE_AWAY;
}

static socklen_t to_sockaddr(const struct ip *a, uint16_t port, struct sockaddr_storage *ret)
{
	*ret = (struct sockaddr_storage){0};
	if (a->family == 4) {
		struct sockaddr_in *in = (void *)ret;
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, a->bytes, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (void *)ret;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, a->bytes, 16);
	return sizeof *in6;
}

static void on_connected(evutil_socket_t fd, short what, void *arg);

/* What is left of the whole time, shared among the addresses that are left. */
static struct timeval attempt_time(const struct dial *d)
{
	uint64_t now = mono_ms(), left = d->deadline_ms > now ? d->deadline_ms - now : 1;
	uint64_t share = left / (d->naddresses - d->next + 1);

	share = MIN(left, MAX(share, ATTEMPT_MIN_MS));
	return (struct timeval){.tv_sec = (time_t)(share / 1000), .tv_usec = (suseconds_t)(share % 1000) * 1000};
}

static int connect_to(struct dial *d, const struct ip *a)
{
	struct sockaddr_storage to;
	socklen_t len = to_sockaddr(a, d->port, &to);

	d->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (d->fd < 0)
		return -errno;
	if (connect(d->fd, (struct sockaddr *)&to, len) && errno != EINPROGRESS)
		return -errno;
	d->event = event_new(d->dialer->base, d->fd, EV_WRITE, on_connected, d);
	struct timeval tv = attempt_time(d);
	return d->event && event_add(d->event, &tv) == 0 ? 0 : -ENOMEM;
}

/* Tries the next address; at the end of them all, says why. */
static void try_next(struct dial *d)
{
	while (d->next < d->naddresses && mono_ms() < d->deadline_ms) {
		const struct ip *a = &d->addresses[d->next++];
		if (!address_is_usable(d, a))
			continue;
		int r = connect_to(d, a);
		if (r == 0)
			return;
		if (d->fd >= 0)
			close(take_fd(d->fd));
		failed(d, r, strerror(-r), a);
	}
	if (d->code == 0)
		failed(d, -ETIMEDOUT, "connecting took too long", NULL);
	finish(d, d->code, -1, NULL);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct dial *d = arg;
	const struct ip a = d->addresses[d->next - 1];
	int e = 0;
	socklen_t len = sizeof e;

	if (what & EV_TIMEOUT)
		e = ETIMEDOUT;
	else
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
	event_free(take_ptr(d->event));
	if (e == 0) {
		finish(d, 0, take_fd(d->fd), &a);
		return;
	}
	close(take_fd(d->fd));
	failed(d, -e, strerror(e), &a);
	try_next(d);
}

/* IPv6 and IPv4 in turn, so that one broken family costs one attempt. */
static void take_addresses(struct dial *d, const struct ares_addrinfo *info)
{
	const struct ares_addrinfo_node *six = info->nodes, *four = info->nodes;
	bool turn6 = true;

	while ((six || four) && d->naddresses < ADDRESSES_MAX) {
		const struct ares_addrinfo_node **at = turn6 ? &six : &four;
		while (*at && (*at)->ai_family != (turn6 ? AF_INET6 : AF_INET))
			*at = (*at)->ai_next;
		if (*at) {
			struct ip *ip = &d->addresses[d->naddresses++];
			*ip = turn6 ? ip_from_v6(((const struct sockaddr_in6 *)(const void *)(*at)->ai_addr)
							 ->sin6_addr.s6_addr)
				    : ip_from_v4(ntohl(((const struct sockaddr_in *)(const void *)(*at)->ai_addr)
							       ->sin_addr.s_addr));
			*at = (*at)->ai_next;
		}
		turn6 = !turn6;
	}
}

static void on_resolved(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct dial *d = arg;

	d->resolving = false;
	if (status == ARES_SUCCESS)
		take_addresses(d, info);
	if (info)
		ares_freeaddrinfo(info);
	if (d->cancelled || status == ARES_EDESTRUCTION) {
		dial_free(d);
		return;
	}
	if (d->naddresses == 0) {
		failed(d, status == ARES_ETIMEOUT ? -ETIMEDOUT : -ENOENT, "", NULL);
		snprintf(d->reason, sizeof d->reason, "%.100s could not be resolved: %s", d->name,
			 ares_strerror(status));
	}
	event_active(d->timer, 0, 0);
}

/* The whole deadline, for the time that c-ares takes: it retries by itself. Once the addresses are there, "soon": also
 * where both came in the same turn of the loop, and so as one event. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct dial *d = arg;

	if (!d->resolving) {
		event_del(d->timer);
		try_next(d);
		return;
	}
	struct dial_handler h = d->handler;
	char reason[160];
	snprintf(reason, sizeof reason, "%.100s could not be resolved in time", d->name);
	dial_cancel(d);
	h.done(-ETIMEDOUT, -1, NULL, reason, h.arg);
}

struct dial *dial_start(struct dialer *dialer, struct str name, const struct ip *ip, uint16_t port, unsigned timeout_ms,
			const struct dial_handler *handler)
{
	struct dial *d = xcalloc(1, sizeof *d);
	struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};

	*d = (struct dial){
		.dialer = dialer, .handler = *handler, .port = port, .fd = -1, .deadline_ms = mono_ms() + timeout_ms};
	d->timer = evtimer_new(dialer->base, on_timer, d);
	if (!d->timer || str_copy(name, d->name, sizeof d->name)) {
		dial_free(d);
		return NULL;
	}
	if (name.len == 0) {
		d->addresses[d->naddresses++] = *ip;
		event_active(d->timer, 0, 0);
		return d;
	}
	if (!dialer->has_resolvers) {
		failed(d, -ENOENT, "egress.resolvers names no DNS server", NULL);
		event_active(d->timer, 0, 0);
		return d;
	}
	event_add(d->timer, &tv);
	d->resolving = true;
	const struct ares_addrinfo_hints hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};
	ares_getaddrinfo(dialer->ares, d->name, NULL, &hints, on_resolved, d);
	arm_timer(dialer);
	return d;
}
