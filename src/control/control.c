#include "control/control.h"

#include <errno.h>

#include "base/log.h"
#include "control/control_internal.h"
#include "control/daemons.h"
#include "control/kept.h"
#include "control/ops.h"
#include "control/request.h"

#define LOOK_INTERVAL_S 5
#define RESTART_PAUSE_MS 1000
#define IMAGES_MAX 4096

/* --- what irond says --- */

static void on_image(struct control *c, const struct msg_image *m)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};

	images_note(c->journal, c->store, m);
	int r = store_begin(c->store, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_image_put(c->store, m);
	if (r == 0)
		r = store_commit(&tx);
	if (r)
		log_error("an image is not stored", "code=%d", r);
	if (c->nimages < IMAGES_MAX) {
		c->images = xrealloc(c->images, (c->nimages + 1) * sizeof *c->images);
		c->images[c->nimages++] = m->id;
	}
}

static void on_images_end(struct control *c)
{
	_cleanup_(store_tx_finish) struct store_tx tx = {0};

	int r = store_begin(c->store, STORE_NORMAL, &tx);
	if (r == 0)
		r = store_images_retain(c->store, c->images, c->nimages);
	if (r == 0)
		r = store_commit(&tx);
	if (r)
		log_error("images that are gone are not forgotten", "code=%d", r);
	c->nimages = 0;
}

static void send_workspaces(struct control *c, struct ipc_peer *irond, uint32_t txn)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_workspaces all = {0};

	int r = store_workspaces_all(c->store, &a, &all);
	for (size_t i = 0; i < all.n; i++)
		ipc_reply(irond, txn, MSG_TYPE_msg_root_workspace, &all.v[i], NULL, 0);
	ipc_reply_result(irond, txn, r, r ? "the database cannot be read" : "", 0);
}

static void on_index_get(struct control *c, struct ipc_peer *p, const struct ipc_msg *m)
{
	static const struct record_event asked = {.kind = STR(EVENT_AUDIT), .action = STR("reindex"), .address = STR("root"),
						  .outcome = STR("accepted"), .detail = STR("{}")};
	struct tail_status s;
	int code = 0;

	if (IPC_RECORD(m, msg_index_get)->reset) {
		journal_note(c->journal, &asked);
		code = tail_reindex(c->tail, "irond audit reindex");
	}
	tail_get_status(c->tail, &s);
	ipc_reply(p, m->txn, MSG_TYPE_msg_index,
		  &(struct msg_index){.code = code, .whole = s.whole, .permille = s.permille, .skipped = s.skipped}, NULL, 0);
}

static void on_irond(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct control *c = user;

	switch (m->info->type) {
	case MSG_TYPE_msg_image:
		on_image(c, IPC_RECORD(m, msg_image));
		break;
	case MSG_TYPE_msg_images_end:
		on_images_end(c);
		break;
	case MSG_TYPE_msg_vm_exited:
		lives_on_exited(c->lives, IPC_RECORD(m, msg_vm_exited));
		break;
	case MSG_TYPE_msg_root_workspaces_get:
		send_workspaces(c, p, m->txn);
		break;
	case MSG_TYPE_msg_root_key_create:
		request_receive_root_key(c, m);
		break;
	case MSG_TYPE_msg_index_get:
		on_index_get(c, p, m);
		break;
	}
}

static bool on_host(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct control *c = arg;

	if (m && m->info->type == MSG_TYPE_msg_host)
		c->disk_available_mib = IPC_RECORD(m, msg_host)->disk_available_mib;
	return true;
}

static void on_sample(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	lives_sample(c->lives);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	ipc_call(links_irond(c->links), MSG_TYPE_msg_host_get, &(struct msg_host_get){}, NULL, 0,
	         LOOK_INTERVAL_S * 1000, on_host, c);
}

/* --- the others --- */

static void on_api(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct control *c = user;

	if (m->info->type == MSG_TYPE_msg_api_record)
		calls_note(c->calls, IPC_RECORD(m, msg_api_record));
	else if (m->info->type == MSG_TYPE_msg_keep)
		kept_take(c, IPC_RECORD(m, msg_keep));
	else if (m->info->type == MSG_TYPE_msg_vm_closed)
		op_vm_closed(c, IPC_RECORD(m, msg_vm_closed));
	else if (m->info->type == MSG_TYPE_msg_metrics_get)
		request_receive_metrics(c, m);
	else
		request_receive(c, m);
}

static void on_vm(uint64_t id, struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct control *c = user;

	lives_on_report(c->lives, id, IPC_RECORD(m, msg_vm_state));
}

static void on_audit(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct control *c = user;

	tail_on_head(c->tail, IPC_RECORD(m, msg_audit_head));
}

static void drop_api(struct control *c)
{
	requests_drop(c, false);
	kept_drop_handed(c);
}

static void on_peer(enum role role, uint64_t id, struct ipc_peer *peer, void *user)
{
	struct control *c = user;

	daemons_note(c->journal, "connected", role, id);
	switch (role) {
	case ROLE_API:
		drop_api(c);
		break;
	case ROLE_AUDIT:
		journal_attach(c->journal, peer);
		break;
	case ROLE_VM:
		lives_on_vm_peer(c->lives, id);
		break;
	case ROLE_EGRESS:
		dist_on_worker(c->dist, id);
		lives_on_worker(c->lives, id);
		break;
	case ROLE_IROND:
	case ROLE_CONTROL:
	case ROLE_VAULT:
	case ROLE_SSH:
	case ROLE_WORKER:
		break;
	}
}

