#pragma once
/* Upstream connections: a name is resolved by the configured resolvers only (c-ares; no files), each address is judged
 * by the owner and by the kernel's routes at the moment it is dialled, and addresses are tried one after the other,
 * IPv6 and IPv4 in turn, within one deadline. */
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "codec/ip.h"

struct dialer;
struct dial;

/* resolvers: wire list of "address" or "address#port"; with none, no name can be dialled. Opens what the sandbox later
 * closes: call before it. */
int dialer_create(struct event_base *base, struct str resolvers, struct dialer **ret, struct error *reterr);
void dialer_destroy(struct dialer *d); /* no dial may be left */

struct dial_handler {
	/* NULL: may be dialled. Otherwise why not ("169.254.169.254 is link-local"); borrowed until the next call. */
	const char *(*refuse)(const struct ip *address, void *arg);
	/* Once, from the loop, never from dial_start; the dial is gone afterwards. code 0: fd is connected to *address
	 * and the handler's. -EACCES: every address was refused. -ENOENT: no address. -ETIMEDOUT, -ECONNREFUSED, … */
	void (*done)(int code, int fd, const struct ip *address, const char *reason, void *arg);
	void *arg;
};
/* name: canonical, or empty and ip is the destination. */
struct dial *dial_start(struct dialer *d, struct str name, const struct ip *ip, uint16_t port, unsigned timeout_ms,
			const struct dial_handler *handler);
void dial_cancel(struct dial *d); /* NULL allowed; done is not called */
/* The kernel's view of an address alone: NULL, or why it may not be dialled. */
const char *dialer_refuse_local(struct dialer *d, const struct ip *address);
