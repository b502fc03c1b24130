/* iron-audit: writes the journal. It is given the journal's directory, and channels to those that write; it reads nothing
 * back to anyone. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "audit/server.h"
#include "base/log.h"
#include "os/ipc.h"
#include "prog/role_parent.h"
#include "prog/sandboxes.h"

struct process {
	struct event_base *base;
	struct role_parent *irond;
	struct audit_server *server;
	int dir;
};

/* --- what irond may say --- */

static void on_ping(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, NULL, 0);
}

static void on_peer(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct process *p = user;
	const struct msg_peer *who = IPC_RECORD(m, msg_peer);
	int r = audit_server_peer(p->server, (enum role)who->role, who->id, take_fd(m->fds[0]));

	if (r)
		log_warn("peer refused", "role=%u code=%d", who->role, r);
}

/* Which workers still have us is theirs to say. */
static void on_adopt(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, NULL, 0);
}

static const struct ipc_rule irond_rules[] = {
	{MSG_TYPE_msg_ping, 0, IPC_REQUEST, on_ping},
	{MSG_TYPE_msg_peer, 1, IPC_NOTICE, on_peer},
	{MSG_TYPE_msg_adopt, 0, IPC_REQUEST, on_adopt},
	{MSG_TYPE_msg_end, 0, IPC_NOTICE, role_parent_end},
};

/* The record of those who write goes on meanwhile. */
static void on_away(bool away, void *user)
{
}

/* --- start --- */

static int read_config(struct process *p, struct audit_server_options *ret, struct error *reterr)
{
	const void *record;
	int fds[MSG_MAX_FDS];
	size_t nfds;

	int r = role_config_receive(MSG_TYPE_msg_audit_config, &record, fds, &nfds, reterr);
	if (r)
		return r;
	if (nfds != 1)
		return error_set(reterr, -EPROTO, "the journal's directory did not come with the configuration");
	const struct msg_audit_config *config = record;
	*ret = (struct audit_server_options){
		.journal = {.segment_bytes = config->segment_bytes,
			    .sync_interval_ms = config->sync_interval_ms ? config->sync_interval_ms : 50},
	};
	p->dir = fds[0];
	return 0;
}

static int open_journal(struct process *p, const struct audit_server_options *options)
{
	struct audit_recovery recovery;
	struct error error = {0};
	int r = audit_server_create(p->base, p->dir, options, &p->server, &recovery, &error);

	if (r) {
		log_error("the journal cannot be opened", "error=%s", log_quote(error.text));
		return r;
	}
	log_info("journal open", "last_seq=%llu segment=%llu", (unsigned long long)recovery.last_seq,
		 (unsigned long long)recovery.segment);
	if (recovery.cut_bytes)
		log_warn("the journal ended in the middle of a record", "segment=%llu bytes=%llu",
			 (unsigned long long)recovery.segment, (unsigned long long)recovery.cut_bytes);
	return 0;
}

static int run(struct process *p, const struct role_args *args)
{
	struct audit_server_options options;
	struct error error = {0};
	int r = read_config(p, &options, &error);

	if (r == 0)
		r = role_sandbox_enter(&sandbox_audit, args, NULL, &error);
	if (r) {
		log_error("start", "error=%s", log_quote(error.text));
		return r;
	}
	p->base = event_base_new();
	if (!p->base)
		return -ENOMEM;
	r = open_journal(p, &options);
	if (r)
		return r;
	p->irond = role_parent_create(p->base, irond_rules, ARRAY_SIZE(irond_rules), on_away, p);
	if (!p->irond)
		return -ENOMEM;
	event_base_dispatch(p->base);
	return 0;
}

int main(int argc, char **argv)
{
	struct process p = {.dir = -1};
	struct role_args args;

	if (role_args_parse("iron-audit", argc, argv, &args) < 0)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	int r = run(&p, &args);
	audit_server_destroy(p.server);
	role_parent_destroy(p.irond);
	if (p.base)
		event_base_free(p.base);
	return r ? 1 : 0;
}
