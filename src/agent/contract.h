#pragma once
/* The contract's steps, as the host asks for them by name (codec/agent.h, AGENT_STEPS). Each can be run again at any
 * time. */
#include "base/error.h"
#include "codec/agent.h"

/* -ENOSYS: no such step; -EBADMSG: its record is malformed; -ENODEV, -EAGAIN: not yet, worth trying again. */
int contract_run(struct str name, struct str body, struct error *reterr);
