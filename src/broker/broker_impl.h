#pragma once
/* Between broker.c, broker_roles.c and broker_setup.c. */
#include "broker/broker.h"

/* What an earlier irond left is adopted or ended. Afterwards all that runs is known. */
int broker_adopt(struct broker *b, struct error *reterr);
/* The single roles with their groups, which broker_drop_role_groups removes once they have ended. make: those of an earlier
 * irond's are adopted; start: the others. */
int broker_make_roles(struct broker *b, struct error *reterr);
int broker_start_roles(struct broker *b, struct error *reterr);
bool broker_has_role_group(const struct broker *b, const char *name);
bool broker_has_role_file(const struct broker *b, const char *file);
void broker_drop_role_groups(struct broker *b);

/* Directories, the lock that keeps irond alone on its run_dir, uids, cgroups. */
int broker_setup_host(struct broker *b, struct error *reterr);
