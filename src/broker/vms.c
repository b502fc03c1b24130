#include "broker/vms.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/id.h"
#include "base/log.h"
#include "broker/vm_impl.h"
#include "os/fdutil.h"
#include "os/ipc.h"

#define STREAM_TIMEOUT_MS 10000

/* --- the table --- */

static struct vm *vm_create(struct broker *b, const struct vm_record *record)
{
	struct vm *v = xcalloc(1, sizeof *v);

	v->b = b;
	v->record = *record;
	id_format("vm_", record->vm, v->text);
	v->dir = xasprintf("%s/vms/%s", b->conf->state_dir, v->text);
	v->run_dir = xasprintf("%s/vms/%s", b->conf->run_dir, v->text);
	v->net = (struct vm_net){-1, -1, -1, -1};
	v->names_fd = v->qemu.pidfd = -1;
	map_put(&b->vms, record->vm, v);
	return v;
}

static void vm_free(struct vm *v)
{
	map_remove(&v->b->vms, v->record.vm);
	if (v->timer)
		event_free(v->timer);
	VEC_FINISH(&v->killers);
	free(v->dir);
	free(v->run_dir);
	free(v);
}

static int load_one(struct broker *b, const char *dir, const char *name, struct error *reterr)
{
	struct vm_record record;
	struct error e = {0};
	char text[ID_TEXT_SIZE];
	int r = vm_record_read(dir, &record, &e);

	if (r == -ENOENT || (r == 0 && !record.prepared)) {
		r = dir_remove(dir);
		return r < 0 ? error_set(reterr, r, "%s cannot be removed: %s", dir, strerror(-r)) : 0;
	}
	if (r == 0) {
		id_format("vm_", record.vm, text);
		if (strcmp(text, name) != 0)
			r = error_set(&e, -EINVAL, "%s holds the record of %s", dir, text);
		else if ((r = uids_vm_claim(b->uids, record.slot)) < 0)
			error_set(&e, r, "%s: its slot %u is %s", dir, record.slot,
				  r == -EEXIST ? "another VM's" : "out of range");
	}
	if (r < 0)
		return error_set(reterr, r, "%s; move that directory away to start without it", e.text);
	vm_create(b, &record);
	return 0;
}

int vms_load(struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/vms", b->conf->state_dir);
	DIR *d = opendir(path);
	struct dirent *e;
	int r = 0;

	if (!d)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	while (r == 0 && (e = readdir(d))) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", path, e->d_name);
		if (str_has_prefix(str_of(e->d_name), STR("vm_")))
			r = load_one(b, dir, e->d_name, reterr);
	}
	closedir(d);
	return r;
}

void vms_abandon(struct broker *b)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot))
		vm_run_abandon(slot->value);
}

void vms_destroy(struct broker *b)
{
	struct map_slot *slot;

	for (size_t i = 0; map_next(&b->vms, &i, &slot); i = 0)
		vm_free(slot->value);
	map_finish(&b->vms);
}

unsigned vms_running(const struct broker *b)
{
	struct map_slot *slot;
	unsigned n = 0;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot))
		n += ((struct vm *)slot->value)->phase != PHASE_STOPPED;
	return n;
}

bool vms_have_pid(const struct broker *b, pid_t pid)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot)) {
		const struct vm *v = slot->value;
		if (v->qemu.pidfd >= 0 && v->qemu.pid == pid)
			return true;
	}
	return false;
}

bool vms_use_image(const struct broker *b, uint64_t image)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot))
		if (((struct vm *)slot->value)->record.image == image)
			return true;
	return false;
}

void vms_each_role(struct broker *b, broker_role_fn *fn, void *user)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot)) {
		struct vm *v = slot->value;
		if (v->role)
			fn(v->role, user);
	}
}

/* --- prepare, remove --- */

static int make_disk(const struct vm *v, struct error *reterr)
{
	_cleanup_(image_files_close) struct image_files image = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1};
	_cleanup_free_ char *path = xasprintf("%s/overlay.qcow2", v->dir);
	const uid_t uid = uids_qemu(v->b->uids, v->record.slot);
	int r = image_open(v->b->conf->state_dir, v->record.image, &image, reterr);

	if (r < 0 || image.disk_fd < 0)
		return r;
	return overlay_create(path, image.disk_fd, v->record.disk_gib, uid, uid, reterr);
}

