/* VMs that outlive irond: what is written down of them, and how the next irond takes them up. A QEMU is adopted when the
 * process of its record is still that process, is in the VM's own group and runs under the VM's own uid; whatever else is
 * in the VM's groups is not ours to keep, and is swept with them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "broker/run_record.h"
#include "broker/qemu_command.h"
#include "broker/vm_impl.h"
#include "os/fdutil.h"
#include "os/ipc.h"
#include "os/pidfd.h"
#include "os/proc.h"

#define ASK_TIMEOUT_MS 2000

/* A VM whose QEMU is not written down would be ended by the next irond: said, not undone. */
void vm_note_qemu(const struct vm *v)
{
	struct run_record record = {
		.pid = v->qemu.pid, .started_at = real_ms(), .id = v->record.vm, .generation = v->generation};
	int r = run_record_write(v->run_dir, VM_RUN_RECORD, &record);

	if (r < 0)
		log_error("QEMU not written down", "vm=%s reason=%s", v->text, log_quote(strerror(-r)));
}

/* --- a QEMU that runs --- */

/* NULL: it is this VM's. */
static const char *difference(const struct vm *v, const struct run_record *record)
{
	uid_t uid;

	if (record->id != v->record.vm)
		return "its record is another VM's";
	if (proc_uid(record->pid, &uid) < 0 || uid != uids_qemu(v->b->uids, v->record.slot))
		return "its uid is not the VM's";
	return cgroup_has(v->group, record->pid) ? NULL : "it is not in the VM's group";
}

/* The tap's counters live as long as somebody holds it; QEMU is one, we are to be another. */
static void take_network(struct vm *v)
{
	_cleanup_free_ char *names = xasprintf("%s/names", v->run_dir);

	if (pidfd_get_fd(v->qemu.pidfd, QEMU_FD_TAP, &v->net.tap_fd) < 0)
		v->net.tap_fd = -1;
	v->names_fd = open(names, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (v->names_fd < 0) {
		log_warn("the name table is lost", "vm=%s reason=%s", v->text, log_quote(strerror(errno)));
		v->names_fd = open(names, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	}
}

static int take_up(struct vm *v, const struct run_record *record, int pidfd, struct error *reterr)
{
	int r;

	v->phase = PHASE_RUNNING;
	v->announced = true;
	v->generation = record->generation;
	v->qemu = (struct qemu_process){.pid = record->pid, .pidfd = pidfd};
	take_network(v);
	if ((r = vm_watch_qemu(v, reterr)) < 0 ||
	    (r = workspace_acquire(v->b, v->record.workspace, &v->workspace, reterr)) < 0)
		return r;
	vm_make_role(v);
	if (role_adopt(v->role) < 0) {
		/* QEMU's sockets have room for one: whoever is in the group, and not the one of the record, is in its place */
		if ((r = cgroup_empty(v->role_group)) < 0)
			return error_set(reterr, r, "its iron-vm does not end: %s", strerror(-r));
		if ((r = role_start(v->role, reterr)) < 0)
			return r;
	}
	log_info("vm adopted", "vm=%s generation=%lu qemu=%d", v->text, v->generation, v->qemu.pid);
	return 0;
}

/* --- one that has ended --- */

static int how_it_ended(const struct vm *v)
{
	char file[40];
	uint64_t announced = 0;

	snprintf(file, sizeof file, "vm-%s", v->text);
	int r = role_ask_orphan(v->b->conf->run_dir, file, MSG_TYPE_msg_vm_end_get, &(struct msg_vm_end_get){},
				ASK_TIMEOUT_MS, &announced);
	return r == 0 && announced == 1 ? 0 : VM_STATUS_UNSEEN;
}

static void bury(struct vm *v, const struct run_record *record)
{
	v->phase = PHASE_STOPPING;
	v->generation = record->generation;
	vm_usage_read(v);
	vm_set_exit_reason(v, how_it_ended(v));
	log_info("vm ended", "vm=%s reason=%s", v->text, log_quote(v->reason));
}

/* What is left of a run in its groups goes, and its namespace. */
static void clear_away(struct vm *v)
{
	struct cgroup **groups[] = {&v->group, &v->role_group};

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		if (!*groups[i])
			continue;
		cgroup_empty(*groups[i]);
		if (!vm_drop_group(groups[i])) /* swept afterwards */
			cgroup_destroy(take_ptr(*groups[i]));
	}
	vm_release_run(v);
	v->phase = PHASE_STOPPED;
	v->announced = false;
}

static void refuse(struct vm *v, const struct run_record *record, const char *why)
{
	log_error("a QEMU that cannot be adopted is ended", "vm=%s reason=%s", v->text, log_quote(why));
	v->phase = PHASE_STOPPING;
	clear_away(v);
	v->generation = record->generation;
	v->exited = true;
	v->status = VM_STATUS_UNSEEN;
	snprintf(v->reason, sizeof v->reason, "irond did not know its QEMU again: %.400s", why);
}

/* Without a record that can be read there is nothing to adopt, and what runs is swept. */
static int adopt_one(struct vm *v, struct error *reterr)
{
	_cleanup_close_ int pidfd = -1;
	struct run_record record;
	struct error e = {0};
	const char *why;
	int r;

	if (run_record_read(v->run_dir, VM_RUN_RECORD, &record) < 0)
		return 0;
	vm_make_timer(v);
	if ((r = vm_make_groups(v, true, reterr)) < 0)
		return r;
	if (run_record_open(&record, &pidfd) < 0) {
		bury(v, &record);
		clear_away(v);
		return 0;
	}
	why = difference(v, &record);
	if (!why && take_up(v, &record, take_fd(pidfd), &e) < 0)
		why = e.text;
	if (why)
		refuse(v, &record, why);
	return 0;
}

/* --- all of them --- */

static bool is_adopted(const struct broker *b, const char *name)
{
	uint64_t id;
	const struct vm *v = id_parse("vm_", str_of(name), &id) == 0 ? map_get(&b->vms, id) : NULL;

	return v && v->phase != PHASE_STOPPED;
}

/* Pinned namespaces, sockets and name tables of what does not run. */
static int clean_run_dir(const struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/vms", b->conf->run_dir);
	DIR *d = opendir(path);
	struct dirent *e;
	int r = 0;

	while (d && r == 0 && (e = readdir(d))) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", path, e->d_name);
		_cleanup_free_ char *pin = xasprintf("%s/net", dir);
		if (e->d_name[0] == '.' || is_adopted(b, e->d_name))
			continue;
		vm_net_unpin(pin);
		r = dir_remove(dir);
		if (r < 0)
			error_set(reterr, r, "%s: %s; is something mounted below it?", dir, strerror(-r));
	}
	if (d)
		closedir(d);
	return r;
}

