#pragma once
/* The API's certificate and key: looked at each minute, on `irond reload` and when iron-api comes up, and handed to it as
 * descriptors when a file of theirs was replaced. iron-api judges what is in them, and keeps what it has when that is no
 * good; its connections go on. */
#include "broker/broker.h"

int certificate_watch(struct broker *b, struct error *reterr);
void certificate_unwatch(struct broker *b);
/* iron-api was told the files as they are now. */
void certificate_told(struct broker *b);
/* Sends them when they are others than those that it was told. */
void certificate_check(struct broker *b);
/* Opens both. -errno; the reason names the key of iron.yaml. */
int certificate_open(const struct conf *conf, int *ret_cert_fd, int *ret_key_fd, struct error *reterr);
