#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "broker/broker_conf.h"
#include "broker/vm_impl.h"
#include "model/spec.h"
#include "os/fdutil.h"
#include "os/ipc.h"
#include "os/pidfd.h"

#define START_TIMEOUT_MS 60000
#define KILL_AGAIN_MS 1000
#define RELEASE_AGAIN_MS 20
#define DOOR_TIMEOUT_MS 5000
#define END_TIMEOUT_MS 2000
#define ROLE_GRACE_MS 2000
#define QEMU_PIDS 128
#define ROLE_MEMORY_MIB 256
#define ROLE_PIDS 8

static void teardown(struct vm *v);
static void teardown_step(struct vm *v);

static void arm(struct vm *v, unsigned ms)
{
	const struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};

	event_add(v->timer, &tv);
}

/* --- the end of a run --- */

static char *pin_path(const struct vm *v)
{
	return xasprintf("%s/net", v->run_dir);
}

/* False: something in it is on its way out still. A process leaves the list of its group's before it has left the
 * group. */
bool vm_drop_group(struct cgroup **g)
{
	int r = *g ? cgroup_remove(*g) : 0;

	if (r == -EBUSY)
		return false;
	if (r < 0)
		log_warn("cgroup not removed", "reason=%s", log_quote(strerror(-r)));
	cgroup_destroy(take_ptr(*g));
	return true;
}

/* What a start made, in reverse. Nothing of the VM runs any more. */
void vm_release_run(struct vm *v)
{
	_cleanup_free_ char *pin = pin_path(v);

	event_del(v->timer);
	role_destroy(take_ptr(v->role));
	if (v->qemu_ended)
		event_free(take_ptr(v->qemu_ended));
	if (v->qemu.pidfd >= 0)
		close(take_fd(v->qemu.pidfd));
	v->qemu.pid = 0;
	vm_net_close(&v->net);
	if (v->names_fd >= 0)
		close(take_fd(v->names_fd));
	vm_net_unpin(pin);
	int r = dir_remove(v->run_dir);
	if (r < 0)
		log_warn("run directory not removed", "path=%s reason=%s", log_quote(v->run_dir),
			 log_quote(strerror(-r)));
	v->attached = false;
	if (v->workspace)
		workspace_release(take_ptr(v->workspace));
}

static void announce_end(struct vm *v)
{
	struct ipc_peer *control = role_peer(v->b->control);
	_cleanup_(buf_finish) struct buf usage = {0};
	const struct msg_vm_exited m = {.vm = v->record.vm,
					.generation = v->generation,
					.status = v->status,
					.reason = str_of(v->reason),
					.usage = vm_usage_encode(v, &usage)};

	log_info("vm ended", "vm=%s reason=%s", v->text, log_quote(v->reason));
	if (v->announced && control)
		ipc_notify(control, MSG_TYPE_msg_vm_exited, &m, NULL, 0);
	v->announced = false;
}

static void finish(struct vm *v)
{
	struct broker *b = v->b;

	vm_release_run(v);
	v->phase = PHASE_STOPPED;
	announce_end(v);
	if (v->starter.txn) {
		if (v->start_error.code == 0)
			error_set(&v->start_error, -ECANCELED, "the VM ended while it was started: %s", v->reason);
		broker_answer(b, v->starter, v->start_error.code, v->start_error.text, 0);
		v->starter = (struct reply){0};
	}
	for (size_t i = 0; i < v->killers.n; i++)
		broker_answer(b, v->killers.v[i], 0, "", 0);
	v->killers.n = 0;
	broker_stop_step(b);
}

static bool on_detached(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct vm *v = arg;

	v->detaching = v->attached = false;
	if (v->phase == PHASE_STOPPING)
		teardown_step(v);
	return true;
}

static void detach(struct vm *v)
{
	struct ipc_peer *egress = v->workspace ? workspace_peer(v->workspace) : NULL;
	const struct msg_vm_detach m = {.vm = v->record.vm};

	if (v->detaching || !v->attached)
		return;
	v->detaching =
		egress && ipc_call(egress, MSG_TYPE_msg_vm_detach, &m, NULL, 0, DOOR_TIMEOUT_MS, on_detached, v) == 0;
	if (!v->detaching)
		v->attached = false;
}

