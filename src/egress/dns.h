#pragma once
/* The VM's resolver: answers from its table of names and asks nobody. UDP on the socket that irond bound in the VM's
 * namespace (answers leave from the address that was asked, by IP_PKTINFO), TCP on connections to port 53. */
#include "egress/door.h"

/* Level-triggered: a batch of datagrams. */
void dns_udp_ready(struct door_vm *vm);
/* Once, when the socket is taken over. */
int dns_udp_prepare(int fd);
/* One query. Appends the answer to out (with TCP's length bytes where tcp is set); nothing when it deserves none. */
void dns_serve(struct door_vm *vm, struct str packet, bool tcp, struct buf *out);
