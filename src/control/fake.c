#include "control/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/segment.h"
#include "base/clock.h"
#include "codec/record.h"

#define WAIT_MS 8000

void fake_turn(struct fake *f)
{
	for (int i = 0; i < 30; i++)
		event_base_loop(f->base, EVLOOP_NONBLOCK);
}

void fake_wait_ms(struct fake *f, unsigned ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};

	event_base_loopexit(f->base, &tv);
	event_base_loop(f->base, EVLOOP_ONCE);
}

static void turn_once(struct fake *f)
{
	fake_wait_ms(f, 20);
}

void fake_until(struct fake *f, const bool *flag)
{
	uint64_t end = mono_ms() + WAIT_MS;

	while (!*flag && mono_ms() < end)
		turn_once(f);
	assert_true(*flag);
}

enum vm_state fake_state(struct fake *f, uint64_t vm)
{
	_cleanup_(arena_finish) struct arena a = {0};
	struct store_vm row;

	assert_int_equal(store_vm_lookup(f->store, vm, &a, &row), 0);
	return row.state;
}

void fake_until_state(struct fake *f, uint64_t vm, enum vm_state state)
{
	uint64_t end = mono_ms() + WAIT_MS;

	while (fake_state(f, vm) != state && mono_ms() < end)
		turn_once(f);
	assert_string_equal(vm_state_detail(fake_state(f, vm)), vm_state_detail(state));
}

/* --- answers that can be held --- */

static void answer(struct fake *f, struct ipc_peer *p, const struct ipc_msg *m, const struct fault *fault, uint64_t vm)
{
	struct held h = {p, m->txn, fault->code, (enum msg_type)m->info->type, vm};

	if (fault->hold) {
		VEC_PUSH(&f->held, h);
		return;
	}
	for (int i = 0; i <= f->twice; i++)
		ipc_reply_result(p, m->txn, fault->code, fault->code ? "as ordered" : "", 0);
}

static void forget_held(struct fake *f, const struct ipc_peer *peer)
{
	for (size_t i = 0; i < f->held.n;)
		if (f->held.v[i].peer == peer)
			VEC_REMOVE_SWAP(&f->held, i);
		else
			i++;
}

static void drop_peer(struct fake *f, struct ipc_peer **p)
{
	if (*p)
		forget_held(f, *p);
	ipc_peer_destroy(take_ptr(*p));
}

static void kill_vm(struct fake *f, uint64_t vm)
{
	struct fake_vm *v = fake_vm_get(f, vm);

	if (!v)
		return;
	if (v->running) /* as irond does: the end first, then the answer */
		fake_exit(f, vm, 9, "killed");
	drop_peer(f, &v->peer);
}

void fake_journal_release(struct fake *f)
{
	for (size_t i = 0; i < f->held.n;) {
		struct held *h = &f->held.v[i];
		if (h->type != MSG_TYPE_msg_audit_batch) {
			i++;
			continue;
		}
		ipc_reply(h->peer, h->txn, MSG_TYPE_msg_audit_ack, &(struct msg_audit_ack){.count = 1}, NULL, 0);
		VEC_REMOVE_SWAP(&f->held, i);
	}
}

void fake_release(struct fake *f)
{
	for (size_t i = 0; i < f->held.n; i++)
		if (f->held.v[i].type == MSG_TYPE_msg_vm_kill)
			kill_vm(f, f->held.v[i].vm);
	for (size_t i = 0; i < f->held.n;) {
		struct held *h = &f->held.v[i];
		if (h->type == MSG_TYPE_msg_audit_batch) {
			i++;
			continue;
		}
		ipc_reply_result(h->peer, h->txn, h->code, h->code ? "as ordered" : "", 0);
		VEC_REMOVE_SWAP(&f->held, i);
	}
	fake_turn(f);
}

/* --- iron-vm --- */

struct fake_vm *fake_vm_get(struct fake *f, uint64_t vm)
{
	return map_get(&f->vms, vm);
}

