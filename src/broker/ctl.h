#pragma once
/* run_dir/irond.sock, root's alone: what `irond status|stop|reload|rescan|key` says to a running irond.
 *
 * One request a connection: a line of words separated by tabs. The answer: lines "text …" to print, then one line "ok"
 * or "fail …". A connection that ends without either: irond ended meanwhile. */
#include "broker/broker.h"

int ctl_server_create(struct broker *b, const char *path, struct ctl_server **ret, struct error *reterr);
void ctl_server_destroy(struct ctl_server *s);
/* To whoever waits for `irond stop`. */
void ctl_server_say(struct ctl_server *s, const char *text);
/* Answers everybody who still waits: irond ends now. */
void ctl_server_goodbye(struct ctl_server *s);

/* The other side, blocking. words: NULL-terminated. print is called for each text line. 0 on "ok"; -EREMOTEIO and a
 * reason on "fail"; -ENOENT or -ECONNREFUSED: no irond runs. */
int ctl_request(const char *path, const char *const *words, void (*print)(const char *line, void *user), void *user,
		struct error *reterr);
