#pragma once
/* Going down, in a service of the guest's init: what the host had run is ended first, and then init is asked to power
 * off. (systemd would wait a minute and a half for a process that ignores SIGTERM.) Processes are found by the
 * control group that they were started in, so those left in the background count too. */
#include "agent/exec.h"

#define POWER_GRACE_MS 5000 /* from SIGTERM to SIGKILL */
#define POWER_LOOK_MS 100

struct power {
	enum { POWER_ON, POWER_ENDING, POWER_OFF } state;
	uint64_t deadline_ms;
};

/* SIGTERM to all, and SIGHUP on terminals, where shells are deaf to the first. Once; later calls do nothing. */
void power_begin(struct power *p, struct exec_set *s, uint64_t now_ms);
/* To be called each turn: when nothing is left, or the grace is over, SIGKILL to the rest and `systemctl poweroff`. */
void power_settle(struct power *p, struct exec_set *s, uint64_t now_ms);
