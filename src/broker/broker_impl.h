#pragma once
/* Between broker.c, broker_roles.c and broker_setup.c. */
#include "broker/broker.h"

int broker_start_roles(struct broker *b, struct error *reterr);

/* Directories, the lock that keeps irond alone on its run_dir, uids, cgroups; and what an earlier irond left is taken
 * away: its processes by their cgroups, its namespaces, its sockets. */
int broker_setup_host(struct broker *b, struct error *reterr);
