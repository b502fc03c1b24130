#pragma once
/* iron-control: the one place that joins the store and the services. It answers iron-api's requests, brings VMs from
 * state to state through irond and iron-vm, sends policies to the egress workers, and tails the audit journal into the
 * index. It never sees bytes from the network. */
#include <event2/event.h>

#include "base/error.h"
#include "codec/msg_broker.h"
#include "store/store.h"

/* Of the loop's priorities: requests and channels have the middle one, which is libevent's default; the index of the
 * journal the last. */
#define CONTROL_PRIORITIES 3
#define CONTROL_IDLE 2

struct control;

/* irond_fd: the channel to irond, owned from now on, also on failure. store: borrowed, outlives the control. config is
 * copied. on_end runs from the loop when the channel to irond is gone. */
int control_create(struct event_base *base, int irond_fd, struct store *store, const struct msg_control_config *config,
		   void (*on_end)(void *user), void *user, struct control **ret, struct error *reterr);
void control_destroy(struct control *c);