void fake_report(struct fake *f, uint64_t vm, enum vm_report state, const char *step, const char *reason)
{
	struct fake_vm *v = fake_vm_get(f, vm);
	struct msg_vm_state m = {.vm = vm, .generation = v->generation, .state = (uint8_t)state, .step = str_of(step),
				 .reason = str_of(reason)};

	ipc_notify(v->peer, MSG_TYPE_msg_vm_state, &m, NULL, 0);
}

static void on_contract(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake_vm *v = user;
	struct fake *f = v->fake;

	f->contracts++;
	if (f->silent_guest)
		return;
	fake_report(f, v->id, VM_REPORT_BOOTING, "kernel", "");
	if (f->guest_fails)
		fake_report(f, v->id, VM_REPORT_FAILED, "clock", "it stands still");
	else
		for (int i = 0; i <= f->twice; i++)
			fake_report(f, v->id, VM_REPORT_READY, "", "");
}

static struct str encode_usage(const struct fake_vm *v, struct buf *space)
{
	assert_int_equal(wire_encode(&rec_vm_usage_wire, &v->used, space), 0);
	return buf_str(space);
}

void fake_exit(struct fake *f, uint64_t vm, int64_t status, const char *reason)
{
	struct fake_vm *v = fake_vm_get(f, vm);
	_cleanup_(buf_finish) struct buf used = {0};
	struct msg_vm_exited m = {.vm = vm, .generation = v->generation, .status = status, .reason = str_of(reason),
				  .usage = encode_usage(v, &used)};

	v->running = false;
	v->exited = true;
	v->exit_status = status;
	drop_peer(f, &v->peer);
	for (int i = 0; f->irond && i <= f->twice; i++)
		ipc_notify(f->irond, MSG_TYPE_msg_vm_exited, &m, NULL, 0);
}

static void exit_later(evutil_socket_t fd, short what, void *arg)
{
	struct fake_vm *v = arg;

	if (v->running)
		fake_exit(v->fake, v->id, 0, "powered off");
}

static void on_shutdown(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake_vm *v = user;
	struct timeval now = {0};

	v->fake->shutdowns++;
	answer(v->fake, p, m, &v->fake->shutdown, v->id);
	if (!v->fake->shutdown.hold && !v->fake->shutdown.code)
		event_base_once(v->fake->base, -1, EV_TIMEOUT, exit_later, v, &now);
}

static const struct ipc_rule vm_rules[] = {
	{MSG_TYPE_msg_contract, 0, IPC_NOTICE, on_contract},
	{MSG_TYPE_msg_vm_shutdown, 0, IPC_REQUEST, on_shutdown},
};

static void on_vm_closed(struct ipc_peer *p, const char *reason, void *user)
{
	struct fake_vm *v = user;
	drop_peer(v->fake, &v->peer);
}

/* A channel from iron-control to a fake: the fake's end is returned, the other handed over as irond does. */
static struct ipc_peer *hand_over(struct fake *f, enum role role, uint64_t id, const struct ipc_rule *rules, size_t n,
				  ipc_closed *closed, void *user)
{
	int fds[2];

	assert_int_equal(ipc_socketpair(fds), 0);
	struct ipc_peer *p = ipc_peer_create(f->base, fds[0], "fake", rules, n, closed, user);
	ipc_notify(f->irond, MSG_TYPE_msg_peer, &(struct msg_peer){.role = (uint8_t)role, .id = id}, &fds[1], 1);
	close(fds[1]);
	return p;
}

static void hand_over_vm(struct fake *f, struct fake_vm *v)
{
	drop_peer(f, &v->peer);
	v->peer = hand_over(f, ROLE_VM, v->id, vm_rules, ARRAY_SIZE(vm_rules), on_vm_closed, v);
}

void fake_vm_replace(struct fake *f, uint64_t vm)
{
	hand_over_vm(f, fake_vm_get(f, vm));
}

/* --- iron-egress --- */

static void on_begin(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake_worker *w = user;
	w->pending_rules = 0;
	w->pending_mode = IPC_RECORD(m, msg_policy_begin)->mode;
}

static void on_rule(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake_worker *w = user;
	struct rec_rule rule;

	assert_int_equal(wire_decode(&rec_rule_wire, IPC_RECORD(m, msg_policy_rule)->rule, &rule), 0);
	w->pending_rules++;
}

