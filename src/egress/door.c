#include "egress/door.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "egress/vm.h"

#define TICK_MS 250
#define TICKS_A_SECOND 4

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct door *d = arg;
	struct map_slot *slot;
	size_t i = 0;
	uint64_t now_ms = mono_ms();
	bool second = ++d->ticks % TICKS_A_SECOND == 0;

	while (map_next(&d->vms, &i, &slot))
		vm_tick(slot->value, now_ms, second);
	if (second)
		journal_retry(d->journal);
}

static int start_ticking(struct door *d)
{
	struct timeval tv = {.tv_usec = TICK_MS * 1000};

	d->tick = event_new(d->base, -1, EV_PERSIST, on_tick, d);
	return d->tick && event_add(d->tick, &tv) == 0 ? 0 : -ENOMEM;
}

int door_create(struct event_base *base, const struct msg_egress_config *c, struct door **ret, struct error *reterr)
{
	struct door *d = xcalloc(1, sizeof *d);

	*d = (struct door){
		.base = base,
		.workspace = c->workspace,
		.synthetic_base = c->synthetic_base,
		.synthetic_prefix = c->synthetic_prefix,
		.max_connections = c->max_connections_per_vm,
		.peek_ms = c->peek_timeout_ms,
		.connect_ms = c->connect_timeout_ms,
		.idle_ms = c->idle_timeout_ms,
		.total_ms = c->total_timeout_ms,
	};
	int r = dial_limits_create(c->never_dial, c->private_allow, &d->limits, reterr);
	if (r == 0)
		r = dialer_create(base, c->resolvers, &d->dialer, reterr);
	if (r == 0) {
		d->journal = journal_create(base);
		r = d->journal && start_ticking(d) == 0 ? 0 : error_set(reterr, -ENOMEM, "out of memory");
	}
	if (r) {
		door_destroy(d);
		return r;
	}
	*ret = d;
	return 0;
}

void door_pause(struct door *d, bool pause)
{
	struct map_slot *slot;
	size_t i = 0;

	d->paused = pause;
	while (map_next(&d->vms, &i, &slot))
		vm_pause(slot->value, pause);
}

void door_destroy(struct door *d)
{
	struct map_slot *slot;
	size_t i = 0;

	if (!d)
		return;
	while (map_next(&d->vms, &i, &slot)) {
		vm_destroy(slot->value);
		i = 0;
	}
	map_finish(&d->vms);
	if (d->tick)
		event_free(d->tick);
	journal_destroy(d->journal);
	dialer_destroy(d->dialer);
	dial_limits_destroy(d->limits);
	pipe_pool_finish(&d->pipes);
	free(d);
}
