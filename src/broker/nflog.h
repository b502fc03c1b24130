#pragma once
/* One NFLOG group, bound to a socket in the calling thread's network namespace (nfnetlink_log is per namespace: a group
 * bound elsewhere sees nothing of it). Who holds the descriptor reads the dropped packets' first bytes from it, from any
 * namespace and under any uid. */
#include <stdint.h>

/* Non-blocking, close-on-exec. copy_range: bytes of each packet. At most 1024 unread messages' worth of memory: what a
 * flood overruns shows to the reader as ENOBUFS. */
int nflog_open(uint16_t group, uint32_t copy_range, int *ret_fd);
