#pragma once
/* What iron-control's parts hang on. Only control.c, request.c and the ops_*.c files see it: lives, dist, journal,
 * links and tail know nothing of each other's insides nor of this. */
#include <event2/event.h>

#include "base/map.h"
#include "codec/msg.h"
#include "control/calls.h"
#include "control/control.h"
#include "control/dist.h"
#include "control/journal.h"
#include "control/life.h"
#include "control/links.h"
#include "control/tail.h"
#include "model/spec.h"
#include "policy/dial.h"
#include "policy/preset.h"
#include "store/store.h"

#define SHAPES_MAX 32

struct settings {
	struct shape shapes[SHAPES_MAX];
	size_t nshapes;
	uint32_t max_vms, max_vms_per_workspace; /* 0: none */
	uint64_t memory_budget_mib;		 /* 0: none */
	char default_image[64];
	char *extra_ca; /* PEM */
	struct dial_limits *limits; /* for explain; the workers hold their own */
	struct cidr synthetic;
	struct presets presets;
};

struct control {
	struct event_base *base;
	struct store *store;
	struct settings settings;
	uint64_t default_workspace;
	struct links *links;
	struct journal *journal;
	struct calls *calls;
	struct dist *dist;
	struct lives *lives;
	struct tail *tail;
	struct request *requests;
	struct event *wake; /* runs the handlers of requests that are `woken` */
	bool ready;	    /* the store has been compared with irond: requests are taken */
	struct map kept_now; /* kept.c: calls with an Idempotency-Key that are under way */
	struct map touched; /* key: when its use was stored last (ms, monotonic, as a pointer) */
	uint64_t disk_available_mib; /* of the last look at the host; UINT64_MAX: not looked yet */
	struct event *look, *sample;
	uint64_t *images; /* ids that irond has sent since the last msg_images_end */
	size_t nimages;
	void (*on_end)(void *user);
	void *user;
};
