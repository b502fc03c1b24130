#pragma once
/* What iron-control may ask of irond: the whole of it, as a table. No other role may ask for anything. */
#include "broker/broker.h"

extern const struct ipc_rule requests_of_control[];
extern const size_t n_requests_of_control;

/* Every image, and their end, to a new iron-control or after a rescan. */
void send_images(struct broker *b);

/* The host as `iron host` shows it; strings in *ret borrow from *space. */
struct host_text {
	char qemu[128], kernel[128], sandbox[256], reason[256];
};
void host_describe(const struct broker *b, struct host_text *space, struct msg_host *ret);