static void on_gone(enum role role, uint64_t id, void *user)
{
	struct control *c = user;

	daemons_note(c->journal, "gone", role, id);
	if (role == ROLE_API)
		drop_api(c);
	else if (role == ROLE_AUDIT)
		journal_attach(c->journal, NULL);
	else if (role == ROLE_EGRESS)
		dist_on_worker_gone(c->dist, id);
	else if (role == ROLE_IROND)
		c->on_end(c->user);
}

static void on_change(uint64_t vm, void *user)
{
	requests_wake(user, vm);
}

static void on_index_whole(void *user)
{
	requests_wake(user, REQUEST_WAITS_INDEX);
}

static void on_resumed(void *user)
{
	struct control *c = user;

	c->ready = true;
	daemons_note(c->journal, "started", ROLE_CONTROL, 0);
	log_info("ready", NULL);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	requests_run_woken(arg);
}

/* --- making it --- */

static int take_settings(struct control *c, const struct msg_control_config *m, struct error *reterr)
{
	struct settings *s = &c->settings;
	struct str shapes = m->shapes, item;

	*s = (struct settings){
		.max_vms = m->max_vms,
		.max_vms_per_workspace = m->max_vms_per_workspace,
		.memory_budget_mib = m->memory_budget_mib,
	};
	s->extra_ca = str_dup(m->extra_ca);
	str_copy(m->default_image, s->default_image, sizeof s->default_image);
	while (wire_list_next(&shapes, &item)) {
		struct rec_shape shape;
		if (s->nshapes == SHAPES_MAX)
			return error_set(reterr, -E2BIG, "more than %d shapes", SHAPES_MAX);
		int r = wire_decode(&rec_shape_wire, item, &shape);
		if (r)
			return error_set(reterr, r, "a malformed shape");
		struct shape *to = &s->shapes[s->nshapes++];
		*to = (struct shape){.vcpus = shape.vcpus, .memory_mib = shape.memory_mib};
		str_copy(shape.name, to->name, sizeof to->name);
	}
	struct ip base = ip_from_v4(m->synthetic_base);
	s->synthetic = cidr_of(&base, MIN(m->synthetic_prefix, (uint8_t)32));
	int r = presets_make(m->packages, &s->presets, reterr);
	return r ? r : dial_limits_create(m->never_dial, m->private_allow, &s->limits, reterr);
}

static int find_workspace(struct control *c, struct error *reterr)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_workspace w;

	int r = store_workspace_default(c->store, &a, &w);
	if (r)
		return error_set(reterr, r, "the default workspace cannot be read (%d)", r);
	c->default_workspace = w.id;
	return 0;
}

static void create_parts(struct control *c, const struct msg_control_config *m)
{
	struct lives_config lives = {
		.boot_timeout_ms = m->boot_timeout_ms,
		.stop_timeout_ms = m->stop_timeout_ms,
		.restart_pause_ms = m->restart_pause_ms ? m->restart_pause_ms : RESTART_PAUSE_MS,
		.extra_ca = str_of(c->settings.extra_ca),
		.on_change = on_change,
		.on_resumed = on_resumed,
		.user = c,
	};

	c->journal = journal_create(c->base);
	c->calls = calls_create(c->base, c->journal, c->store);
	c->dist = dist_create(c->base, c->store, c->links);
	c->lives = lives_create(c->base, c->store, c->links, c->dist, c->journal, &lives);
	c->tail = tail_create(c->base, c->store, c->links, m->index_days, on_index_whole, c);
	c->wake = event_new(c->base, -1, 0, on_wake, c);
	c->look = event_new(c->base, -1, EV_PERSIST, on_look, c);
	c->sample = event_new(c->base, -1, EV_PERSIST, on_sample, c);
	if (!c->wake || !c->look || !c->sample)
		abort();
}

int control_create(struct event_base *base, int irond_fd, struct store *store, const struct msg_control_config *config,
		   void (*on_end)(void *user), void *user, struct control **ret, struct error *reterr)
{
	static const struct links_events events = {on_peer, on_gone, on_irond, on_api, on_vm, on_audit};
	struct control *c = xcalloc(1, sizeof *c);

	*c = (struct control){
	        .base = base, .store = store, .on_end = on_end, .user = user, .disk_available_mib = UINT64_MAX};
	c->links = links_create(base, irond_fd, &events, c);
	int r = c->links ? 0 : error_set(reterr, -ENOMEM, "the channel to irond cannot be set up");
	if (r == 0)
		r = take_settings(c, config, reterr);
	if (r == 0)
		r = find_workspace(c, reterr);
	if (r == 0) {
		create_parts(c, config);
		r = lives_resume(c->lives);
		if (r)
			error_set(reterr, r, "irond cannot be asked for its VMs (%d)", r);
	}
	if (r) {
		control_destroy(c);
		return r;
	}
	event_add(c->look, &(struct timeval){.tv_sec = LOOK_INTERVAL_S});
	event_active(c->look, 0, 0);
	event_add(c->sample, &(struct timeval){.tv_sec = LIVES_SAMPLE_INTERVAL_S});
	*ret = c;
	return 0;
}

/* Channels first: what is waiting for an answer of theirs learns that none comes. */
void control_destroy(struct control *c)
{
	if (!c)
		return;
	if (c->journal)
		journal_attach(c->journal, NULL);
	requests_drop(c, false);
	requests_drop(c, true);
	links_destroy(c->links);
	c->links = NULL;
	if (c->look)
		event_free(c->look);
	if (c->sample)
		event_free(c->sample);
	dist_destroy(c->dist);
	lives_destroy(c->lives);
	tail_destroy(c->tail);
	calls_destroy(c->calls);
	journal_destroy(c->journal);
	if (c->wake)
		event_free(c->wake);
	map_finish(&c->touched);
	map_finish(&c->kept_now);
	free(c->settings.extra_ca);
	presets_finish(&c->settings.presets);
	dial_limits_destroy(c->settings.limits);
	free(c->images);
	free(c);
}
