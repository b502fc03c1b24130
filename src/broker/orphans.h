#pragma once
/* What runs on of an irond that does not: for `irond status` and `irond stop --vms` when there is none to ask. */
#include "base/error.h"
#include "conf/conf.h"

/* How many VMs run and wait for the next irond. */
unsigned orphans_count(const struct conf *conf);
/* Powers them off (limits.stop_timeout_s; then they are killed), ends the roles, and removes their groups, namespaces,
 * files in run_dir and nft rules. -EBUSY: an irond runs. Nothing there: 0. */
int orphans_end(const struct conf *conf, void (*print)(const char *line, void *user), void *user, struct error *reterr);