/* QEMU first: what it still sent belongs to the record; then the others, at the same time. */
static void teardown_step(struct vm *v)
{
	if (v->qemu.pidfd >= 0 || (v->group && !cgroup_is_empty(v->group)))
		return;
	detach(v);
	if (v->role && role_state(v->role) != ROLE_DOWN) {
		role_stop(v->role, ROLE_GRACE_MS);
		return;
	}
	if (v->role)
		role_stop(v->role, 0); /* a restart that is due */
	if (v->attaching || v->detaching)
		return;
	if (vm_drop_group(&v->group) && vm_drop_group(&v->role_group))
		finish(v);
	else
		arm(v, RELEASE_AGAIN_MS);
}

static void teardown(struct vm *v)
{
	if (v->phase == PHASE_STOPPING)
		return;
	v->phase = PHASE_STOPPING;
	if (v->group)
		cgroup_kill(v->group);
	arm(v, KILL_AGAIN_MS);
	teardown_step(v);
}

static void fail_start(struct vm *v, int code, const char *reason)
{
	error_set(&v->start_error, code, "%s", reason);
	snprintf(v->reason, sizeof v->reason, "%s", v->start_error.text);
	teardown(v);
}

/* STARTING: it took too long. STOPPING: look again; what QEMU left in its group is killed again. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct vm *v = arg;

	if (v->phase == PHASE_STARTING) {
		fail_start(v, -ETIMEDOUT, "the VM's processes did not start in time; irond's log says which");
		return;
	}
	if (v->phase != PHASE_STOPPING)
		return;
	if (v->group && !cgroup_is_empty(v->group))
		cgroup_kill(v->group);
	arm(v, KILL_AGAIN_MS);
	teardown_step(v);
}

void vm_set_exit_reason(struct vm *v, int status)
{
	char text[WAIT_TEXT_SIZE];

	v->exited = true;
	v->status = status;
	wait_status_format(status == VM_STATUS_UNSEEN ? 0 : status, text);
	if (v->group && cgroup_oom_kills(v->group) > 0)
		snprintf(v->reason, sizeof v->reason, "out of memory: QEMU needed more than its limit");
	else if (v->killed || v->b->stopping == STOP_VMS)
		snprintf(v->reason, sizeof v->reason, "killed");
	else if (status == VM_STATUS_UNSEEN)
		snprintf(v->reason, sizeof v->reason,
			 "QEMU ended while irond was away; its last words are in qemu.log of the VM's directory");
	else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		snprintf(v->reason, sizeof v->reason, "powered off");
	else
		snprintf(v->reason, sizeof v->reason, "QEMU %s; its last words are in qemu.log of the VM's directory",
			 text);
}

static void qemu_has_ended(struct vm *v, int status)
{
	vm_set_exit_reason(v, status);
	if (v->phase == PHASE_STOPPING)
		teardown_step(v);
	else if (v->phase == PHASE_STARTING)
		fail_start(v, -EIO, v->reason);
	else
		teardown(v);
}

static bool on_end_told(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct vm *v = arg;
	bool announced = m && m->info->type == MSG_TYPE_msg_result && IPC_RECORD(m, msg_result)->value == 1;

	if (v->phase == PHASE_STOPPING) /* killed meanwhile: it is waiting for nothing */
		vm_set_exit_reason(v, announced ? 0 : VM_STATUS_UNSEEN);
	else
		qemu_has_ended(v, announced ? 0 : VM_STATUS_UNSEEN);
	return true;
}

/* An adopted QEMU is another's child: how it ended only its iron-vm may have heard. */
static void ask_how_it_ended(struct vm *v)
{
	struct ipc_peer *peer = v->role && v->phase == PHASE_RUNNING ? role_peer(v->role) : NULL;

	if (ipc_call(peer, MSG_TYPE_msg_vm_end_get, &(struct msg_vm_end_get){}, NULL, 0, END_TIMEOUT_MS, on_end_told, v) < 0)
		qemu_has_ended(v, VM_STATUS_UNSEEN);
}

