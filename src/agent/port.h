#pragma once
/* The virtio-serial port with a name, which may appear late. */

/* Non-blocking, close-on-exec. -ENOENT: not there (yet); another errno: it cannot be opened. */
int port_open(const char *name);
