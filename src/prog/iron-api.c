/* iron-api: the public API. It holds the TLS key and parses what the network sends; it opens no file, no socket and no
 * database. Descriptor 3 is its channel to irond. */
#include <event2/event.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "prog/role_parent.h"
#include "prog/sandboxes.h"

struct program {
	struct event_base *base;
	struct api *api;
	struct role_parent *irond;
	struct ipc_peer *control;
	int status;
};

/* --- iron-control --- */

static void on_control_closed(struct ipc_peer *peer, const char *reason, void *user)
{
	struct program *p = user;

	log_warn("iron-control is away", "reason=%s", log_quote(reason));
	if (p->control == peer) {
		api_set_control(p->api, NULL);
		p->control = NULL;
	}
	ipc_peer_destroy(peer);
	/* given up from here, it lives on and would not be linked again: this role is started anew, and is */
	if (strcmp(reason, "closed by peer") != 0)
		event_base_loopbreak(p->base);
}

/* It answers; it never asks. */
static void set_control(struct program *p, int fd)
{
	struct ipc_peer *old = p->control;

	p->control = ipc_peer_create(p->base, fd, "iron-control", NULL, 0, on_control_closed, p);
	api_set_control(p->api, p->control);
	ipc_peer_destroy(old);
}

/* --- irond --- */

static void on_peer(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct msg_peer *msg = IPC_RECORD(m, msg_peer);

	if (msg->role == ROLE_CONTROL)
		set_control(user, take_fd(m->fds[0]));
	else
		log_warn("a channel to a role that is none of ours", "role=%u", (unsigned)msg->role);
}

static void on_ping(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, "", 0);
}

static void on_stream(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct program *p = user;

	api_take_stream(p->api, IPC_RECORD(m, msg_stream)->token, take_fd(m->fds[0]));
}

static void on_certificate(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct program *p = user;
	struct error e = {0};
	bool changed = false;

	if (api_set_certificate(p->api, take_fd(m->fds[0]), take_fd(m->fds[1]), &changed, &e))
		log_error("the renewed certificate is refused: the one before is served on", "reason=%s", log_quote(e.text));
	else if (changed)
		log_info("a renewed certificate is served to new connections", NULL);
}

static void on_adopt(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct program *p = user;
	const int *fds;
	struct msg_listeners row = {0};

	row.n = (uint8_t)api_listeners(p->api, &fds, &row.metrics);
	ipc_reply(peer, m->txn, MSG_TYPE_msg_listeners, &row, fds, row.n);
	ipc_reply_result(peer, m->txn, 0, "", 0);
}

static const struct ipc_rule irond_rules[] = {
	{MSG_TYPE_msg_peer, 1, IPC_NOTICE, on_peer},
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_stream, 1, IPC_NOTICE, on_stream},
	{MSG_TYPE_msg_api_tls, 2, IPC_NOTICE, on_certificate},
	{MSG_TYPE_msg_adopt, 0, IPC_REQUEST, on_adopt},
	{MSG_TYPE_msg_end, 0, IPC_NOTICE, role_parent_end},
};

/* iron-control ends with irond: until the next ones are there, what is new is answered 503; streams go on. */
static void on_away(bool away, void *user)
{
}

/* --- start --- */

static int start_api(struct program *p, struct error *reterr)
{
	const void *config;
	int fds[MSG_MAX_FDS];
	size_t nfds;

	int r = role_config_receive(MSG_TYPE_msg_api_config, &config, fds, &nfds, reterr);
	if (r)
		return r;
	return api_create(p->base, config, fds, nfds, &p->api, reterr);
}

static int run(struct program *p, const struct role_args *args, struct error *reterr)
{
	p->base = event_base_new();
	if (!p->base)
		return error_set(reterr, -ENOMEM, "no event loop");
	int r = start_api(p, reterr);
	if (r == 0)
		r = role_sandbox_enter(&sandbox_api, args, NULL, reterr);
	if (r)
		return r;
	p->irond = role_parent_create(p->base, irond_rules, ARRAY_SIZE(irond_rules), on_away, p);
	if (!p->irond)
		return error_set(reterr, -ENOMEM, "no channel to irond");
	log_info("serving", NULL);
	return event_base_dispatch(p->base) < 0 ? error_set(reterr, -EIO, "the event loop failed") : 0;
}

static void finish(struct program *p)
{
	if (p->api)
		api_set_control(p->api, NULL);
	ipc_peer_destroy(p->control);
	api_destroy(p->api);
	role_parent_destroy(p->irond);
	if (p->base)
		event_base_free(p->base);
}

int main(int argc, char **argv)
{
	struct program p = {0};
	struct error e = {0};
	struct role_args args;

	if (role_args_parse("iron-api", argc, argv, &args) < 0)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	int r = run(&p, &args, &e);
	if (r)
		log_error("iron-api cannot run", "reason=%s", log_quote(e.text));
	finish(&p);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