static void on_qemu_ended(evutil_socket_t fd, short what, void *arg)
{
	struct vm *v = arg;
	int status = 0, r;

	vm_usage_read(v);
	r = pidfd_reap(v->qemu.pidfd, &status);
	if (r == -EAGAIN)
		return;
	event_free(take_ptr(v->qemu_ended));
	close(take_fd(v->qemu.pidfd));
	if (r < 0)
		ask_how_it_ended(v);
	else
		qemu_has_ended(v, status);
}

/* --- iron-vm --- */

static int role_configure(struct role_proc *r, int fd, void *user, struct error *reterr)
{
	struct vm *v = user;

	return config_send_vm(v->b, v->run_dir, v->record.vm, v->generation, fd, reterr);
}

static void role_up(struct role_proc *r, void *user)
{
	struct vm *v = user;

	if (v->phase != PHASE_STARTING && v->phase != PHASE_RUNNING)
		return;
	broker_link(v->b, r);
	if (v->phase == PHASE_RUNNING)
		return;
	v->phase = PHASE_RUNNING;
	v->announced = true;
	event_del(v->timer);
	log_info("vm runs", "vm=%s generation=%lu qemu=%d", v->text, v->generation, v->qemu.pid);
	broker_answer(v->b, v->starter, 0, "", 0);
	v->starter = (struct reply){0};
}

static void role_down(struct role_proc *r, int status, const char *reason, bool again, void *user)
{
	struct vm *v = user;

	if (v->phase == PHASE_STOPPING)
		teardown_step(v);
	else if (v->phase == PHASE_STARTING)
		fail_start(v, -EIO, reason);
}

static const struct role_ops role_ops = {.configure = role_configure, .up = role_up, .down = role_down};

void vm_make_role(struct vm *v)
{
	const uid_t uid = uids_vm(v->b->uids, v->record.slot);

	v->role = role_create(&v->b->role_host, &(struct role_setup){.kind = ROLE_VM,
								     .id = v->record.vm,
								     .name = "iron-vm",
								     .uid = uid,
								     .gid = uid,
								     .cgroup = v->role_group,
								     .ops = &role_ops,
								     .user = v});
}

/* --- QEMU --- */

int vm_watch_qemu(struct vm *v, struct error *reterr)
{
	v->qemu_ended = event_new(v->b->base, v->qemu.pidfd, EV_READ | EV_PERSIST, on_qemu_ended, v);
	if (!v->qemu_ended || event_add(v->qemu_ended, NULL) < 0)
		return error_set(reterr, -ENOMEM, "watching QEMU: out of memory");
	return 0;
}

