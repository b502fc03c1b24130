#include "broker/broker.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/broker_conf.h"
#include "broker/broker_impl.h"
#include "broker/certificate.h"
#include "broker/ctl.h"
#include "broker/log_file.h"
#include "broker/requests.h"
#include "broker/run_record.h"
#include "broker/vms.h"
#include "broker/workspaces.h"
#include "os/sandbox.h"

#define ROLE_GRACE_MS 5000
#define REAP_RETRY_MS 200

void broker_progress(const struct broker *b, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!b->options.progress)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	b->options.progress(line, b->options.user);
}

void broker_fail(struct broker *b, const char *reason)
{
	error_set(&b->failure, -EIO, "%s", reason);
	event_base_loopbreak(b->base);
}

/* --- images --- */

const struct image *broker_find_image(const struct broker *b, uint64_t id)
{
	for (size_t i = 0; i < b->images.n; i++)
		if (b->images.v[i].id == id)
			return &b->images.v[i];
	return NULL;
}

int broker_rescan_images(struct broker *b, struct error *reterr)
{
	struct image_list images = {0};
	int r = image_scan(b->conf->state_dir, &images, reterr);

	if (r < 0)
		return r;
	image_list_finish(&b->images);
	b->images = images;
	if (b->ready)
		send_images(b);
	return 0;
}

/* At a start, before anyone can ask for a VM: images that a newer one of their name has replaced, or whose making was cut
 * short, and that no VM was made of, go. The list is newest first. */
static void prune_images(struct broker *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->images.n; i++) {
		const struct image *image = &b->images.v[i];
		bool replaced = image->name[0] == '.'; /* in the making, by a build that is no more */
		for (size_t k = 0; k < kept && !replaced; k++)
			replaced = strcmp(b->images.v[k].name, image->name) == 0;
		if (replaced && !vms_use_image(b, image->id) && image_remove(b->conf->state_dir, image->id) == 0)
			log_info("replaced image removed", "image=%s name=%s", log_id("img_", image->id), log_quote(image->name));
		else
			b->images.v[kept++] = *image;
	}
	b->images.n = kept;
}

/* --- stopping --- */

static bool is_down(const struct role_proc *r)
{
	return role_state(r) == ROLE_DOWN;
}

static void stop_services(struct broker *b)
{
	broker_progress(b, "stopping the roles");
	workspaces_stop(b, true);
	role_stop(b->api, ROLE_GRACE_MS);
	role_stop(b->control, ROLE_GRACE_MS);
}

/* What nobody needs goes now; the rest is the next irond's. */
static void leave_step(struct broker *b)
{
	if (!is_down(b->control) || vms_unsettled(b) > 0)
		return;
	workspaces_stop(b, false);
	b->stopping = STOP_DONE;
	event_base_loopbreak(b->base);
}

static void leave(struct broker *b)
{
	char line[80];
	unsigned n = vms_running(b);

	log_info("stopping; its VMs run on", "vms=%u", n);
	b->stopping = STOP_LEAVING;
	b->leave = true;
	snprintf(line, sizeof line, "%u VM%s on; irond start takes %s up again", n, n == 1 ? " runs" : "s run",
		 n == 1 ? "it" : "them");
	ctl_server_say(b->ctl, line);
	role_stop(b->control, ROLE_GRACE_MS);
	vms_settle(b);
	leave_step(b);
}

void broker_stop_step(struct broker *b)
{
	if (b->stopping == STOP_LEAVING)
		leave_step(b);
	if (b->stopping == STOP_VMS && vms_running(b) == 0) {
		b->stopping = STOP_SERVICES;
		stop_services(b);
	}
	if (b->stopping == STOP_SERVICES && is_down(b->api) && is_down(b->control) && b->workspaces.n == 0) {
		b->stopping = STOP_AUDIT;
		role_stop(b->audit, ROLE_GRACE_MS);
	}
	if (b->stopping == STOP_AUDIT && is_down(b->audit)) {
		b->stopping = STOP_DONE;
		event_base_loopbreak(b->base);
	}
}

static void on_stop_timer(evutil_socket_t fd, short what, void *user)
{
	vms_stop(user, true);
}

