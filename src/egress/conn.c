#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "egress/door.h"

#define FAREWELL_MS 2000
#define FAREWELL_DRAIN ((size_t)1 << 20) /* what is read and thrown away before a FIN has to do */

static void on_ready(void *arg)
{
	struct conn *c = arg;
	c->phase->on_ready(c);
}

static int original_destination(int fd, uint32_t *ret_addr, uint16_t *ret_port)
{
	struct sockaddr_in a = {0};
	socklen_t len = sizeof a;

	if (getsockname(fd, (struct sockaddr *)&a, &len) || a.sin_family != AF_INET)
		return -EINVAL;
	*ret_addr = ntohl(a.sin_addr.s_addr);
	*ret_port = ntohs(a.sin_port);
	return 0;
}

static void set_name(struct conn *c, struct str name)
{
	str_copy(name, c->name, sizeof c->name);
	c->target.name = str_of(c->name);
}

/* Name or literal. A synthetic address without a name stays nameless, whatever rules say. */
static void set_target(struct conn *c, uint32_t addr, uint16_t port)
{
	struct str name;

	c->target = (struct policy_request){.phase = POLICY_CONNECT, .port = port};
	c->name_index = -1;
	if (addr == GUEST_GATEWAY) {
		c->inside = true;
		set_name(c, STR(IRON_INTERNAL));
		return;
	}
	c->target.ip = ip_from_v4(addr);
	if (!names_in_range(c->vm->names, addr))
		return;
	c->name_index = names_find(c->vm->names, addr, &name);
	c->nameless = c->name_index < 0;
	if (c->nameless)
		return;
	c->target.ip = (struct ip){0};
	set_name(c, name);
	names_hold(c->vm->names, c->name_index, real_ms());
}

static void refuse_surplus(struct door_vm *vm, int fd, uint32_t addr, uint16_t port)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	const struct ip ip = ip_from_v4(addr);
	char text[IP_TEXT_SIZE];

	ip_format(&ip, text);
	tally_drop(&vm->tally, PROTO_TCP, text, port, "more connections than a VM may hold");
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(fd);
}

void conn_create(struct door_vm *vm, int fd)
{
	uint32_t addr;
	uint16_t port;

	if (original_destination(fd, &addr, &port)) {
		close(fd);
		return;
	}
	if (vm->nconns >= vm->door->max_connections) {
		refuse_surplus(vm, fd, addr, port);
		return;
	}
	struct conn *c = xcalloc(1, sizeof *c);
	*c = (struct conn){.vm = vm, .opened_ms = mono_ms(), .client = SOCK_NONE};
	c->active_ms = c->opened_ms;
	if (sock_open(&c->client, vm->door->base, fd, on_ready, c)) {
		free(c);
		return;
	}
	set_target(c, addr, port);
	c->next = vm->conns;
	if (c->next)
		c->next->prev = c;
	vm->conns = c;
	vm->nconns++;
	if (port == 53)
		dns_tcp_enter(c);
	else
		first_enter(c);
}

static void leave_phase(struct conn *c)
{
	const struct conn_phase *phase = c->phase;

	c->phase = NULL;
	if (phase && phase->destroy)
		phase->destroy(c);
	c->state = NULL;
}

void conn_enter(struct conn *c, const struct conn_phase *phase, void *state)
{
	leave_phase(c);
	c->phase = phase;
	c->state = state;
}

void conn_destroy(struct conn *c)
{
	struct door_vm *vm = c->vm;

	leave_phase(c);
	sock_close(&c->client);
	if (c->name_index >= 0)
		names_release(vm->names, c->name_index, real_ms());
	if (c->prev)
		c->prev->next = c->next;
	else
		vm->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	vm->nconns--;
	free(c);
}

void conn_abort(struct conn *c)
{
	sock_reset(&c->client);
	conn_destroy(c);
}

bool conn_total_passed(const struct conn *c, uint64_t now_ms)
{
	return now_ms - c->opened_ms >= c->vm->door->total_ms;
}

const char *conn_host(const struct conn *c)
{
	static char ring[4][HOSTNAME_SIZE];
	static unsigned at;

	if (c->target.name.len)
		return c->name;
	char *text = ring[at++ % 4];
	ip_format(&c->target.ip, text);
	return text;
}

/* --- farewell --- */

struct farewell {
	struct buf out;
	size_t drained;
	uint64_t until_ms;
};

static void farewell_ready(struct conn *c)
{
	static char scratch[65536];
	struct farewell *f = c->state;
	ssize_t n;

	while (f->out.len && c->client.writable) {
		n = sock_send(&c->client, f->out.data, f->out.len);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			conn_destroy(c);
			return;
		}
		buf_consume(&f->out, (size_t)n);
	}
	if (f->out.len == 0)
		sock_shutdown(&c->client);
	while (c->client.readable && f->drained < FAREWELL_DRAIN) {
		n = sock_recv(&c->client, scratch, sizeof scratch);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			if (n < 0 || f->out.len == 0)
				conn_destroy(c);
			return;
		}
		f->drained += (size_t)n;
	}
	if (f->drained >= FAREWELL_DRAIN && f->out.len == 0)
		conn_destroy(c);
}

static void farewell_tick(struct conn *c, uint64_t now_ms)
{
	struct farewell *f = c->state;
	if (now_ms >= f->until_ms)
		conn_destroy(c);
}