static int open_disk(const struct vm *v, const struct image_files *image, int *ret_fd, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/overlay.qcow2", v->dir);

	*ret_fd = -1;
	if (image->disk_fd < 0)
		return 0;
	*ret_fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return *ret_fd < 0 ? error_set(reterr, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int open_log(const struct vm *v, int *ret_fd, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/qemu.log", v->dir);

	*ret_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return *ret_fd < 0 ? error_set(reterr, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int start_qemu(struct vm *v, struct error *reterr)
{
	_cleanup_(image_files_close) struct image_files image = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1};
	_cleanup_close_ int disk = -1;
	_cleanup_close_ int log = -1;
	const uid_t uid = uids_qemu(v->b->uids, v->record.slot);
	const struct conf_limits *limits = &v->b->conf->limits;
	struct qemu_args a = {
		.vm = v->record.vm,
		.uid = uid,
		.gid = uid,
		.vcpus = v->record.vcpus,
		.memory_mib = v->record.memory_mib,
		.kvm = v->b->accel.kvm,
		.tsc_khz = v->b->accel.tsc_khz,
		.image = &image,
		.disk_limits = {.iops = limits->disk_iops,
				.iops_burst = limits->disk_iops_burst,
				.mib_per_s = limits->disk_mib_per_s,
				.mib_per_s_burst = limits->disk_mib_per_s_burst,
				.burst_s = limits->disk_burst_s},
		.tap_fd = v->net.tap_fd,
		.run_dir = v->run_dir,
	};
	int r;

	if ((r = image_open(v->b->conf->state_dir, v->record.image, &image, reterr)) < 0 ||
	    (r = open_disk(v, &image, &disk, reterr)) < 0 || (r = open_log(v, &log, reterr)) < 0)
		return r;
	a.overlay_fd = disk;
	a.log_fd = log;
	a.cgroup_procs = cgroup_procs(v->group, &a.n_cgroup_procs);
	r = qemu_spawn(&a, &v->qemu, reterr);
	if (r < 0) {
		v->qemu = (struct qemu_process){.pidfd = -1};
		return r;
	}
	if ((r = vm_watch_qemu(v, reterr)) < 0)
		return r;
	vm_note_qemu(v);
	return 0;
}

/* --- the door --- */

static void door_is_open(struct vm *v)
{
	struct error e = {0};
	int r;

	if (v->phase != PHASE_STARTING || v->qemu.pidfd >= 0)
		return;
	if ((r = start_qemu(v, &e)) == 0) {
		vm_make_role(v);
		r = role_start(v->role, &e);
	}
	if (r < 0)
		fail_start(v, r, e.text);
}

/* A VM that runs keeps running: nothing passes a door without a worker. */
static void door_refused(struct vm *v, struct str why)
{
	char reason[256];

	snprintf(reason, sizeof reason, "the egress worker refused the VM's door: %.*s", STR_ARG(why));
	log_error("door not attached", "vm=%s reason=%s", v->text, log_quote(reason));
	if (v->phase == PHASE_STARTING)
		fail_start(v, -EIO, reason);
}

static bool on_attached(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct vm *v = arg;
	const struct msg_result *result = m && m->info->type == MSG_TYPE_msg_result ? IPC_RECORD(m, msg_result) : NULL;

	v->attaching = false;
	v->attached = result && result->code == 0;
	if (v->phase == PHASE_STOPPING)
		teardown_step(v);
	else if (v->attached)
		door_is_open(v);
	else if (m) /* without an answer it died: asked again when it is up */
		door_refused(v, result ? result->reason : STR("protocol"));
	return true;
}

/* The sockets of a worker that died while irond was away died with it. */
static int reopen_door(struct vm *v)
{
	_cleanup_free_ char *pin = pin_path(v);
	struct vm_net net;
	struct error e = {0};
	int r = vm_net_reopen(pin, &net, &e);

	if (r < 0) {
		log_error("door not opened again", "vm=%s reason=%s", v->text, log_quote(e.text));
		return r;
	}
	net.tap_fd = v->net.tap_fd;
	v->net = net;
	return 0;
}

static void attach(struct vm *v)
{
	if (v->net.tcp_fd < 0 && reopen_door(v) < 0)
		return;
	const int fds[] = {v->net.tcp_fd, v->net.udp_fd, v->net.nflog_fd, v->names_fd};
	const struct msg_vm_attach m = {.vm = v->record.vm, .generation = v->generation, .name = str_of(v->text)};
	struct ipc_peer *egress = workspace_peer(v->workspace);

	/* A worker that is not up yet is asked when it is; the start's timer bounds that. */
	if (egress && !v->attaching)
		v->attaching = ipc_call(egress, MSG_TYPE_msg_vm_attach, &m, fds, ARRAY_SIZE(fds), DOOR_TIMEOUT_MS,
					on_attached, v) == 0;
}

void vms_worker_up(struct broker *b, struct workspace *w)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot)) {
		struct vm *v = slot->value;
		if (v->workspace == w && !v->attached && (v->phase == PHASE_STARTING || v->phase == PHASE_RUNNING))
			attach(v);
	}
}

void vms_worker_gone(struct broker *b, struct workspace *w, const char *why)
{
	struct map_slot *slot;
	size_t i = 0;

	while (map_next(&b->vms, &i, &slot)) {
		struct vm *v = slot->value;
		char reason[256];
		if (v->workspace != w)
			continue;
		v->attached = false;
		if (!why || v->phase != PHASE_STARTING || v->qemu.pidfd >= 0)
			continue;
		snprintf(reason, sizeof reason, "iron-egress did not start: %s", why);
		fail_start(v, -EIO, reason);
	}
}

