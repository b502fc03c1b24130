#include "broker/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "broker/vms.h"
#include "broker/workspaces.h"

/* iron-control's role is owned by the broker. */
static struct broker *broker_of(void *user)
{
	return role_owner(user);
}

static struct reply reply_to(const struct broker *b, const struct ipc_msg *m)
{
	return (struct reply){.incarnation = role_incarnation(b->control), .txn = m->txn};
}

static void on_vm_prepare(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct broker *b = broker_of(user);

	vm_prepare(b, IPC_RECORD(m, msg_vm_prepare), reply_to(b, m));
}

static void on_vm_start(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct msg_vm_start *s = IPC_RECORD(m, msg_vm_start);

	vm_start(broker_of(user), s->vm, s->generation, reply_to(broker_of(user), m));
}

static void on_vm_kill(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	vm_kill(broker_of(user), IPC_RECORD(m, msg_vm_kill)->vm, reply_to(broker_of(user), m));
}

static void on_vm_remove(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	vm_remove(broker_of(user), IPC_RECORD(m, msg_vm_remove)->vm, reply_to(broker_of(user), m));
}

static void on_vm_stream(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct msg_vm_stream *s = IPC_RECORD(m, msg_vm_stream);

	vm_stream(broker_of(user), s->vm, s->token, reply_to(broker_of(user), m));
}

static void on_vm_stats_get(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	vm_stats(broker_of(user), IPC_RECORD(m, msg_vm_stats_get)->vm, reply_to(broker_of(user), m));
}

static void on_vms_get(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	vms_list(broker_of(user), reply_to(broker_of(user), m));
}

static void on_egress_restart(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	workspace_restart(broker_of(user), IPC_RECORD(m, msg_egress_restart)->workspace, reply_to(broker_of(user), m));
}

/* The name is that of audit/segment.h; the number is all that comes from iron-control. */
static void on_segment_open(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	const struct broker *b = broker_of(user);
	const struct msg_segment out = {.number = IPC_RECORD(m, msg_segment_open)->number};
	_cleanup_free_ char *path = xasprintf("%s/audit/%020lu.seg", b->conf->state_dir, out.number);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		ipc_reply_result(peer, m->txn, -errno, strerror(errno), 0);
	else
		ipc_reply(peer, m->txn, MSG_TYPE_msg_segment, &out, &fd, 1);
}

static void on_host_get(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct host_text space;
	struct msg_host host;

	host_describe(broker_of(user), &space, &host);
	ipc_reply(peer, m->txn, MSG_TYPE_msg_host, &host, NULL, 0);
}

/* As the route look-up of a worker tells it: addresses of the host's interfaces, and the broadcast ones beside them. */
static bool is_local(uint32_t address)
{
	struct ifaddrs *all = NULL;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return true;
	for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
		if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET)
			continue;
		found |= ntohl(((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr.s_addr) == address;
		if ((a->ifa_flags & IFF_BROADCAST) && a->ifa_broadaddr)
			found |= ntohl(((const struct sockaddr_in *)(const void *)a->ifa_broadaddr)->sin_addr.s_addr) == address;
	}
	freeifaddrs(all);
	return found;
}

static void on_local_get(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(peer, m->txn, 0, "", is_local(IPC_RECORD(m, msg_local_get)->address));
}

/* iron-control gave up its channel to it, as one that breaks the protocol or does not read. */
static void on_api_lost(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	role_kill(broker_of(user)->api);
}

struct roles_query {
	struct broker *b;
	struct reply to;
};

static void on_roles(const struct role_info *roles, size_t n, void *user)
{
	struct roles_query *q = user;
	struct ipc_peer *control = role_peer(q->b->control);
	bool same = control && role_incarnation(q->b->control) == q->to.incarnation;

	for (size_t i = 0; same && i < n; i++) {
		const struct msg_role_row row = {.name = str_of(roles[i].name),
						 .id = roles[i].id,
						 .state = str_of(roles[i].state),
						 .pid = roles[i].pid,
						 .restarts = roles[i].restarts,
						 .started_at = roles[i].started_at};
		ipc_reply(control, q->to.txn, MSG_TYPE_msg_role_row, &row, NULL, 0);
	}
	broker_answer(q->b, q->to, 0, "", 0);
	free(q);
}

static void on_roles_get(struct ipc_peer *peer, const struct ipc_msg *m, void *user)
{
	struct roles_query *q = xcalloc(1, sizeof *q);

	*q = (struct roles_query){.b = broker_of(user), .to = reply_to(broker_of(user), m)};
	broker_ping_roles(q->b, on_roles, q);
}

const struct ipc_rule requests_of_control[] = {
	{MSG_TYPE_msg_vm_prepare, 0, IPC_REQUEST, on_vm_prepare},
	{MSG_TYPE_msg_vm_start, 0, IPC_REQUEST, on_vm_start},
	{MSG_TYPE_msg_vm_kill, 0, IPC_REQUEST, on_vm_kill},
	{MSG_TYPE_msg_vm_remove, 0, IPC_REQUEST, on_vm_remove},
	{MSG_TYPE_msg_vm_stream, 0, IPC_REQUEST, on_vm_stream},
	{MSG_TYPE_msg_vms_get, 0, IPC_REQUEST, on_vms_get},
	{MSG_TYPE_msg_vm_stats_get, 0, IPC_REQUEST, on_vm_stats_get},
	{MSG_TYPE_msg_egress_restart, 0, IPC_REQUEST, on_egress_restart},
	{MSG_TYPE_msg_segment_open, 0, IPC_REQUEST, on_segment_open},
	{MSG_TYPE_msg_host_get, 0, IPC_REQUEST, on_host_get},
	{MSG_TYPE_msg_local_get, 0, IPC_REQUEST, on_local_get},
	{MSG_TYPE_msg_roles_get, 0, IPC_REQUEST, on_roles_get},
	{MSG_TYPE_msg_api_lost, 0, IPC_NOTICE, on_api_lost},
};
const size_t n_requests_of_control = ARRAY_SIZE(requests_of_control);

void send_images(struct broker *b)
{
	struct ipc_peer *control = role_peer(b->control);

	for (size_t i = 0; control && i < b->images.n; i++) {
		const struct image *im = &b->images.v[i];
		const struct msg_image m = {.id = im->id,
					    .name = str_of(im->name),
					    .hash = str_of(im->hash),
					    .kernel = str_of(im->kernel),
					    .made_from = str_of(im->made_from),
					    .size_bytes = im->size_bytes,
					    .created_at = im->created_at};
		ipc_notify(control, MSG_TYPE_msg_image, &m, NULL, 0);
	}
	if (control)
		ipc_notify(control, MSG_TYPE_msg_images_end, &(struct msg_images_end){}, NULL, 0);
}
