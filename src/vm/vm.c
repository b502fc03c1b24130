/* Theory of operation.
 *
 * Two things happen on their own: QEMU speaks (events of QMP) and the agent comes and goes (agent_link). The state
 * follows from them and from the contract:
 *
 *	BOOTING --agent up, contract's steps done--> READY --agent lost--> LOST --agent up--> BOOTING …
 *	any --RESET--> LOST, BOOTING        any --SHUTDOWN, QMP closed--> OFF
 *	BOOTING --deadline, step failed, agent gave up--> FAILED (stays, until a RESET or a new contract)
 *
 * A machine whose guest only waits (STOP by an I/O error, werror=stop) is LOST with the step "disk"; it is told to go
 * on every few seconds, and is what it was before as soon as QEMU says RESUME. */
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"
#include "vm/bridge.h"
#include "vm/console.h"
#include "vm/contract.h"
#include "vm/qmp_link.h"

#define AGENT_PORT "iron.0" /* QEMU's id of the port, and the guest's name for it */
#define BOOT_DEFAULT_MS 60000
#define TICK_MS 5000
#define CLOCK_EVERY_MS 60000
#define TRUST_AFTER_MS 60000 /* a guest that breaks the protocol now and again must not make work without end */
#define PING_EVERY_MS 15000
#define SILENCE_MS 45000
#define SHUTDOWN_DEFAULT_MS 20000

struct vm {
	uint64_t id, generation;
	uint32_t boot_timeout_ms;
	void (*report)(const struct msg_vm_state *state, void *user);
	void *user;
	struct qmp_link *qmp;
	struct agent_link *agent;
	struct console *console;
	struct contract *contract;
	struct bridge *bridge;
	struct event *boot_timer, *tick, *off_timer;
	enum vm_report state;
	char step[64], reason[513];
	uint64_t started_ms, ready_ms, clock_ms, ping_ms;
	bool stopping, pressed; /* told to power off; the power button too */
	bool io_error, paused;
	bool owes_ready;    /* a contract runs that was set while ready: its end is reported */
	bool announced_end; /* by SHUTDOWN */
	uint32_t off_ms;
};

static void arm(struct event *timer, uint32_t ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (long)(ms % 1000) * 1000};
	evtimer_add(timer, &tv);
}

void vm_report_again(struct vm *vm)
{
	struct msg_vm_state m = {
		.vm = vm->id,
		.generation = vm->generation,
		.state = (uint8_t)vm->state,
		.step = str_of(vm->step),
		.reason = str_of(vm->reason),
		.ms = (uint32_t)MIN(mono_ms() - vm->started_ms, (uint64_t)UINT32_MAX),
	};
	vm->report(&m, vm->user);
}

/* A reason may quote the guest: it leaves escaped for a terminal, and cut. */
static void set_state(struct vm *vm, enum vm_report state, const char *step, const char *reason)
{
	_cleanup_(buf_finish) struct buf shown = {0};

	vm->state = state;
	vm->owes_ready = false;
	snprintf(vm->step, sizeof vm->step, "%s", step);
	if (escape_terminal(str_of(reason), &shown))
		buf_clear(&shown);
	snprintf(vm->reason, sizeof vm->reason, "%.*s", STR_ARG(buf_str(&shown)));
	vm_report_again(vm);
}

static void fail(struct vm *vm, const char *step, const char *reason)
{
	evtimer_del(vm->boot_timer);
	contract_stop(vm->contract);
	bridge_lost(vm->bridge, reason);
	set_state(vm, VM_REPORT_FAILED, step, reason);
}

/* What the agent does no longer changes the state. */
static bool is_settled(const struct vm *vm)
{
	return vm->state == VM_REPORT_OFF || vm->state == VM_REPORT_FAILED || vm->stopping;
}

/* --- the agent --- */

static void begin_boot(struct vm *vm)
{
	set_state(vm, VM_REPORT_BOOTING, "boot", "");
	arm(vm->boot_timer, vm->boot_timeout_ms);
	agent_link_connect(vm->agent);
}

static void on_agent_up(void *user)
{
	struct vm *vm = user;

	evtimer_del(vm->boot_timer);
	vm->ping_ms = mono_ms();
	if (is_settled(vm))
		return;
	if (contract_is_set(vm->contract))
		contract_run(vm->contract);
	else
		set_state(vm, VM_REPORT_BOOTING, "contract", "");
}