static void on_commit(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake_worker *w = user;
	const struct msg_policy_commit *c = IPC_RECORD(m, msg_policy_commit);

	struct fake_vm *v = fake_vm_get(w->fake, c->vm);

	assert_true(c->version > v->policy_version);
	if (!w->fake->commit.code) {
		v->policy_version = c->version;
		w->rules = w->pending_rules;
		w->mode = w->pending_mode;
		w->commits++;
	}
	answer(w->fake, p, m, &w->fake->commit, c->vm);
}

static const struct ipc_rule worker_rules[] = {
	{MSG_TYPE_msg_policy_begin, 0, IPC_NOTICE, on_begin},
	{MSG_TYPE_msg_policy_rule, 0, IPC_NOTICE, on_rule},
	{MSG_TYPE_msg_policy_commit, 0, IPC_REQUEST, on_commit},
};

static void on_worker_closed(struct ipc_peer *p, const char *reason, void *user)
{
	struct fake_worker *w = user;
	drop_peer(w->fake, &w->peer);
}

void fake_worker_replace(struct fake *f, uint64_t workspace)
{
	struct fake_worker *w = map_get(&f->workers, workspace);

	if (!w) {
		w = xcalloc(1, sizeof *w);
		*w = (struct fake_worker){.fake = f, .workspace = workspace};
		map_put(&f->workers, workspace, w);
	}
	drop_peer(f, &w->peer);
	w->peer = hand_over(f, ROLE_EGRESS, workspace, worker_rules, ARRAY_SIZE(worker_rules), on_worker_closed, w);
}

void fake_worker_kill(struct fake *f, uint64_t workspace)
{
	struct fake_worker *w = map_get(&f->workers, workspace);
	drop_peer(f, &w->peer);
}

struct fake_worker *fake_worker_get(struct fake *f)
{
	struct map_slot *slot;
	size_t i = 0;

	return map_next(&f->workers, &i, &slot) ? slot->value : NULL;
}

/* --- irond --- */

static void on_prepare(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	const struct msg_vm_prepare *r = IPC_RECORD(m, msg_vm_prepare);
	struct fake *f = user;
	struct fake_vm *v = fake_vm_get(f, r->vm);
	struct fault exists = {-EEXIST, false, false};

	f->prepares++;
	if (f->prepare.lose)
		return;
	if (v && v->prepared) {
		answer(f, p, m, &exists, r->vm);
		return;
	}
	if (!v) {
		v = xcalloc(1, sizeof *v);
		*v = (struct fake_vm){.fake = f, .id = r->vm, .workspace = r->workspace};
		map_put(&f->vms, r->vm, v);
	}
	v->prepared = f->prepare.code == 0;
	answer(f, p, m, &f->prepare, r->vm);
}

static void on_start(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	const struct msg_vm_start *r = IPC_RECORD(m, msg_vm_start);
	struct fake *f = user;
	struct fake_vm *v = fake_vm_get(f, r->vm);

	f->starts++;
	if (f->start.lose)
		return;
	assert_true(v && v->prepared && !v->running);
	assert_true(r->generation > v->generation);
	if (!f->start.code) {
		v->generation = r->generation;
		v->running = true;
		v->exited = false;
		hand_over_vm(f, v);
		struct fake_worker *w = map_get(&f->workers, v->workspace);
		if (!w || !w->peer)
			fake_worker_replace(f, v->workspace);
	}
	answer(f, p, m, &f->start, r->vm);
}

static void on_kill(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	uint64_t vm = IPC_RECORD(m, msg_vm_kill)->vm;
	struct fake *f = user;

	f->kills++;
	if (!f->kill.code && !f->kill.hold)
		kill_vm(f, vm);
	answer(f, p, m, &f->kill, vm);
}

static void on_remove(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	uint64_t vm = IPC_RECORD(m, msg_vm_remove)->vm;
	struct fake *f = user;
	struct fake_vm *v = fake_vm_get(f, vm);

	f->removes++;
	if (f->remove.lose)
		return;
	assert_true(!v || !v->running);
	if (v && !f->remove.code)
		v->prepared = false;
	answer(f, p, m, &f->remove, vm);
}

