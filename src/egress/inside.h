#pragma once
/* http://iron.internal/ inside the VM: its policy and its latest denials, for the agent that hit one. */
#include "codec/http1.h"
#include "egress/door.h"

/* Host names the page, by its name or by the gateway's address. */
bool inside_host_agrees(const struct http1_request *req);
/* Appends a whole answer: text, or JSON where Accept names application/json. Another path than "/" is 404, another
 * method than GET and HEAD 405. */
void inside_answer(const struct door_vm *vm, const struct http1_request *req, bool close, struct buf *out);
