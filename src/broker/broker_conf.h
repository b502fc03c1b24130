#pragma once
/* What each role is told (codec/msg_broker.h), from iron.yaml, and the API's listening sockets. */
#include "base/log.h"
#include "broker/broker.h"

/* Opened from conf->listen and metrics_listen; kept over restarts of iron-api. Those of `old` (may be NULL) that listen
 * where one shall are used on. The reason names the address and what to look at. */
int listeners_open(const struct conf *conf, const struct listeners *old, struct listeners **ret, struct error *reterr);
/* Those of an iron-api that was adopted; the descriptors are taken out. metrics: the last is that of GET /metrics. */
struct listeners *listeners_take(int *fds, size_t n, bool metrics);
void listeners_close(struct listeners *l);

/* Sent on fd, blocking (role_ops.configure). */
int config_send_api(const struct broker *b, int fd, struct error *reterr);
int config_send_control(const struct broker *b, int fd, struct error *reterr);
int config_send_audit(const struct broker *b, int fd, struct error *reterr);
int config_send_egress(const struct broker *b, uint64_t workspace, int fd, struct error *reterr);
/* run_dir: the VM's, whose sockets are connected to. */
int config_send_vm(const struct broker *b, const char *run_dir, uint64_t vm, uint64_t generation, int fd,
		   struct error *reterr);

enum log_level conf_log_level(const struct conf *conf);
/* What role `kind` would be told by `conf`, as bytes, to see whether a reload changes it. */
int config_fingerprint(const struct conf *conf, enum role kind, struct buf *out, struct error *reterr);
