#pragma once
/* The agent as a machine's init: it mounts what a kernel gives, loads the modules that the image lists, and at the end
 * powers the machine off. Reaping is its loop's. */

/* Logs what does not work and goes on: with a console at least, a half-made machine can be looked at. */
void init_setup(void);
/* SIGTERM, a second, SIGKILL, sync, power off. Does not return. */
__attribute__((noreturn)) void init_power_off(void);