void broker_stop(struct broker *b, bool vms)
{
	const struct timeval tv = {.tv_sec = b->conf->limits.stop_timeout_s};
	unsigned n = vms_running(b);

	if (b->stopping == STOP_LEAVING)
		return;
	if (!vms && n > 0 && !b->stopping) {
		leave(b);
		return;
	}
	if (b->stopping) {
		vms_stop(b, true);
		return;
	}
	log_info("stopping", "vms=%u", n);
	b->stopping = STOP_VMS;
	if (n > 0) {
		char line[80];
		snprintf(line, sizeof line, "stopping %u VM%s, at most %u s", n, n == 1 ? "" : "s",
			 b->conf->limits.stop_timeout_s);
		ctl_server_say(b->ctl, line);
	}
	event_add(b->stop_timer, &tv);
	vms_stop(b, false);
	broker_stop_step(b);
}

/* --- reload --- */

static const char *fixed_key_changed(const struct conf *a, const struct conf *b)
{
	if (strcmp(a->state_dir, b->state_dir) != 0)
		return "state_dir";
	if (strcmp(a->run_dir, b->run_dir) != 0)
		return "run_dir";
	if (strcmp(a->instance, b->instance) != 0)
		return "instance";
	if (strcmp(a->cgroup_root, b->cgroup_root) != 0)
		return "cgroup_root";
	if (strcmp(a->sandbox, b->sandbox) != 0)
		return "sandbox";
	return a->uid_base != b->uid_base ? "uid_base" : NULL;
}

static bool listen_changed(const struct conf *a, const struct conf *b)
{
	bool changed = a->listen_count != b->listen_count || strcmp(a->metrics_listen, b->metrics_listen) != 0;

	for (unsigned i = 0; !changed && i < a->listen_count; i++)
		changed = strcmp(a->listen[i], b->listen[i]) != 0;
	return changed;
}

struct restart_plan {
	bool changed[ROLE_WORKER + 1];
};

static int make_plan(const struct buf old[], const struct conf *next, struct restart_plan *ret, struct error *reterr)
{
	static const enum role kinds[] = {ROLE_API, ROLE_CONTROL, ROLE_VM, ROLE_EGRESS, ROLE_AUDIT};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		_cleanup_(buf_finish) struct buf now = {0};
		int r = config_fingerprint(next, kinds[i], &now, reterr);
		if (r < 0)
			return r;
		ret->changed[kinds[i]] = !str_eq(buf_str(&old[kinds[i]]), buf_str(&now));
	}
	return 0;
}

static void restart_changed(struct role_proc *r, void *user)
{
	const struct restart_plan *plan = user;

	if (!plan->changed[role_kind(r)])
		return;
	log_info("restarted for its new configuration", "name=%s pid=%d", role_name(r), role_pid(r));
	role_restart(r, ROLE_GRACE_MS);
}

/* What the running roles were told: taken when they are told, since the certificate's file may have been replaced. */
int broker_remember_conf(struct broker *b, struct error *reterr)
{
	int r = 0;

	for (unsigned k = 0; r == 0 && k < ARRAY_SIZE(b->told); k++) {
		buf_clear(&b->told[k]);
		r = config_fingerprint(b->conf, (enum role)k, &b->told[k], reterr);
	}
	return r;
}

static int apply(struct broker *b, struct conf *next, struct error *reterr)
{
	struct restart_plan plan = {{false}};
	struct listeners *listeners = NULL;
	int r = make_plan(b->told, next, &plan, reterr);

	if (r == 0 && listen_changed(b->conf, next))
		r = listeners_open(next, b->listeners, &listeners, reterr);
	if (r == 0)
		r = nft_host_install(next, b->conf->uid_base, UIDS_WORKERS, reterr);
	if (r < 0) {
		listeners_close(listeners);
		return r;
	}
	if (listeners) {
		listeners_close(b->listeners);
		b->listeners = listeners;
	}
	conf_destroy(b->conf);
	b->conf = next;
	b->role_host.state_dir = next->state_dir;
	b->role_host.run_dir = next->run_dir;
	b->role_host.log_level = next->log_level;
	log_init("irond", conf_log_level(next));
	r = broker_remember_conf(b, reterr);
	broker_each_role(b, restart_changed, &plan);
	certificate_check(b);
	return r;
}