static void on_agent_lost(const char *reason, void *user)
{
	struct vm *vm = user;

	contract_stop(vm->contract);
	bridge_lost(vm->bridge, reason);
	if (is_settled(vm))
		return;
	arm(vm->boot_timer, vm->boot_timeout_ms);
	if (vm->state == VM_REPORT_READY)
		set_state(vm, VM_REPORT_LOST, "agent", reason);
}

static void on_agent_failed(const char *reason, void *user)
{
	struct vm *vm = user;

	if (vm->state == VM_REPORT_OFF || vm->stopping)
		bridge_lost(vm->bridge, "the machine was stopped");
	else
		fail(vm, "agent", reason);
}

static bool on_agent_frame(const struct agent_frame *f, void *user)
{
	struct vm *vm = user;

	if (f->stream)
		return bridge_on_frame(vm->bridge, f);
	if (f->type == AGENT_STEP_DONE)
		return contract_on_done(vm->contract, f->payload);
	return f->type == AGENT_PONG;
}

static void on_agent_room(void *user)
{
	struct vm *vm = user;
	bridge_on_room(vm->bridge);
}

static const struct agent_link_ops agent_ops = {
	.up = on_agent_up,
	.lost = on_agent_lost,
	.failed = on_agent_failed,
	.on_frame = on_agent_frame,
	.on_room = on_agent_room,
};

static void on_step(const char *name, void *user)
{
	struct vm *vm = user;

	if (vm->state != VM_REPORT_READY)
		set_state(vm, VM_REPORT_BOOTING, name, "");
}

static void on_contract_done(const char *failed_step, const char *reason, void *user)
{
	struct vm *vm = user;

	if (failed_step) {
		fail(vm, failed_step, reason);
		return;
	}
	vm->clock_ms = mono_ms();
	if (vm->state == VM_REPORT_READY) {
		if (vm->owes_ready)
			vm_report_again(vm);
		vm->owes_ready = false;
		return;
	}
	vm->ready_ms = vm->clock_ms;
	set_state(vm, VM_REPORT_READY, "", "");
}

static const struct contract_ops contract_ops = {.step = on_step, .done = on_contract_done};

static void on_boot_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct vm *vm = arg;
	_cleanup_(buf_finish) struct buf reason = {0};

	buf_printf(&reason, "the guest's agent did not answer within %u s", vm->boot_timeout_ms / 1000);
	size_t before = reason.len;
	buf_append_z(&reason, "; its console ends: ");
	size_t with = reason.len;
	if (console_last_line(vm->console, 200, &reason) || reason.len == with)
		reason.len = before;
	_cleanup_free_ char *text = buf_take_z(&reason);
	agent_link_stop(vm->agent);
	fail(vm, "boot", text);
}

/* --- QEMU --- */

static void power_is_off(struct vm *vm, const char *reason)
{
	evtimer_del(vm->boot_timer);
	evtimer_del(vm->tick);
	contract_stop(vm->contract);
	agent_link_stop(vm->agent);
	bridge_lost(vm->bridge, "the machine was stopped");
	if (vm->state != VM_REPORT_OFF)
		set_state(vm, VM_REPORT_OFF, "", reason);
}

static void on_reset(struct vm *vm, const struct qmp_message *m)
{
	if (vm->stopping) { /* a guest that cannot power off restarts; that is not what was asked for */
		qmp_link_command(vm->qmp, "quit", NULL, NULL);
		return;
	}
	contract_stop(vm->contract);
	bridge_lost(vm->bridge, "the machine restarted");
	if (vm->state == VM_REPORT_BOOTING && strcmp(vm->step, "boot") == 0) {
		/* A guest may do nothing but restart: no report each time, and the first boot's deadline holds. */
		agent_link_connect(vm->agent);
		return;
	}
	set_state(vm, VM_REPORT_LOST, "boot", "the guest rebooted");
	begin_boot(vm);
}

static void on_shutdown_event(struct vm *vm, const struct qmp_message *m)
{
	char reason[64];

	snprintf(reason, sizeof reason, "%.*s", STR_ARG(qmp_string(m->data, "reason")));
	vm->announced_end = true;
	power_is_off(vm, reason);
}

/* The guest closed the agent's port: the agent ended, and another one will not know the nonce. Without this event (a
 * port without an id) only its silence would tell. That the port was opened may be heard after the agent itself: no
 * news. */