int vms_adopt(struct broker *b, struct error *reterr)
{
	struct map_slot *slot;
	size_t i = 0;
	int r = 0;

	while (r == 0 && map_next(&b->vms, &i, &slot))
		r = adopt_one(slot->value, reterr);
	return r < 0 ? r : clean_run_dir(b, reterr);
}

static bool on_detached(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	return true;
}

void vms_adopt_door(struct broker *b, struct workspace *w, uint64_t vm, uint64_t generation, int fds[3])
{
	struct vm *v = map_get(&b->vms, vm);

	if (!v || v->phase != PHASE_RUNNING || v->workspace != w || v->generation != generation) {
		const struct msg_vm_detach m = {.vm = vm};
		ipc_call(role_peer(workspace_role(w)), MSG_TYPE_msg_vm_detach, &m, NULL, 0, 0, on_detached, NULL);
		return;
	}
	int *const own[] = {&v->net.tcp_fd, &v->net.udp_fd, &v->net.nflog_fd};
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		if (*own[i] >= 0)
			close(*own[i]);
		*own[i] = take_fd(fds[i]);
	}
	v->attached = true;
}

bool vms_have_group(const struct broker *b, const char *name)
{
	if (str_has_prefix(str_of(name), STR("qemu-")) || str_has_prefix(str_of(name), STR("role-")))
		return is_adopted(b, name + 5);
	return false;
}

bool vms_have_file(const struct broker *b, const char *file)
{
	return str_has_prefix(str_of(file), STR("vm-")) && is_adopted(b, file + 3);
}

/* --- left to the next irond --- */

static bool is_settled(const struct vm *v)
{
	return v->phase == PHASE_STOPPED || v->phase == PHASE_RUNNING ||
	       (v->phase == PHASE_STARTING && v->qemu.pidfd >= 0);
}

unsigned vms_unsettled(const struct broker *b)
{
	struct map_slot *slot;
	unsigned n = 0;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot))
		n += !is_settled(slot->value);
	return n;
}

void vms_settle(struct broker *b)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot))
		if (!is_settled(slot->value))
			vm_run_kill(slot->value);
}

static void leave_one(struct vm *v)
{
	role_leave(take_ptr(v->role));
	if (v->qemu_ended)
		event_free(take_ptr(v->qemu_ended));
	if (v->qemu.pidfd >= 0)
		close(take_fd(v->qemu.pidfd));
	vm_net_close(&v->net);
	if (v->names_fd >= 0)
		close(take_fd(v->names_fd));
	cgroup_destroy(take_ptr(v->group));
	cgroup_destroy(take_ptr(v->role_group));
	v->workspace = NULL;
	v->phase = PHASE_STOPPED;
}

void vms_leave(struct broker *b)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot))
		leave_one(slot->value);
}