static void farewell_destroy(struct conn *c)
{
	struct farewell *f = c->state;
	buf_finish(&f->out);
	free(f);
}

static void stay(struct conn *c)
{
}

static const struct conn_phase farewell_phase = {
	.name = "farewell",
	.on_ready = farewell_ready,
	.on_tick = farewell_tick,
	.on_policy = stay,
	.destroy = farewell_destroy,
};

void conn_farewell(struct conn *c, struct buf *last)
{
	struct farewell *f = xcalloc(1, sizeof *f);

	*f = (struct farewell){.out = *last, .until_ms = mono_ms() + FAREWELL_MS};
	*last = (struct buf){0};
	conn_enter(c, &farewell_phase, f);
	sock_later(&c->client);
}

/* --- verdicts and the record --- */

void conn_judge(const struct conn *c, const struct policy_request *r, struct verdict *ret,
		struct policy_decision *ret_d)
{
	struct policy_decision d = {.verdict = VERDICT_DENIED};

	*ret = (struct verdict){.verdict = VERDICT_DENIED};
	if (ret_d)
		*ret_d = d;
	if (!c->vm->policy) {
		verdict_refuse(ret, "no policy is loaded yet");
		return;
	}
	if (c->nameless) {
		verdict_refuse(ret, "this address stands for no name: ask DNS for the host again");
		return;
	}
	if (c->inside) {
		verdict_refuse(ret, "only http://" IRON_INTERNAL "/ is served at this address");
		return;
	}
	policy_decide(c->vm->policy, r, &d);
	ret->verdict = d.verdict;
	ret->decided = true;
	ret->rule = d.rule ? d.rule->id : 0;
	if (d.rule)
		str_copy(d.rule->cidr, ret->cidr, sizeof ret->cidr);
	policy_reason(r, &d, ret->reason, sizeof ret->reason);
	if (ret_d)
		*ret_d = d;
}

void verdict_refuse(struct verdict *v, const char *reason)
{
	v->verdict = VERDICT_DENIED;
	v->decided = false;
	snprintf(v->reason, sizeof v->reason, "%s", reason);
}

struct journal_entry *conn_record(struct conn *c, enum egress_protocol protocol, const struct verdict *v,
				  const struct request_line *line, journal_written *on_written, void *arg)
{
	const struct door_vm *vm = c->vm;
	struct record_open open = {
		.vm = vm->id,
		.workspace = vm->door->workspace,
		.generation = vm->generation,
		.host = str_of(conn_host(c)),
		.cidr = str_of(v->cidr),
		.port = c->target.port,
		.protocol = (uint8_t)protocol,
		.verdict = (uint8_t)v->verdict,
		.mode = vm->policy ? (uint8_t)policy_mode(vm->policy) : MODE_ENFORCE,
		.rule = v->rule,
		.reason = str_make(v->reason, MIN(strlen(v->reason), (size_t)255)),
	};
	if (line) {
		open.connection = line->connection;
		open.method = str_make(line->method.p, MIN(line->method.len, (size_t)32));
		open.path = str_make(line->path.p, MIN(line->path.len, (size_t)1024));
	}
	return journal_open(vm->door->journal, &open, on_written, arg);
}

void conn_record_end(struct journal_entry *e, const struct ending *end)
{
	char address[IP_TEXT_SIZE] = "";

	if (!e)
		return;
	if (end->address)
		ip_format(end->address, address);
	struct record_close close = {
		.bytes_sent = end->sent,
		.bytes_received = end->received,
		.duration_ms = (uint32_t)MIN(mono_ms() - end->since_ms, (uint64_t)UINT32_MAX),
		.status = end->status,
		.outcome = (uint8_t)end->outcome,
		.address = str_of(address),
		.reason = str_make(end->reason, end->reason ? MIN(strlen(end->reason), (size_t)255) : 0),
	};
	journal_close(e, &close);
}

void vm_note_denial(struct door_vm *vm, const struct conn *c, enum egress_protocol protocol, const char *reason)
{
	struct denial *d = &vm->denials[vm->ndenials++ % DENIALS_KEPT];

	*d = (struct denial){.at_ms = real_ms(), .port = c->target.port, .protocol = (uint8_t)protocol};
	snprintf(d->host, sizeof d->host, "%s", conn_host(c));
	snprintf(d->reason, sizeof d->reason, "%s", reason);
}

void conn_record_denied(struct conn *c, enum egress_protocol protocol, const struct verdict *v,
			const struct request_line *line, uint16_t status, enum close_outcome outcome)
{
	struct journal_entry *e = conn_record(c, protocol, v, line, NULL, NULL);
	const struct ending end = {.since_ms = c->opened_ms, .status = status, .outcome = outcome, .reason = v->reason};

	vm_note_denial(c->vm, c, protocol, v->reason);
	conn_record_end(e, &end);
}

const char *conn_refuse_address(const struct conn *c, const struct policy_request *r, const struct ip *address)
{
	static char why[160];
	char text[IP_TEXT_SIZE];

	if (!c->vm->policy)
		return "no policy is loaded";
	enum dial_verdict v = dial_check(c->vm->door->limits, c->vm->policy, r, address);
	if (v == DIAL_OK)
		return NULL;
	ip_format(address, text);
	snprintf(why, sizeof why, "%s %s", text, dial_text(v));
	return why;
}