static void on_stream(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake *f = user;

	f->streams++;
	answer(f, p, m, &f->stream, IPC_RECORD(m, msg_vm_stream)->vm);
}

static void on_vms_get(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake *f = user;
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&f->vms, &i, &slot)) {
		struct fake_vm *v = slot->value;
		_cleanup_(buf_finish) struct buf used = {0};
		struct msg_vm_row row = {.vm = v->id, .generation = v->generation, .running = v->running,
					 .exited = v->exited, .status = v->exit_status, .reason = STR("as ordered"),
					 .usage = encode_usage(v, &used)};
		if (v->prepared)
			ipc_reply(p, m->txn, MSG_TYPE_msg_vm_row, &row, NULL, 0);
	}
	ipc_reply_result(p, m->txn, 0, "", 0);
}

static void on_host_get(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake *f = user;
	struct msg_host host = {.version = STR("test"), .accelerator = STR("tcg"), .disk_available_mib = f->disk_mib};

	ipc_reply(p, m->txn, MSG_TYPE_msg_host, &host, NULL, 0);
}

static void on_local_get(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	ipc_reply_result(p, m->txn, 0, "", IPC_RECORD(m, msg_local_get)->address == FAKE_LOCAL);
}

static void on_roles_get(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct msg_role_row row = {.name = STR("iron-api"), .state = STR("ok"), .pid = 1};

	ipc_reply(p, m->txn, MSG_TYPE_msg_role_row, &row, NULL, 0);
	row.name = STR("iron-audit");
	if (((struct fake *)user)->role_silent)
		row.state = STR("silent");
	ipc_reply(p, m->txn, MSG_TYPE_msg_role_row, &row, NULL, 0);
	ipc_reply_result(p, m->txn, 0, "", 0);
}

