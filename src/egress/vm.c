#include "egress/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "egress/dns.h"
#include "egress/drops.h"

#define ACCEPTS_A_TURN 64

static void on_listener(evutil_socket_t fd, short what, void *arg)
{
	vm_accept(arg);
}

static void on_udp(evutil_socket_t fd, short what, void *arg)
{
	dns_udp_ready(arg);
}

static void on_nflog(evutil_socket_t fd, short what, void *arg)
{
	struct door_vm *vm = arg;
	drops_read(fd, &vm->tally);
}

void vm_accept(struct door_vm *vm)
{
	for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
		int fd = accept4(vm->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			conn_create(vm, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			log_limited(LOG_LEVEL_WARN, 1, "cannot accept", "vm=%s reason=%s", log_id("vm_", vm->id),
				    log_quote(strerror(errno)));
			event_del(&vm->listener_event);
			vm->paused = true;
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

void vm_pause(struct door_vm *vm, bool pause)
{
	if (pause) {
		event_del(&vm->listener_event);
		event_del(&vm->udp_event);
	} else {
		event_add(&vm->listener_event, NULL);
		event_add(&vm->udp_event, NULL);
	}
}

static int watch(struct door_vm *vm, int fd, struct event *event, event_callback_fn callback)
{
	evutil_make_socket_nonblocking(fd);
	if (event_assign(event, vm->door->base, fd, EV_READ | EV_PERSIST, callback, vm) || event_add(event, NULL))
		return -ENOMEM;
	return 0;
}

static int watch_all(struct door_vm *vm, struct error *reterr)
{
	int r = dns_udp_prepare(vm->udp);
	if (r)
		return error_set(reterr, r, "the descriptor for DNS is no UDP socket");
	if (watch(vm, vm->listener, &vm->listener_event, on_listener) || watch(vm, vm->udp, &vm->udp_event, on_udp) ||
	    watch(vm, vm->nflog, &vm->nflog_event, on_nflog))
		return error_set(reterr, -ENOMEM, "cannot watch the VM's descriptors");
	return 0;
}

int vm_attach(struct door *door, const struct msg_vm_attach *m, int fds[4], struct error *reterr)
{
	if (map_get(&door->vms, m->vm))
		return error_set(reterr, -EEXIST, "the VM is attached already");
	if (m->vm == 0)
		return error_set(reterr, -EINVAL, "a VM's id is never 0");
	struct door_vm *vm = xcalloc(1, sizeof *vm);
	*vm = (struct door_vm){.door = door,
			       .id = m->vm,
			       .generation = m->generation,
			       .listener = take_fd(fds[0]),
			       .udp = take_fd(fds[1]),
			       .nflog = take_fd(fds[2])};
	str_copy(m->name, vm->name, sizeof vm->name);
	int r = names_open(fds[3], door->synthetic_base, door->synthetic_prefix, real_ms(), &vm->names, reterr);
	if (r == 0)
		r = watch_all(vm, reterr);
	if (r) {
		vm_destroy(vm);
		return r;
	}
	map_put(&door->vms, vm->id, vm);
	return 0;
}

static void unwatch(int *fd, struct event *event)
{
	if (event_initialized(event))
		event_del(event);
	if (*fd >= 0)
		close(take_fd(*fd));
}

void vm_destroy(struct door_vm *vm)
{
	if (!vm)
		return;
	while (vm->conns)
		conn_abort(vm->conns);
	unwatch(&vm->listener, &vm->listener_event);
	unwatch(&vm->udp, &vm->udp_event);
	unwatch(&vm->nflog, &vm->nflog_event);
	tally_write(&vm->tally, vm->door->journal, vm->id, vm->door->workspace);
	if (map_get(&vm->door->vms, vm->id) == vm)
		map_remove(&vm->door->vms, vm->id);
	policy_destroy(vm->policy);
	policy_destroy(vm->coming);
	names_close(vm->names);
	free(vm);
}

/* A phase's callback may destroy its own connection, so the next one is remembered before. It never destroys another.
 */
void vm_tick(struct door_vm *vm, uint64_t now_ms, bool second)
{
	struct conn *next;

	if (vm->paused && !vm->door->paused) {
		vm->paused = false;
		event_add(&vm->listener_event, NULL);
	}
	for (struct conn *c = vm->conns; c; c = next) {
		next = c->next;
		c->phase->on_tick(c, now_ms);
	}
	if (second)
		tally_write(&vm->tally, vm->door->journal, vm->id, vm->door->workspace);
}

/* --- policy --- */

int vm_policy_begin(struct door_vm *vm, const struct msg_policy_begin *m)
{
	policy_destroy(vm->coming);
	vm->coming = policy_create(m->mode == MODE_WARN ? MODE_WARN : MODE_ENFORCE);
	vm->coming_version = m->version;
	vm->coming_rules = m->rules;
	vm->coming_got = 0;
	vm->coming_broken = false;
	return 0;
}

void vm_policy_rule(struct door_vm *vm, const struct msg_policy_rule *m)
{
	if (!vm->coming || m->version != vm->coming_version)
		return;
	vm->coming_got++;
	if (vm->coming_got > vm->coming_rules || policy_add_encoded(vm->coming, m->rule))
		vm->coming_broken = true;
}

int vm_policy_commit(struct door_vm *vm, const struct msg_policy_commit *m, struct error *reterr)
{
	struct conn *next;

	if (m->version < vm->policy_version)
		return error_set(reterr, -ESTALE, "version %llu holds already", (unsigned long long)vm->policy_version);
	if (!vm->coming || m->version != vm->coming_version || vm->coming_got != vm->coming_rules)
		return error_set(reterr, -EPROTO, "the rules that came are not the rules that were announced");
	if (vm->coming_broken)
		return error_set(reterr, -EBADMSG, "a rule is not in canonical form");
	policy_seal(vm->coming);
	struct policy *old = vm->policy;
	vm->policy = take_ptr(vm->coming);
	vm->policy_version = m->version;
	for (struct conn *c = vm->conns; c; c = next) {
		next = c->next;
		c->phase->on_policy(c);
	}
	policy_destroy(old);
	return 0;
}