/* The record goes last: while it is there the uids are not given to another VM. */
static int remove_files(const struct vm *v)
{
	static const char *const names[] = {"overlay.qcow2", "qemu.log", "vm.json"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", v->dir, names[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			r = -errno;
	}
	return r < 0 ? r : dir_remove(v->dir);
}

/* The record goes first, since it holds the uids that the disk will belong to, and last once more: complete. */
static int make_files(struct vm *v, struct error *reterr)
{
	int r = dir_make(v->dir, 0700, 0, 0);

	if (r < 0)
		return error_set(reterr, r, "%s: %s", v->dir, strerror(-r));
	if ((r = vm_record_write(v->dir, &v->record, reterr)) < 0 || (r = make_disk(v, reterr)) < 0)
		return r;
	v->record.prepared = true;
	return vm_record_write(v->dir, &v->record, reterr);
}

void vm_prepare(struct broker *b, const struct msg_vm_prepare *m, struct reply to)
{
	struct vm_record record = {.vm = m->vm,
				   .workspace = m->workspace,
				   .image = m->image,
				   .vcpus = m->vcpus,
				   .memory_mib = m->memory_mib,
				   .disk_gib = m->disk_gib};
	struct error e = {0};
	int r;

	if (map_get(&b->vms, m->vm)) {
		broker_answer(b, to, -EEXIST, "the VM exists", 0);
		return;
	}
	if (!broker_find_image(b, m->image)) {
		broker_answer(b, to, -ENOENT, "there is no such image", 0);
		return;
	}
	if (m->vm == 0 || m->workspace == 0 || m->vcpus == 0 || m->memory_mib < 256 || m->disk_gib == 0) {
		broker_answer(b, to, -EINVAL, "a number of the VM is out of its bounds", 0);
		return;
	}
	if (uids_vm_take(b->uids, &record.slot) < 0) {
		broker_answer(b, to, -ENOSPC, "no uid is left for another VM", 0);
		return;
	}
	struct vm *v = vm_create(b, &record);
	r = make_files(v, &e);
	if (r < 0) {
		remove_files(v);
		uids_vm_release(b->uids, record.slot);
		vm_free(v);
	}
	broker_answer(b, to, r, e.text, 0);
}

void vm_remove(struct broker *b, uint64_t id, struct reply to)
{
	struct vm *v = map_get(&b->vms, id);
	int r;

	if (!v) {
		broker_answer(b, to, 0, "", 0);
		return;
	}
	if (v->phase != PHASE_STOPPED) {
		broker_answer(b, to, -EBUSY, "the VM runs", 0);
		return;
	}
	r = remove_files(v);
	if (r == 0) {
		uids_vm_release(b->uids, v->record.slot);
		vm_free(v);
	}
	broker_answer(b, to, r, r < 0 ? strerror(-r) : "", 0);
}

/* --- start, kill --- */

void vm_start(struct broker *b, uint64_t id, uint64_t generation, struct reply to)
{
	struct vm *v = map_get(&b->vms, id);

	if (!v)
		broker_answer(b, to, -ENOENT, "there is no such VM", 0);
	else if (b->stopping)
		broker_answer(b, to, -ESHUTDOWN, "irond is stopping", 0);
	else if (v->phase != PHASE_STOPPED)
		broker_answer(b, to, -EALREADY, "the VM runs, or is ending", 0);
	else if (!b->accel.kvm && !b->conf->allow_tcg_multi_tenant && workspace_other_used(b, v->record.workspace))
		broker_answer(
			b, to, -EPERM,
			"without KVM, VMs of more than one workspace need allow_tcg_multi_tenant: true in iron.yaml",
			0);
	else
		vm_run(v, generation, to);
}