int broker_reload(struct broker *b, struct error *reterr)
{
	struct conf *next;
	const char *key;
	int r;

	if (!b->ready || b->stopping)
		return error_set(reterr, -EBUSY, "irond is starting or stopping");
	if ((r = conf_load(b->options.conf_path, &next, reterr)) < 0)
		return r;
	key = fixed_key_changed(b->conf, next);
	if (key)
		r = error_set(reterr, -EINVAL, "%s can be changed by irond stop and start only", key);
	else
		r = apply(b, next, reterr);
	if (b->conf != next)
		conf_destroy(next);
	return r < 0 ? r : broker_rescan_images(b, reterr);
}

/* --- signals --- */

static void on_signal(evutil_socket_t sig, short what, void *user)
{
	struct broker *b = user;
	struct error e = {0};

	if (sig != SIGHUP)
		broker_stop(b, false);
	else if (broker_reload(b, &e) < 0)
		log_error("not reloaded", "reason=%s", log_quote(e.text));
}

struct is_ours {
	pid_t pid;
	bool yes;
};

static void compare_pid(struct role_proc *r, void *user)
{
	struct is_ours *o = user;

	o->yes = o->yes || role_pid(r) == o->pid;
}

/* irond is the subreaper of what its children leave. Its own children are reaped by their pidfds; the rest here. */
static void reap_orphans(struct broker *b)
{
	for (;;) {
		siginfo_t info = {0};
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
			return;
		struct is_ours ours = {.pid = info.si_pid};
		broker_each_role(b, compare_pid, &ours);
		if (ours.yes || vms_have_pid(b, info.si_pid)) {
			/* It hides those behind it until its own event has run. */
			const struct timeval tv = {.tv_usec = REAP_RETRY_MS * 1000};
			event_add(b->reap_timer, &tv);
			return;
		}
		waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
	}
}

static void on_child(evutil_socket_t sig, short what, void *user)
{
	reap_orphans(user);
}

static int add_signals(struct broker *b, struct error *reterr)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};

	signal(SIGPIPE, SIG_IGN);
	b->stop_timer = evtimer_new(b->base, on_stop_timer, b);
	b->reap_timer = evtimer_new(b->base, on_child, b);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		b->signals[i] = evsignal_new(b->base, numbers[i], numbers[i] == SIGCHLD ? on_child : on_signal, b);
		if (!b->signals[i] || event_add(b->signals[i], NULL) < 0)
			return error_set(reterr, -ENOMEM, "out of memory");
	}
	b->log_timer = log_file_watch(b->base, b->conf->state_dir);
	if (!b->stop_timer || !b->reap_timer)
		return error_set(reterr, -ENOMEM, "out of memory");
	return certificate_watch(b, reterr);
}

/* --- life --- */

static int check_walls(const struct broker *b, struct error *reterr)
{
	struct sandbox_report report;

	sandbox_probe(&report);
	if (b->role_host.degraded || (report.landlock_abi > 0 && report.seccomp))
		return 0;
	return error_set(reterr, -ENOSYS, "this kernel has no %s; `sandbox: degraded` in iron.yaml starts without it",
			 report.seccomp ? "Landlock (5.13 or later, with lsm=landlock)" : "seccomp filters");
}

/* About twenty descriptors a VM; the roles set their own, lower limits. */
static void raise_file_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur == l.rlim_max)
		return;
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		log_warn("the limit of open files stays low", "error=%s", log_quote(strerror(errno)));
}

/* An iron-api that is adopted has them, and will say so. */
static int open_listeners(struct broker *b, struct error *reterr)
{
	return role_state(b->api) == ROLE_DOWN ? listeners_open(b->conf, NULL, &b->listeners, reterr) : 0;
}

static uint64_t config_mark(enum role kind, void *user)
{
	const struct broker *b = user;

	return run_mark(b->told[kind].data, b->told[kind].len);
}