static void on_port(struct vm *vm, const struct qmp_message *m)
{
	bool ours =
		str_eq(qmp_string(m->data, "id"), STR(AGENT_PORT)) && json_is_false(json_object_get(m->data, "open"));

	if (!ours || !agent_link_is_up(vm->agent))
		return;
	agent_link_violation(vm->agent, "the guest's agent ended");
}

static void on_panic(struct vm *vm, const struct qmp_message *m)
{
	fail(vm, "kernel", "the guest's kernel panicked");
}

static void on_io_error(struct vm *vm, const struct qmp_message *m)
{
	if (str_eq(qmp_string(m->data, "action"), STR("stop")))
		vm->io_error = true;
}

static void on_stop(struct vm *vm, const struct qmp_message *m)
{
	static const char reason[] = "the host could not write the machine's disk; it is paused until it can";

	vm->paused = true;
	if (vm->io_error && vm->state == VM_REPORT_READY)
		set_state(vm, VM_REPORT_LOST, "disk", reason);
	else if (vm->io_error && vm->state == VM_REPORT_BOOTING)
		fail(vm, "disk", reason);
}

static void on_resume(struct vm *vm, const struct qmp_message *m)
{
	vm->paused = vm->io_error = false;
	vm->ping_ms = mono_ms();
	if (vm->state == VM_REPORT_LOST && agent_link_is_up(vm->agent) && contract_is_set(vm->contract))
		contract_run(vm->contract);
}

static void on_qmp_event(const struct qmp_message *m, void *user)
{
	static const struct {
		const char *name;
		void (*handle)(struct vm *vm, const struct qmp_message *m);
	} handlers[] = {
		{"RESET", on_reset},
		{"SHUTDOWN", on_shutdown_event},
		{"GUEST_PANICKED", on_panic},
		{"VSERPORT_CHANGE", on_port},
		{"STOP", on_stop},
		{"RESUME", on_resume},
		{"BLOCK_IO_ERROR", on_io_error},
	};
	struct vm *vm = user;

	for (size_t i = 0; i < ARRAY_SIZE(handlers) && vm->state != VM_REPORT_OFF; i++)
		if (strcmp(handlers[i].name, m->name) == 0)
			handlers[i].handle(vm, m);
}

static void on_qmp_closed(const char *reason, void *user)
{
	power_is_off(user, reason);
}

static const struct qmp_link_ops qmp_ops = {.event = on_qmp_event, .closed = on_qmp_closed};

/* A QEMU that was started with -S waits for this. */
static void on_status(const struct qmp_message *m, void *arg)
{
	struct vm *vm = arg;

	if (m && m->kind == QMP_RETURN && str_eq(qmp_string(m->data, "status"), STR("prelaunch")))
		qmp_link_command(vm->qmp, "cont", NULL, NULL);
}

/* --- time --- */

static void keep_alive(struct vm *vm, uint64_t now)
{
	uint64_t heard = MAX(agent_link_last_ms(vm->agent), vm->ping_ms);

	if (now - heard >= SILENCE_MS)
		agent_link_violation(vm->agent, "no answer for too long");
	else if (now - heard >= PING_EVERY_MS)
		agent_link_send(vm->agent, AGENT_PING, 0, STR("iron-vm?"));
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct vm *vm = arg;
	uint64_t now = mono_ms();

	if (vm->io_error && vm->paused)
		qmp_link_command(vm->qmp, "cont", NULL, NULL);
	if (vm->state != VM_REPORT_READY || vm->paused || !agent_link_is_up(vm->agent))
		return;
	if (now - vm->ready_ms >= TRUST_AFTER_MS)
		agent_link_settle(vm->agent);
	if (now - vm->clock_ms >= CLOCK_EVERY_MS)
		contract_run_clock(vm->contract);
	keep_alive(vm, now);
}

static void on_off_timer(evutil_socket_t fd, short what, void *arg)
{
	struct vm *vm = arg;

	qmp_link_command(vm->qmp, vm->pressed ? "quit" : "system_powerdown", NULL, NULL);
	if (!vm->pressed)
		arm(vm->off_timer, vm->off_ms);
	vm->pressed = true;
}

/* --- what others ask for --- */