void vm_kill(struct broker *b, uint64_t id, struct reply to)
{
	struct vm *v = map_get(&b->vms, id);

	if (!v || v->phase == PHASE_STOPPED) {
		broker_answer(b, to, 0, "", 0);
		return;
	}
	VEC_PUSH(&v->killers, to);
	vm_run_kill(v);
}

static bool on_shutdown_asked(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	return true; /* QEMU's end is the answer that counts; the deadline is broker_stop's */
}

static int ask_to_power_off(const struct broker *b, struct vm *v)
{
	struct ipc_peer *peer = v->role && v->phase == PHASE_RUNNING ? role_peer(v->role) : NULL;
	const struct msg_vm_shutdown m = {.vm = v->record.vm, .deadline_ms = b->conf->limits.stop_timeout_s * 1000};

	return ipc_call(peer, MSG_TYPE_msg_vm_shutdown, &m, NULL, 0, 0, on_shutdown_asked, NULL);
}

void vms_stop(struct broker *b, bool force)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot)) {
		struct vm *v = slot->value;
		if (force || ask_to_power_off(b, v) < 0)
			vm_run_kill(v);
	}
}

/* --- streams --- */

struct stream {
	struct broker *b;
	uint64_t token;
	struct reply to;
};

static bool on_stream(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct stream *s = arg;
	struct ipc_peer *api = role_peer(s->b->api);
	const struct msg_stream out = {.token = s->token};

	if (!m) {
		broker_answer(s->b, s->to, -EPIPE, "the VM's process does not answer", 0);
	} else if (m->info->type == MSG_TYPE_msg_result) {
		const struct msg_result *r = IPC_RECORD(m, msg_result);
		char reason[256];
		snprintf(reason, sizeof reason, "%.*s", STR_ARG(r->reason));
		broker_answer(s->b, s->to, r->code ? (int)r->code : -EPROTO, reason, 0);
	} else if (m->info->type != MSG_TYPE_msg_stream || m->nfds != 1) {
		broker_answer(s->b, s->to, -EPROTO, "the VM's process broke the protocol", 0);
	} else if (!api || ipc_notify(api, MSG_TYPE_msg_stream, &out, m->fds, 1) < 0) {
		broker_answer(s->b, s->to, -EPIPE, "iron-api is not up", 0);
	} else {
		broker_answer(s->b, s->to, 0, "", 0);
	}
	free(s);
	return true;
}

void vm_stream(struct broker *b, uint64_t id, uint64_t token, struct reply to)
{
	struct vm *v = map_get(&b->vms, id);
	struct ipc_peer *peer = v && v->phase == PHASE_RUNNING && v->role ? role_peer(v->role) : NULL;
	const struct msg_stream_open m = {.token = token};
	struct stream *s;

	if (!peer) {
		broker_answer(b, to, v ? -EPIPE : -ENOENT, v ? "the VM does not run" : "there is no such VM", 0);
		return;
	}
	s = xcalloc(1, sizeof *s);
	*s = (struct stream){.b = b, .token = token, .to = to};
	if (ipc_call(peer, MSG_TYPE_msg_stream_open, &m, NULL, 0, STREAM_TIMEOUT_MS, on_stream, s) < 0) {
		free(s);
		broker_answer(b, to, -EPIPE, "the VM's process does not answer", 0);
	}
}

void vms_list(struct broker *b, struct reply to)
{
	struct ipc_peer *control = role_peer(b->control);
	struct map_slot *slot;
	size_t i = 0;

	while (control && map_next(&b->vms, &i, &slot)) {
		_cleanup_(buf_finish) struct buf usage = {0};
		struct vm *v = slot->value;
		if (v->phase == PHASE_RUNNING)
			vm_usage_read(v);
		const struct msg_vm_row m = {.vm = v->record.vm,
					     .generation = v->generation,
					     .running = v->phase == PHASE_RUNNING,
					     .exited = v->exited && v->phase == PHASE_STOPPED,
					     .status = v->status,
					     .reason = str_of(v->reason),
					     .usage = vm_usage_encode(v, &usage)};
		ipc_reply(control, to.txn, MSG_TYPE_msg_vm_row, &m, NULL, 0);
	}
	broker_answer(b, to, 0, "", 0);
}