static int setup(struct broker *b, struct error *reterr)
{
	_cleanup_free_ char *socket = xasprintf("%s/irond.sock", b->conf->run_dir);
	int r;

	if ((r = check_walls(b, reterr)) < 0 || (r = broker_setup_host(b, reterr)) < 0 ||
	    (r = add_signals(b, reterr)) < 0)
		return r;
	broker_progress(b, "looking for an accelerator");
	if ((r = accel_get(b->conf, &b->accel, reterr)) < 0)
		return r;
	broker_progress(b, "accelerator: %s (%s)", b->accel.kvm ? "kvm" : "tcg", b->accel.reason);
	if ((r = broker_rescan_images(b, reterr)) < 0 || (r = vms_load(b, reterr)) < 0 ||
	    (r = broker_remember_conf(b, reterr)) < 0 || (r = broker_adopt(b, reterr)) < 0)
		return r;
	prune_images(b);
	if ((r = nft_host_install(b->conf, b->conf->uid_base, UIDS_WORKERS, reterr)) < 0 ||
	    (r = open_listeners(b, reterr)) < 0 || (r = ctl_server_create(b, socket, &b->ctl, reterr)) < 0)
		return r;
	broker_progress(b, "starting the roles");
	return broker_start_roles(b, reterr);
}

int broker_create(const struct broker_options *options, struct conf *conf, struct broker **ret, struct error *reterr)
{
	struct broker *b = xcalloc(1, sizeof *b);
	int r;

	*b = (struct broker){.options = *options, .conf = conf, .lock_fd = -1, .leave = true, .started_at = real_ms()};
	b->base = event_base_new();
	if (!b->base)
		abort();
	b->role_host = (struct role_host){.base = b->base,
					  .libexec = options->libexec,
					  .state_dir = conf->state_dir,
					  .run_dir = conf->run_dir,
					  .log_level = conf->log_level,
					  .config_mark = config_mark,
					  .user = b,
					  .degraded = strcmp(conf->sandbox, "degraded") == 0};
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	raise_file_limit();
	r = setup(b, reterr);
	if (r < 0)
		broker_destroy(b);
	else
		*ret = b;
	return r;
}

int broker_run(struct broker *b, void (*ready)(void *user), void *user, struct error *reterr)
{
	b->on_ready = ready;
	b->on_ready_user = user;
	event_base_dispatch(b->base);
	if (b->failure.code)
		return error_set(reterr, b->failure.code, "%s", b->failure.text);
	log_info("stopped", NULL);
	return 0;
}

static void free_events(struct broker *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(b->signals); i++)
		if (b->signals[i])
			event_free(b->signals[i]);
	if (b->stop_timer)
		event_free(b->stop_timer);
	if (b->reap_timer)
		event_free(b->reap_timer);
	certificate_unwatch(b);
	if (b->log_timer)
		event_free(b->log_timer);
}

static void end_all(struct broker *b)
{
	vms_abandon(b);
	workspaces_destroy(b);
	vms_destroy(b);
	role_destroy(take_ptr(b->api));
	role_destroy(take_ptr(b->control));
	role_destroy(take_ptr(b->audit));
	broker_drop_role_groups(b);
	nft_host_remove(b->conf->instance);
}

static void leave_all(struct broker *b)
{
	vms_leave(b);
	workspaces_leave(b);
	vms_destroy(b);
	role_leave(take_ptr(b->api));
	role_destroy(take_ptr(b->control));
	role_leave(take_ptr(b->audit));
	for (size_t i = 0; i < ARRAY_SIZE(b->role_groups); i++)
		cgroup_destroy(take_ptr(b->role_groups[i]));
}

void broker_destroy(struct broker *b)
{
	if (!b)
		return;
	/* an end that nobody asked for takes no VM along */
	b->leave = b->leave || (b->stopping != STOP_DONE && vms_running(b) > 0);
	b->stopping = STOP_DONE;
	(b->leave ? leave_all : end_all)(b);
	if (b->ctl)
		ctl_server_goodbye(b->ctl);
	ctl_server_destroy(b->ctl);
	listeners_close(b->listeners);
	image_list_finish(&b->images);
	if (b->cgroups) /* as far as it is empty */
		cgroup_host_remove(b->cgroups);
	cgroup_host_destroy(b->cgroups);
	uids_destroy(b->uids);
	map_finish(&b->workspaces);
	for (size_t i = 0; i < ARRAY_SIZE(b->told); i++)
		buf_finish(&b->told[i]);
	free_events(b);
	event_base_free(b->base);
	conf_destroy(b->conf);
	free(b); /* the lock stays until the process is gone: `irond stop` waits for that */
}