static void on_segment_open(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	uint64_t number = IPC_RECORD(m, msg_segment_open)->number;
	struct fake *f = user;
	char name[SEGMENT_NAME_SIZE];

	segment_name_format(number, name);
	_cleanup_close_ int fd = openat(f->segments, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		ipc_reply_result(p, m->txn, -ENOENT, "", 0);
	else
		ipc_reply(p, m->txn, MSG_TYPE_msg_segment, &(struct msg_segment){.number = number}, &fd, 1);
}

static void on_egress_restart(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	struct fake *f = user;
	uint64_t workspace = IPC_RECORD(m, msg_egress_restart)->workspace;

	f->restarts++;
	ipc_reply_result(p, m->txn, 0, "", 0);
	f->commit = (struct fault){0};
	fake_worker_replace(f, workspace);
}

static void on_stats_get(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	const struct fake_vm *v = fake_vm_get(user, IPC_RECORD(m, msg_vm_stats_get)->vm);

	if (!v || !v->prepared) {
		ipc_reply_result(p, m->txn, -ENOENT, "there is no such VM", 0);
		return;
	}
	struct msg_vm_stats s = {.vm = v->id, .generation = v->generation, .running = v->running, .disk_bytes = v->used.disk_bytes};
	if (v->running) {
		s.cpu_us = v->used.cpu_us;
		s.net_sent_bytes = v->used.net_sent_bytes;
	}
	ipc_reply(p, m->txn, MSG_TYPE_msg_vm_stats, &s, NULL, 0);
}

static void on_api_lost(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	((struct fake *)user)->api_lost++;
}

static const struct ipc_rule irond_rules[] = {
	{MSG_TYPE_msg_api_lost, 0, IPC_NOTICE, on_api_lost},
	{MSG_TYPE_msg_vm_stats_get, 0, IPC_REQUEST, on_stats_get},
	{MSG_TYPE_msg_vm_prepare, 0, IPC_REQUEST, on_prepare},
	{MSG_TYPE_msg_vm_start, 0, IPC_REQUEST, on_start},
	{MSG_TYPE_msg_vm_kill, 0, IPC_REQUEST, on_kill},
	{MSG_TYPE_msg_vm_remove, 0, IPC_REQUEST, on_remove},
	{MSG_TYPE_msg_vm_stream, 0, IPC_REQUEST, on_stream},
	{MSG_TYPE_msg_vms_get, 0, IPC_REQUEST, on_vms_get},
	{MSG_TYPE_msg_host_get, 0, IPC_REQUEST, on_host_get},
	{MSG_TYPE_msg_local_get, 0, IPC_REQUEST, on_local_get},
	{MSG_TYPE_msg_roles_get, 0, IPC_REQUEST, on_roles_get},
	{MSG_TYPE_msg_segment_open, 0, IPC_REQUEST, on_segment_open},
	{MSG_TYPE_msg_egress_restart, 0, IPC_REQUEST, on_egress_restart},
};

/* --- iron-audit --- */

static void on_batch(struct ipc_peer *p, const struct ipc_msg *m, void *user)
{
	const struct msg_audit_batch *b = IPC_RECORD(m, msg_audit_batch);
	struct fake *f = user;
	struct str records = b->records, item;
	struct record_event e;

	while (wire_list_next(&records, &item)) {
		assert_true(item.len > 2 && item.p[0] == RECORD_EVENT);
		assert_int_equal(wire_decode(&record_event_wire, str_make(item.p + 2, item.len - 2), &e), 0);
		f->events++;
		f->durable_events += b->durable;
		f->last_workspace = e.workspace;
		f->last_key = e.key;
		snprintf(b->durable ? f->last_event : f->last_soon, sizeof f->last_event, "%.*s %.*s %.*s", STR_ARG(e.kind),
			 STR_ARG(e.action), STR_ARG(e.outcome));
	}
	if (f->journal.hold) {
		VEC_PUSH(&f->held, ((struct held){p, m->txn, 0, MSG_TYPE_msg_audit_batch, 0}));
		return;
	}
	struct msg_audit_ack ack = {.code = f->journal.code, .first_seq = f->events, .count = 1};
	ipc_reply(p, m->txn, MSG_TYPE_msg_audit_ack, &ack, NULL, 0);
}

static const struct ipc_rule audit_rules[] = {{MSG_TYPE_msg_audit_batch, 0, IPC_REQUEST, on_batch}};

/* --- the whole --- */

static void on_end(void *user)
{
	((struct fake *)user)->ended = true;
}

void fake_key_use(struct fake *f, const char *key)
{
	str_copy(str_of(key), f->key, sizeof f->key);
	crypto_hash_sha256(f->key_hash, (const uint8_t *)f->key, strlen(f->key));
}

static bool on_root_key(struct ipc_peer *p, const struct ipc_msg *m, void *arg)
{
	struct fake *f = arg;

	assert_non_null(m);
	assert_int_equal(IPC_RECORD(m, msg_result)->code, 0);
	char key[64];
	str_copy(IPC_RECORD(m, msg_result)->reason, key, sizeof key);
	fake_key_use(f, key);
	return true;
}

static void make_key(struct fake *f)
{
	bool done = false;
	uint64_t end = mono_ms() + WAIT_MS;

	ipc_call(f->irond, MSG_TYPE_msg_root_key_create, &(struct msg_root_key_create){.name = STR("first")}, NULL, 0,
	         0, on_root_key, f);
	while (!done && mono_ms() < end) {
		turn_once(f);
		done = f->key[0];
	}
	assert_true(done);
}

/* Until the store has been compared with irond: then requests are taken. */
static void await_ready(struct fake *f)
{
	struct msg_page m = {.key_hash = fake_hash(f), .op = OP_ME};
	uint64_t end = mono_ms() + WAIT_MS;
	unsigned status = 503;

	while (status == 503 && mono_ms() < end) {
		struct fake_answer a;
		status = fake_call(f, MSG_TYPE_msg_page, &m, &a);
		fake_answer_finish(&a);
	}
	assert_int_equal(status, 200);
}

void fake_start_control(struct fake *f)
{
	struct msg_image image = {.id = 77, .name = STR("base"), .hash = STR("h"), .created_at = 1};
	struct map_slot *slot;
	struct error e = {0};
	size_t i = 0;
	int fds[2];

	assert_int_equal(ipc_socketpair(fds), 0);
	f->irond = ipc_peer_create(f->base, fds[0], "fake irond", irond_rules, ARRAY_SIZE(irond_rules), NULL, f);
	assert_int_equal(control_create(f->base, fds[1], f->store, &f->config, on_end, f, &f->control, &e), 0);
	ipc_notify(f->irond, MSG_TYPE_msg_image, &image, NULL, 0);
	ipc_notify(f->irond, MSG_TYPE_msg_images_end, &(struct msg_images_end){}, NULL, 0);
	f->api = hand_over(f, ROLE_API, 0, NULL, 0, NULL, f);
	f->audit = hand_over(f, ROLE_AUDIT, 0, audit_rules, 1, NULL, f);
	if (f->segments < 0) /* an empty journal; else the test says what there is */
		ipc_notify(f->audit, MSG_TYPE_msg_audit_head, &(struct msg_audit_head){0}, NULL, 0);
	while (map_next(&f->workers, &i, &slot))
		fake_worker_replace(f, ((struct fake_worker *)slot->value)->workspace);
	i = 0;
	while (map_next(&f->vms, &i, &slot))
		if (((struct fake_vm *)slot->value)->running)
			hand_over_vm(f, slot->value);
	fake_turn(f);
	if (!f->key[0])
		make_key(f);
	await_ready(f);
}

void fake_restart_control(struct fake *f)
{
	fake_stop_control(f);
	fake_start_control(f);
}

void fake_api_replace(struct fake *f)
{
	drop_peer(f, &f->api);
	f->api = hand_over(f, ROLE_API, 0, NULL, 0, NULL, f);
	fake_turn(f);
}

void fake_stop_control(struct fake *f)
{
	struct map_slot *slot;
	size_t i = 0;

	control_destroy(take_ptr(f->control));
	drop_peer(f, &f->irond);
	drop_peer(f, &f->api);
	drop_peer(f, &f->audit);
	while (map_next(&f->workers, &i, &slot))
		drop_peer(f, &((struct fake_worker *)slot->value)->peer);
	i = 0;
	while (map_next(&f->vms, &i, &slot))
		drop_peer(f, &((struct fake_vm *)slot->value)->peer);
	f->held.n = 0;
	fake_turn(f);
}

void fake_reboot(struct fake *f)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&f->vms, &i, &slot)) {
		struct fake_vm *v = slot->value;
		v->running = v->exited = false;
		v->generation = 0;
	}
}