int vm_set_contract(struct vm *vm, const struct msg_contract *m, struct error *reterr)
{
	if (m->vm != vm->id)
		return error_set(reterr, -EINVAL, "this is another machine");
	if (vm->state == VM_REPORT_OFF)
		return error_set(reterr, -ENOTCONN, "the machine is off");
	bool again = vm->state == VM_REPORT_READY && m->generation == vm->generation;
	vm->generation = m->generation;
	contract_set(vm->contract, m);
	if (vm->paused) /* nobody would answer; on_resume runs it */
		return 0;
	if (agent_link_is_up(vm->agent)) {
		/* Of a guest that is ready, by an iron-control that is new: it stays so while the steps are done again. */
		if (again)
			vm->owes_ready = true;
		else
			set_state(vm, VM_REPORT_BOOTING, "contract", "");
		contract_run(vm->contract);
	} else if (vm->state == VM_REPORT_FAILED) {
		begin_boot(vm);
	}
	return 0;
}

void vm_shutdown(struct vm *vm, uint32_t deadline_ms)
{
	if (vm->state == VM_REPORT_OFF)
		return;
	vm->stopping = true;
	vm->off_ms = (deadline_ms ? deadline_ms : SHUTDOWN_DEFAULT_MS) / 2;
	vm->pressed = !agent_link_is_up(vm->agent);
	if (vm->pressed && vm->ready_ms == 0)
		qmp_link_command(vm->qmp, "quit", NULL, NULL); /* it still boots: nobody there would hear a power button */
	else if (vm->pressed)
		qmp_link_command(vm->qmp, "system_powerdown", NULL, NULL);
	else
		agent_link_send(vm->agent, AGENT_SHUTDOWN, 0, STR_NONE);
	if (vm->paused)
		qmp_link_command(vm->qmp, "cont", NULL, NULL);
	arm(vm->off_timer, vm->pressed ? 2 * vm->off_ms : vm->off_ms);
}

static const char *not_ready(void *user)
{
	const struct vm *vm = user;

	if (vm->stopping || vm->state == VM_REPORT_OFF)
		return "the machine was stopped";
	return vm->state == VM_REPORT_READY && agent_link_is_up(vm->agent) ? NULL : "the machine is not ready";
}

static int copy_console(struct buf *out, void *user)
{
	const struct vm *vm = user;

	return console_copy(vm->console, out);
}

static const struct bridge_ops bridge_ops = {.not_ready = not_ready, .console = copy_console};

int vm_stream_open(struct vm *vm, int *ret_fd, struct error *reterr)
{
	return bridge_open(vm->bridge, ret_fd, reterr);
}

bool vm_is_off(const struct vm *vm)
{
	return vm->state == VM_REPORT_OFF;
}

bool vm_announced_end(const struct vm *vm)
{
	return vm->announced_end;
}

static bool make_parts(struct vm *vm, struct event_base *base, const struct vm_options *o)
{
	vm->qmp = qmp_link_create(base, o->qmp, &qmp_ops, vm);
	vm->agent = agent_link_create(base, o->agent, &agent_ops, vm);
	vm->console = console_create(base, o->console);
	if (!vm->qmp || !vm->agent || !vm->console)
		return false;
	vm->contract = contract_create(base, vm->agent, &contract_ops, vm);
	vm->bridge = bridge_create(base, vm->agent, &bridge_ops, vm);
	vm->boot_timer = evtimer_new(base, on_boot_timeout, vm);
	vm->off_timer = evtimer_new(base, on_off_timer, vm);
	vm->tick = event_new(base, -1, EV_PERSIST, on_tick, vm);
	return vm->contract && vm->boot_timer && vm->off_timer && vm->tick;
}

struct vm *vm_create(struct event_base *base, const struct vm_options *o)
{
	struct vm *vm = xcalloc(1, sizeof *vm);

	*vm = (struct vm){
		.id = o->id,
		.generation = o->generation,
		.boot_timeout_ms = o->boot_timeout_ms ? o->boot_timeout_ms : BOOT_DEFAULT_MS,
		.report = o->report,
		.user = o->user,
		.started_ms = mono_ms(),
	};
	if (!make_parts(vm, base, o)) {
		vm_destroy(vm);
		return NULL;
	}
	arm(vm->tick, TICK_MS);
	qmp_link_command(vm->qmp, "query-status", on_status, vm);
	begin_boot(vm);
	return vm;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	bridge_destroy(vm->bridge);
	contract_destroy(vm->contract);
	agent_link_destroy(vm->agent);
	qmp_link_destroy(vm->qmp);
	console_destroy(vm->console);
	if (vm->boot_timer)
		event_free(vm->boot_timer);
	if (vm->off_timer)
		event_free(vm->off_timer);
	if (vm->tick)
		event_free(vm->tick);
	free(vm);
}
