#include "vm/contract.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"

#define RETRY_MS 200
#define SEED_SIZE 256
#define GUEST_ADDRESS 0x0a4d0002U /* 10.77.0.2 */
#define GUEST_GATEWAY 0x0a4d0001U /* 10.77.0.1 */

struct contract {
	struct event *timer;
	struct agent_link *link;
	const struct contract_ops *ops;
	void *user;
	struct buf kept;            /* the encoded msg_contract */
	bool set, running, waiting; /* waiting: for RETRY_MS to pass */
	size_t at, end;             /* steps of this run that are left */
	uint32_t id;
	uint64_t step_deadline_ms, deadline_ms;
};

static int build_network(const struct msg_contract *m, struct buf *out)
{
	struct agent_network r = {
		.interface = STR("eth0"), .address = GUEST_ADDRESS, .prefix = 24, .gateway = GUEST_GATEWAY};
	return wire_encode(&agent_network_wire, &r, out);
}

static int build_dns(const struct msg_contract *m, struct buf *out)
{
	_cleanup_(buf_finish) struct buf servers = {0};

	wire_list_add(&servers, STR("10.77.0.1"));
	struct agent_dns r = {.servers = buf_str(&servers)};
	return wire_encode(&agent_dns_wire, &r, out);
}

static int build_clock(const struct msg_contract *m, struct buf *out)
{
	struct agent_clock r = {.real_us = real_ms() * 1000};
	return wire_encode(&agent_clock_wire, &r, out);
}

static int build_entropy(const struct msg_contract *m, struct buf *out)
{
	uint8_t seed[SEED_SIZE];

	if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed)
		return -EIO;
	struct agent_entropy r = {.seed = str_make(seed, sizeof seed)};
	int e = wire_encode(&agent_entropy_wire, &r, out);
	explicit_bzero(seed, sizeof seed);
	return e;
}

static int build_identity(const struct msg_contract *m, struct buf *out)
{
	struct agent_identity r = {.hostname = m->hostname, .machine_id = m->machine_id};
	return wire_encode(&agent_identity_wire, &r, out);
}

static int build_environment(const struct msg_contract *m, struct buf *out)
{
	struct agent_environment r = {.environment = m->environment};
	return wire_encode(&agent_environment_wire, &r, out);
}

static int build_trust(const struct msg_contract *m, struct buf *out)
{
	struct agent_trust r = {.pem = m->trust};
	return wire_encode(&agent_trust_wire, &r, out);
}

static int build_generation(const struct msg_contract *m, struct buf *out)
{
	struct agent_generation r = {.generation = m->generation};
	return wire_encode(&agent_generation_wire, &r, out);
}

#define ROW(name, record) {#name, build_##name},
static const struct {
	const char *name;
	int (*build)(const struct msg_contract *m, struct buf *out);
} rows[] = {AGENT_STEPS(ROW)};

#define INDEX(name, record) STEP_##name,
enum { AGENT_STEPS(INDEX) STEP_COUNT };

static void arm(struct contract *c, uint64_t at_ms)
{
	uint64_t now = mono_ms(), ms = at_ms > now ? at_ms - now : 0;
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	evtimer_add(c->timer, &tv);
}

static void finish(struct contract *c, const char *failed_step, const char *reason)
{
	contract_stop(c);
	c->ops->done(failed_step, reason, c->user);
}

static int send_step(struct contract *c)
{
	_cleanup_(buf_finish) struct buf body = {0};
	struct msg_contract m;

	if (wire_decode(&msg_contract_wire, buf_str(&c->kept), &m))
		return -EBADMSG;
	int r = rows[c->at].build(&m, &body);
	if (r == 0) {
		struct agent_step step = {.id = ++c->id, .name = str_of(rows[c->at].name), .body = buf_str(&body)};
		r = agent_link_send_record(c->link, AGENT_STEP, 0, &agent_step_wire, &step);
	}
	if (body.data)
		explicit_bzero(body.data, body.len);
	return r;
}

static void ask(struct contract *c)
{
	c->waiting = false;
	if (send_step(c))
		finish(c, rows[c->at].name, "the step could not be sent");
	else
		arm(c, c->step_deadline_ms);
}

static void begin_step(struct contract *c)
{
	c->step_deadline_ms = MIN(mono_ms() + CONTRACT_STEP_MS, c->deadline_ms);
	c->ops->step(rows[c->at].name, c->user);
	if (c->running)
		ask(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct contract *c = arg;

	if (c->waiting)
		ask(c);
	else
		finish(c, rows[c->at].name, "the guest's agent did not answer in time");
}

static void start(struct contract *c, size_t first, size_t end, uint32_t deadline_ms)
{
	c->running = true;
	c->at = first;
	c->end = end;
	c->deadline_ms = mono_ms() + deadline_ms;
	begin_step(c);
}

bool contract_on_done(struct contract *c, struct str payload)
{
	struct agent_step_done d;
	char reason[400 + 1] = {0};

	if (wire_decode(&agent_step_done_wire, payload, &d) || d.id > c->id || d.code > 0)
		return false;
	/* An answer to a step of a run that was ended. */
	if (!c->running || c->waiting || d.id != c->id)
		return d.id != c->id || !c->waiting;
	uint64_t now = mono_ms();
	if ((d.code == -ENODEV || d.code == -EAGAIN) && now + RETRY_MS < c->step_deadline_ms) {
		c->waiting = true;
		arm(c, now + RETRY_MS);
	} else if (d.code) {
		memcpy(reason, d.reason.p, d.reason.len);
		finish(c, rows[c->at].name, reason[0] ? reason : "the step failed");
	} else if (++c->at == c->end) {
		finish(c, NULL, NULL);
	} else {
		begin_step(c);
	}
	return true;
}

void contract_stop(struct contract *c)
{
	c->running = c->waiting = false;
	evtimer_del(c->timer);
}

void contract_run(struct contract *c)
{
	struct msg_contract m;

	contract_stop(c);
	if (wire_decode(&msg_contract_wire, buf_str(&c->kept), &m) == 0)
		start(c, 0, STEP_COUNT, m.deadline_ms ? m.deadline_ms : CONTRACT_DEFAULT_MS);
}

void contract_run_clock(struct contract *c)
{
	if (!c->running && c->set)
		start(c, STEP_clock, STEP_clock + 1, CONTRACT_STEP_MS);
}

void contract_set(struct contract *c, const struct msg_contract *m)
{
	contract_stop(c);
	buf_clear(&c->kept);
	c->set = wire_encode(&msg_contract_wire, m, &c->kept) == 0;
}

bool contract_is_set(const struct contract *c)
{
	return c->set;
}

bool contract_is_running(const struct contract *c)
{
	return c->running;
}

struct contract *contract_create(struct event_base *base, struct agent_link *link, const struct contract_ops *ops,
				 void *user)
{
	struct contract *c = xcalloc(1, sizeof *c);

	*c = (struct contract){.link = link, .ops = ops, .user = user};
	c->timer = evtimer_new(base, on_timer, c);
	if (!c->timer) {
		contract_destroy(c);
		return NULL;
	}
	return c;
}

void contract_destroy(struct contract *c)
{
	if (!c)
		return;
	if (c->timer)
		event_free(c->timer);
	buf_finish(&c->kept);
	free(c);
}