/* --- the start --- */

int vm_make_groups(struct vm *v, bool take_running, struct error *reterr)
{
	int (*const make)(struct cgroup_host *, const char *, const struct cgroup_limits *, struct cgroup **,
			  struct error *) = take_running ? cgroup_take : cgroup_create;
	const struct cgroup_limits qemu = {
		.memory_bytes = ((uint64_t)v->record.memory_mib + SPEC_OVERHEAD_MIB) << 20,
		.cpu_percent = v->record.vcpus * 100,
		.cpu_weight = v->record.vcpus * CGROUP_WEIGHT_VCPU,
		.pids = QEMU_PIDS,
	};
	const struct cgroup_limits role = {.memory_bytes = (uint64_t)ROLE_MEMORY_MIB << 20,
					   .pids = ROLE_PIDS,
					   .cpu_weight = CGROUP_WEIGHT_ROLE};
	char name[40];
	int r;

	snprintf(name, sizeof name, "qemu-%s", v->text);
	if ((r = make(v->b->cgroups, name, &qemu, &v->group, reterr)) < 0)
		return r;
	snprintf(name, sizeof name, "role-%s", v->text);
	return make(v->b->cgroups, name, &role, &v->role_group, reterr);
}

static int make_names(struct vm *v, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/names", v->run_dir);

	v->names_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return v->names_fd < 0 ? error_set(reterr, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int prepare_run(struct vm *v, struct error *reterr)
{
	_cleanup_free_ char *pin = pin_path(v);
	int r;

	vm_net_unpin(pin);
	if ((r = dir_remove(v->run_dir)) < 0 || (r = dir_make(v->run_dir, 0700, 0, 0)) < 0)
		return error_set(reterr, r, "%s: %s", v->run_dir, strerror(-r));
	if ((r = vm_make_groups(v, false, reterr)) < 0 || (r = vm_net_create(pin, &v->net, reterr)) < 0 ||
	    (r = make_names(v, reterr)) < 0)
		return r;
	return workspace_acquire(v->b, v->record.workspace, &v->workspace, reterr);
}

void vm_make_timer(struct vm *v)
{
	if (!v->timer)
		v->timer = evtimer_new(v->b->base, on_timer, v);
	if (!v->timer)
		abort();
}

void vm_run(struct vm *v, uint64_t generation, struct reply to)
{
	struct error e = {0};
	int r;

	v->phase = PHASE_STARTING;
	v->generation = generation;
	v->starter = to;
	v->start_error = (struct error){0};
	v->usage = (struct rec_vm_usage){0};
	v->exited = v->killed = v->announced = false;
	v->reason[0] = '\0';
	vm_make_timer(v);
	arm(v, START_TIMEOUT_MS);
	if ((r = prepare_run(v, &e)) < 0)
		fail_start(v, r, e.text);
	else
		attach(v);
}

void vm_run_kill(struct vm *v)
{
	if (v->phase != PHASE_STARTING && v->phase != PHASE_RUNNING)
		return;
	v->killed = true;
	snprintf(v->reason, sizeof v->reason, "killed");
	teardown(v);
}

void vm_run_abandon(struct vm *v)
{
	int status;

	v->phase =
		v->phase == PHASE_STOPPED ? PHASE_STOPPED : PHASE_STOPPING; /* callbacks from here on start nothing */

	if (v->phase == PHASE_STOPPED)
		return;
	if (v->group)
		cgroup_kill(v->group);
	if (v->qemu.pidfd >= 0) {
		pidfd_signal(v->qemu.pidfd, SIGKILL);
		pidfd_wait(v->qemu.pidfd, -1, &status);
	}
	role_destroy(take_ptr(v->role));
	vm_release_run(v);
	if (!vm_drop_group(&v->group)) /* the next irond sweeps it */
		cgroup_destroy(take_ptr(v->group));
	if (!vm_drop_group(&v->role_group))
		cgroup_destroy(take_ptr(v->role_group));
	v->phase = PHASE_STOPPED;
}
