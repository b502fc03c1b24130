#include "api/metrics.h"

#include <ctype.h>

#include "api/call_internal.h"
#include "api/metrics_text.h"
#include "base/log.h"
#include "model/vm_state.h"

/* Less than the 10 s after which Prometheus gives up by itself. */
#define CONTROL_MS 8000
#define STALL_MS 10000
#define ROLES_MAX 16
#define STATUS_END 1000

/* --- what is counted here --- */

static const uint32_t bounds_ms[] = {5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000};
static const char *const bound_texts[] = {"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "60"};
_Static_assert(ARRAY_SIZE(bounds_ms) == ARRAY_SIZE(bound_texts), "each bound has its text");

struct durations {
	uint64_t n, sum_us, within[ARRAY_SIZE(bounds_ms)]; /* within: not yet summed up */
};

struct metrics {
	struct map calls; /* by op and status: how many, as a pointer */
	struct durations durations[OP_COUNT + 1];
	uint64_t limited;
};

struct metrics *metrics_create(void)
{
	return xcalloc(1, sizeof(struct metrics));
}

void metrics_destroy(struct metrics *m)
{
	if (!m)
		return;
	map_finish(&m->calls);
	free(m);
}

void metrics_count(struct metrics *m, unsigned op, unsigned status, uint64_t took_us, bool limited)
{
	unsigned known = MIN(op, (unsigned)OP_COUNT);
	uint64_t key = (uint64_t)known * STATUS_END + MIN(status, STATUS_END - 1U);
	struct durations *d = &m->durations[known];
	size_t i = 0;

	map_put(&m->calls, key, (void *)((uintptr_t)map_get(&m->calls, key) + 1));
	while (i < ARRAY_SIZE(bounds_ms) && took_us > (uint64_t)bounds_ms[i] * 1000)
		i++;
	if (i < ARRAY_SIZE(bounds_ms))
		d->within[i]++;
	d->n++;
	d->sum_us += took_us;
	m->limited += limited;
}

static struct str op_label(unsigned op, char space[64])
{
	const char *name = op < OP_COUNT ? op_info_get(op)->name : "none";
	size_t n = 0;

	for (; name[n] && n < 63; n++)
		space[n] = (char)tolower((unsigned char)name[n]);
	return str_make(space, n);
}

static void write_durations(struct buf *out, const struct metrics *m)
{
	static const char *const name = "iron_api_request_duration_seconds";
	char space[64];

	metrics_family(out, name, "histogram",
		       "How long calls of the API took until their answer was there, or its last byte where it streams.");
	for (unsigned op = 0; op <= OP_COUNT; op++) {
		const struct durations *d = &m->durations[op];
		struct metrics_label labels[METRICS_LABELS_MAX] = {{"op", op_label(op, space)}, {"le", STR_NONE}};
		uint64_t sum = 0;
		if (!d->n)
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(bounds_ms); i++) {
			labels[1].value = str_of(bound_texts[i]);
			sum += d->within[i];
			metrics_sample(out, "iron_api_request_duration_seconds_bucket", labels, sum);
		}
		labels[1].value = STR("+Inf");
		metrics_sample(out, "iron_api_request_duration_seconds_bucket", labels, d->n);
		labels[1].name = NULL;
		metrics_sample_us(out, "iron_api_request_duration_seconds_sum", labels, d->sum_us);
		metrics_sample(out, "iron_api_request_duration_seconds_count", labels, d->n);
	}
}

static void write_own(struct buf *out, const struct api *api)
{
	const struct metrics *m = api->metrics;
	struct map_slot *slot;
	char space[64], status[16];
	size_t i = 0;

	metrics_family(out, "iron_api_requests_total", "counter",
		       "Calls of the API that ended, by operation (none: a path or method that is none) and status; 499: the client left.");
	while (map_next(&m->calls, &i, &slot)) {
		snprintf(status, sizeof status, "%u", (unsigned)(slot->key % STATUS_END));
		const struct metrics_label labels[METRICS_LABELS_MAX] = {
			{"op", op_label((unsigned)(slot->key / STATUS_END), space)}, {"status", str_of(status)}};
		metrics_sample(out, "iron_api_requests_total", labels, (uintptr_t)slot->value);
	}
	write_durations(out, m);
	metrics_single(out, "iron_api_rate_limited_total", "counter", "Calls of the API that were refused for their rate.", m->limited);
	metrics_single(out, "iron_api_connections", "gauge", "Open connections to iron-api, this one too.", api->nconns);
}

