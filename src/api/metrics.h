#pragma once
/* GET /metrics, for Prometheus, on a listener of its own (iron.yaml, metrics_listen): no key, in the clear, and nothing
 * else is served there. What iron-api counts, and what iron-control says of the host, VMs, roles and the audit index; of
 * no single VM, key or client. While iron-control does not answer, what it knows is left out and iron_up is 0. */
#include <stdbool.h>
#include <stdint.h>

struct call;
struct metrics;

struct metrics *metrics_create(void);
void metrics_destroy(struct metrics *m); /* NULL allowed */
/* One API call that ended. op: OP_COUNT where it was none. limited: refused by rates.h. */
void metrics_count(struct metrics *m, unsigned op, unsigned status, uint64_t took_us, bool limited);

/* Asks iron-control and answers. */
void metrics_start(struct call *c);
