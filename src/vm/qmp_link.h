#pragma once
/* The connection to one machine's QEMU: capabilities are negotiated, commands sent, events told. A QEMU that breaks the
 * protocol or floods is cut off: the connection closes and the owner is told once. */
#include <event2/event.h>

#include "codec/qmp.h"

struct qmp_link;

/* Answer to a command; m is NULL when the connection closed before it came. */
typedef void qmp_answer(const struct qmp_message *m, void *arg);

struct qmp_link_ops {
	void (*event)(const struct qmp_message *m, void *user);
	void (*closed)(const char *reason, void *user); /* last call; the link is still allocated */
};

/* Owns fd, a connected socket. */
struct qmp_link *qmp_link_create(struct event_base *base, int fd, const struct qmp_link_ops *ops, void *user);
void qmp_link_destroy(struct qmp_link *l); /* not from its own callbacks; pending answers are dropped */

bool qmp_link_is_open(const struct qmp_link *l);
/* on_answer may be NULL. -EPIPE: closed; -EBUSY: too many are unanswered. */
int qmp_link_command(struct qmp_link *l, const char *name, qmp_answer *on_answer, void *arg);