/* --- what iron-control says --- */

struct role_sum {
	char name[32];
	uint64_t processes, restarts;
	bool silent;
};

struct scrape {
	bool has_host, has_index, ready;
	struct row_host counts;
	struct msg_host host; /* no strings are kept of either */
	struct row_index index;
	bool has_vms[VM_STATE_END];
	uint64_t vms[VM_STATE_END];
	struct role_sum roles[ROLES_MAX];
	unsigned nroles;
};

static void take_role(struct scrape *s, struct str encoded)
{
	struct msg_role_row row;
	unsigned i = 0;

	if (wire_decode(&msg_role_row_wire, encoded, &row))
		return;
	while (i < s->nroles && !str_eq(str_of(s->roles[i].name), row.name))
		i++;
	if (i == ROLES_MAX)
		return;
	if (i == s->nroles && str_copy(row.name, s->roles[i].name, sizeof s->roles[i].name) == 0)
		s->nroles++;
	s->roles[i].processes++;
	s->roles[i].restarts += row.restarts;
	if (!str_eq(row.state, STR("ok")))
		s->roles[i].silent = true;
}

static void take_row(struct scrape *s, const struct ipc_msg *m)
{
	switch (m->info->type) {
	case MSG_TYPE_row_vm_count: {
		const struct row_vm_count *row = IPC_RECORD(m, row_vm_count);
		if (row->state < VM_STATE_END) {
			s->has_vms[row->state] = true;
			s->vms[row->state] = row->vms;
		}
		break;
	}
	case MSG_TYPE_row_index:
		s->index = *IPC_RECORD(m, row_index);
		s->has_index = true;
		break;
	case MSG_TYPE_row_host:
		s->counts = *IPC_RECORD(m, row_host);
		s->has_host = wire_decode(&msg_host_wire, s->counts.host, &s->host) == 0;
		break;
	case MSG_TYPE_row_role:
		take_role(s, IPC_RECORD(m, row_role)->role);
		break;
	default:
		log_limited(LOG_LEVEL_ERROR, 1, "a row of iron-control's is none", "type=%u", (unsigned)m->info->type);
	}
}

static bool is_up(const struct scrape *s)
{
	for (unsigned i = 0; i < s->nroles; i++)
		if (s->roles[i].silent)
			return false;
	return s->ready && s->nroles;
}

static void write_roles(struct buf *out, const struct scrape *s)
{
	static const struct {
		const char *name, *help;
	} families[] = {
		{"iron_role_up", "1: each process of this role answers."},
		{"iron_role_processes", "Processes of this role that are to run; of iron-vm one a VM, of iron-egress one a workspace."},
		{"iron_role_restarts", "How often irond started these processes again; those of a VM that is gone count no more."},
	};

	for (unsigned f = 0; f < ARRAY_SIZE(families) && s->nroles; f++) {
		metrics_family(out, families[f].name, "gauge", families[f].help);
		for (unsigned i = 0; i < s->nroles; i++) {
			const struct role_sum *r = &s->roles[i];
			const struct metrics_label labels[METRICS_LABELS_MAX] = {{"role", str_of(r->name)}};
			const uint64_t values[] = {!r->silent, r->processes, r->restarts};
			metrics_sample(out, families[f].name, labels, values[f]);
		}
	}
}

