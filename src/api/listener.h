#pragma once
/* Accepts clients for an api, within its bounds: connections in all, and of one address (one /64 of IPv6). */
#include "api/api_internal.h"

/* Takes fd, a listening socket. */
int listener_add(struct api *api, int fd);
void listener_finish(struct api *api);
