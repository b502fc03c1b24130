#pragma once
/* The DNS servers that upstream names are asked of: those of iron.yaml, else those of this host's resolv.conf(5). One place
 * decides, because the workers are told them and the host's second wall lets them through. */
#include "base/vec.h"
#include "conf/conf.h"

typedef VEC(char *) resolvers;

/* "address" or "address#port"; none where the host has none: nothing is dialled by name then. resolv_conf: its path. */
void resolvers_find(const struct conf *conf, const char *resolv_conf, resolvers *ret);
void resolvers_finish(resolvers *r);

#define RESOLV_CONF "/etc/resolv.conf"
