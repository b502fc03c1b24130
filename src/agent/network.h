#pragma once
/* The guest's one interface: address, default route, up; and loopback. netdevice(7). */
#include "base/error.h"
#include "codec/agent.h"

/* -ENODEV: the interface is not there (yet). */
int network_configure(const struct agent_network *n, struct error *reterr);