struct fake *fake_create(void)
{
	struct fake *f = xcalloc(1, sizeof *f);
	struct error e = {0};

	assert_true(sodium_init() >= 0);
	f->base = event_base_new();
	f->disk_mib = 100000;
	f->segments = -1;
	f->config = (struct msg_control_config){.max_vms = 5,
	                                        .max_vms_per_workspace = 4,
	                                        .memory_budget_mib = 8000,
	                                        .boot_timeout_ms = 300,
	                                        .stop_timeout_ms = 300,
	                                        .restart_pause_ms = 10,
	                                        .default_image = STR("base")};
	static const char *const packages[] = {"pypi=index.example.org", "pypi=files.example.org", "npm=registry.example.org",
					       "npm=cdn.example.org", "npm=mirror.example.org:80"};
	for (size_t i = 0; i < ARRAY_SIZE(packages); i++)
		assert_int_equal(wire_list_add_z(&f->packages, packages[i]), 0);
	f->config.packages = buf_str(&f->packages);
	snprintf(f->dir, sizeof f->dir, "/tmp/iron-control-test.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(store_open(f->dir, &f->store, &e), 0);
	fake_start_control(f);
	return f;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void free_values(struct map *m)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(m, &i, &slot))
		free(slot->value);
	map_finish(m);
}

void fake_destroy(struct fake *f)
{
	if (f->control)
		fake_stop_control(f);
	store_close(f->store);
	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free_values(&f->vms);
	free_values(&f->workers);
	VEC_FINISH(&f->held);
	buf_finish(&f->packages);
	event_base_free(f->base);
	free(f);
}