static void write_vms(struct buf *out, const struct scrape *s)
{
	metrics_family(out, "iron_vms", "gauge", "VMs that are not destroyed, by state (status_detail of the API).");
	for (unsigned state = 0; state < VM_STATE_END; state++) {
		const struct metrics_label labels[METRICS_LABELS_MAX] = {{"state", str_of(vm_state_detail(state))}};
		if (s->has_vms[state])
			metrics_sample(out, "iron_vms", labels, s->vms[state]);
	}
}

static void write_host(struct buf *out, const struct scrape *s)
{
	const struct {
		const char *name, *help;
		uint64_t value;
	} rows[] = {
		{"iron_memory_committed_bytes", "Memory that VMs hold, or will hold.", s->counts.memory_committed_mib << 20},
		{"iron_memory_budget_bytes", "Memory that VMs may hold in all; 0: no bound.", s->counts.memory_budget_mib << 20},
		{"iron_host_cpus", "Processors of the host.", s->host.cpus},
		{"iron_host_memory_total_bytes", "Memory of the host.", s->host.memory_total_mib << 20},
		{"iron_host_memory_available_bytes", "Memory of the host that is available.", s->host.memory_available_mib << 20},
		{"iron_host_disk_total_bytes", "Size of the file system below state_dir.", s->host.disk_total_mib << 20},
		{"iron_host_disk_available_bytes", "What is available of it.", s->host.disk_available_mib << 20},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metrics_single(out, rows[i].name, "gauge", rows[i].help, rows[i].value);
}

static void write_index(struct buf *out, const struct row_index *x)
{
	metrics_single(out, "iron_audit_records_written", "gauge", "Sequence of the audit journal's last record.", x->written);
	metrics_single(out, "iron_audit_records_indexed", "gauge", "Sequence of the last record in the audit index.", x->indexed);
	metrics_single(out, "iron_audit_index_lag_records", "gauge", "Records that are in the journal and not yet in the index.",
		       x->written > x->indexed ? x->written - x->indexed : 0);
	metrics_single(out, "iron_audit_index_whole", "gauge",
		       "0: the index is being built anew, and lists of the record wait for it.", x->whole);
	metrics_single(out, "iron_audit_index_skipped", "gauge",
		       "Parts of the journal that could not be read since iron-control started.", x->skipped);
}

static void answer(struct call *c)
{
	static const struct metrics_label version[METRICS_LABELS_MAX] = {{"version", STR(IRON_VERSION)}};
	_cleanup_(buf_finish) struct buf out = {0};
	const struct scrape *s = c->scrape;

	metrics_family(&out, "iron_build_info", "gauge", "1, with iron's version.");
	metrics_sample(&out, "iron_build_info", version, 1);
	metrics_single(&out, "iron_up", "gauge", "1: every role answers, as GET /v1/readyz says.", is_up(s));
	write_own(&out, c->api);
	write_roles(&out, s);
	if (s->has_host) {
		write_vms(&out, s);
		write_host(&out, s);
	}
	if (s->has_index)
		write_index(&out, &s->index);
	if (out.failed) {
		call_fail(c, CODE_INTERNAL, "the metrics do not fit into one answer");
		return;
	}
	call_answer_begin(c, 200, METRICS_TEXT_TYPE, out.len, STALL_MS, NULL, NULL);
	conn_answer_write(c->conn, buf_str(&out));
	call_answer_end(c, 200, true);
}

/* True: that was the last. */
static bool on_row(struct ipc_peer *peer, const struct ipc_msg *m, void *arg)
{
	struct call *c = arg;

	if (m && m->info->type != MSG_TYPE_msg_done) {
		take_row(c->scrape, m);
		return false;
	}
	c->scrape->ready = m && IPC_RECORD(m, msg_done)->status == 200;
	if (c->conn)
		answer(c);
	call_release(c);
	return true;
}

void metrics_start(struct call *c)
{
	c->scrape = arena_alloc(&c->arena, sizeof *c->scrape);
	if (call_send(c, MSG_TYPE_msg_metrics_get, &(struct msg_metrics_get){}, CONTROL_MS, on_row) == 0)
		call_hold(c);
	else
		answer(c);
}
