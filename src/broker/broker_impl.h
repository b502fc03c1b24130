#pragma once
/* Between broker.c, broker_roles.c and broker_setup.c. */
#include "broker/broker.h"

/* With their groups, which broker_drop_role_groups removes once the roles have ended. */
int broker_start_roles(struct broker *b, struct error *reterr);
void broker_drop_role_groups(struct broker *b);

/* Directories, the lock that keeps irond alone on its run_dir, uids, cgroups; and what an earlier irond left is taken
 * away: its processes by their cgroups, its namespaces, its sockets. */
int broker_setup_host(struct broker *b, struct error *reterr);
