#include "broker/broker_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "broker/certificate.h"
#include "broker/resolvers.h"
#include "os/fdutil.h"
#include "os/ipc.h"

#define MAX_LISTEN 8
#define MAX_LISTENERS (MAX_LISTEN + 1) /* and metrics_listen */
#define EXTRA_CA_MAX 49152
#define BACKLOG 512

struct listeners {
	int fds[MAX_LISTENERS];
	size_t n;
	bool metrics; /* the last of them is metrics_listen */
};

/* --- listening sockets --- */

static bool is_at(int fd, const struct addrinfo *ai)
{
	struct sockaddr_storage at = {0};
	socklen_t len = sizeof at;

	return getsockname(fd, (struct sockaddr *)&at, &len) == 0 && len == ai->ai_addrlen && memcmp(&at, ai->ai_addr, len) == 0;
}

/* One address, one socket: where it listens already, a second one could not be bound. */
static int listen_on(const struct listeners *old, const struct addrinfo *ai, int *ret_fd)
{
	for (size_t i = 0; old && i < old->n; i++)
		if (is_at(old->fds[i], ai)) {
			*ret_fd = fcntl(old->fds[i], F_DUPFD_CLOEXEC, 0);
			return *ret_fd < 0 ? -errno : 1;
		}
	return 0;
}

static int listen_at(const struct addrinfo *ai, int *ret_fd)
{
	_cleanup_close_ int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		return -errno;
	if (ai->ai_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)
		return -errno;
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = take_fd(fd);
	return 0;
}

/* "127.0.0.1:7443", "[::1]:7443". */
static int listen_text(const char *key, const char *text, const struct listeners *old, int *ret_fd, struct error *reterr)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
				       .ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(text, ':');
	struct addrinfo *ai = NULL;
	int r;

	if (!colon)
		return error_set(reterr, -EINVAL, "%s: %s: expected ADDRESS:PORT", key, text);
	struct str address = str_trim(str_make(text, (size_t)(colon - text)), "[]");
	_cleanup_free_ char *host = str_dup(address);
	if (getaddrinfo(host, colon + 1, &hints, &ai) != 0)
		return error_set(reterr, -EINVAL, "%s: %s: expected ADDRESS:PORT", key, text);
	r = listen_on(old, ai, ret_fd);
	if (r == 0)
		r = listen_at(ai, ret_fd);
	freeaddrinfo(ai);
	return r < 0 ? error_set(reterr, r, "%s: %s: %s; `ss -ltnp` shows who listens", key, text, strerror(-r)) : 0;
}

/* The same address twice would have two keys share one socket. */
static int check_twice(const struct conf *conf, struct error *reterr)
{
	for (unsigned i = 0; i < conf->listen_count; i++)
		if (strcmp(conf->listen[i], conf->metrics_listen) == 0)
			return error_set(reterr, -EINVAL, "metrics_listen: %s is the API's already (listen): take another port",
					 conf->metrics_listen);
	return 0;
}

static int add_listener(struct listeners *l, const char *key, const char *text, const struct listeners *old,
			struct error *reterr)
{
	int r = listen_text(key, text, old, &l->fds[l->n], reterr);

	if (r == 0)
		l->n++;
	return r;
}

int listeners_open(const struct conf *conf, const struct listeners *old, struct listeners **ret, struct error *reterr)
{
	struct listeners *l = xcalloc(1, sizeof *l);
	int r = check_twice(conf, reterr);

	if (conf->listen_count > MAX_LISTEN)
		r = error_set(reterr, -EINVAL, "listen: at most %d addresses", MAX_LISTEN);
	for (unsigned i = 0; r == 0 && i < conf->listen_count; i++)
		r = add_listener(l, "listen", conf->listen[i], old, reterr);
	l->metrics = conf->metrics_listen[0] != '\0';
	if (r == 0 && l->metrics)
		r = add_listener(l, "metrics_listen", conf->metrics_listen, old, reterr);
	if (r < 0)
		listeners_close(l);
	else
		*ret = l;
	return r;
}

struct listeners *listeners_take(int *fds, size_t n, bool metrics)
{
	struct listeners *l = xcalloc(1, sizeof *l);

	l->metrics = metrics;
	for (; l->n < MIN(n, (size_t)MAX_LISTENERS); l->n++)
		l->fds[l->n] = take_fd(fds[l->n]);
	return l;
}

void listeners_close(struct listeners *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n; i++)
		close(l->fds[i]);
	free(l);
}

/* --- records; their lists live in a struct text until they are encoded --- */

struct text {
	struct buf shapes, private_allow, resolvers, never_dial, extra_ca, packages;
};

static void text_finish(struct text *t)
{
	buf_finish(&t->shapes);
	buf_finish(&t->private_allow);
	buf_finish(&t->resolvers);
	buf_finish(&t->never_dial);
	buf_finish(&t->packages);
	buf_finish(&t->extra_ca);
}

static int put_private_allow(const struct conf *conf, struct buf *out)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < conf->egress.private_allow_count; i++) {
		const struct conf_private *p = &conf->egress.private_allow[i];
		_cleanup_(buf_finish) struct buf hosts = {0};
		for (unsigned k = 0; r == 0 && k < p->hosts_count; k++)
			r = wire_list_add_z(&hosts, p->hosts[k]);
		if (r == 0)
			r = wire_list_add_record(
				out, &rec_private_wire,
				&(struct rec_private){.cidr = str_of(p->cidr), .hosts = buf_str(&hosts)});
	}
	return r;
}

static int put_resolvers(const struct conf *conf, struct buf *out)
{
	_cleanup_(resolvers_finish) resolvers dns = {0};
	int r = 0;

	resolvers_find(conf, RESOLV_CONF, &dns);
	for (size_t i = 0; r == 0 && i < dns.n; i++)
		r = wire_list_add_z(out, dns.v[i]);
	return r;
}

static int put_extra_ca(const struct conf *conf, struct buf *out, struct error *reterr)
{
	for (unsigned i = 0; i < conf->egress.extra_ca_files_count; i++) {
		const char *path = conf->egress.extra_ca_files[i];
		int r = file_read(path, EXTRA_CA_MAX, out);
		if (r == 0 && out->len > 0 && out->data[out->len - 1] != '\n')
			r = buf_append_byte(out, '\n');
		if (r == 0 && out->len > EXTRA_CA_MAX)
			r = -EFBIG;
		if (r < 0)
			return error_set(reterr, r, "egress.extra_ca_files: %s: %s", path, strerror(-r));
	}
	return 0;
}

/* What the host has, less 1 GiB for itself. */
static uint32_t memory_budget(const struct conf *conf)
{
	uint64_t mib = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;

	if (conf->limits.memory_budget_mib)
		return conf->limits.memory_budget_mib;
	return mib > 2048 ? (uint32_t)(mib - 1024) : (uint32_t)(mib / 2);
}

static struct msg_api_config api_record(const struct conf *c)
{
	return (struct msg_api_config){
		.listeners = (uint8_t)(c->listen_count + (c->metrics_listen[0] ? 1 : 0)),
		.metrics = c->metrics_listen[0] != '\0',
		.tls = true,
		.public_host = str_of(c->public_host),
		.max_connections = c->limits.max_connections,
		.max_body_bytes = c->limits.max_body_kib << 10,
		.idle_timeout_ms = c->limits.idle_timeout_s * 1000,
		.requests_per_key = c->limits.requests_per_key,
		.requests_per_address = c->limits.requests_per_address,
		.failures_per_address = c->limits.failures_per_address,
	};
}

static int control_record(const struct conf *c, struct text *t, struct msg_control_config *ret, struct error *reterr)
{
	int r = put_extra_ca(c, &t->extra_ca, reterr);

	for (unsigned i = 0; r == 0 && i < c->shapes_count; i++)
		r = wire_list_add_record(&t->shapes, &rec_shape_wire,
					 &(struct rec_shape){.name = str_of(c->shapes[i].name),
							     .vcpus = c->shapes[i].vcpus,
							     .memory_mib = c->shapes[i].memory_mib});
	for (unsigned i = 0; r == 0 && i < c->egress.packages_count; i++)
		r = wire_list_add_z(&t->packages, c->egress.packages[i]);
	for (unsigned i = 0; r == 0 && i < c->egress.never_dial_count; i++)
		r = wire_list_add_z(&t->never_dial, c->egress.never_dial[i]);
	if (r == 0)
		r = put_private_allow(c, &t->private_allow);
	if (r < 0)
		return r;
	*ret = (struct msg_control_config){
		.state_dir = str_of(c->state_dir),
		.shapes = buf_str(&t->shapes),
		.synthetic_base = c->egress.synthetic_base,
		.synthetic_prefix = c->egress.synthetic_prefix,
		.private_allow = buf_str(&t->private_allow),
		.never_dial = buf_str(&t->never_dial),
		.packages = buf_str(&t->packages),
		.index_days = c->audit.index_days,
		.max_vms = c->limits.max_vms,
		.max_vms_per_workspace = c->limits.max_vms_per_workspace,
		.memory_budget_mib = memory_budget(c),
		.boot_timeout_ms = c->limits.boot_timeout_s * 1000,
		.stop_timeout_ms = c->limits.stop_timeout_s * 1000,
		.default_image = str_of(c->default_image),
		.extra_ca = buf_str(&t->extra_ca),
	};
	return 0;
}

static int egress_record(const struct conf *c, uint64_t workspace, struct text *t, struct msg_egress_config *ret)
{
	int r = put_resolvers(c, &t->resolvers);

	for (unsigned i = 0; r == 0 && i < c->egress.never_dial_count; i++)
		r = wire_list_add_z(&t->never_dial, c->egress.never_dial[i]);
	if (r == 0)
		r = put_private_allow(c, &t->private_allow);
	if (r < 0)
		return r;
	*ret = (struct msg_egress_config){
		.workspace = workspace,
		.resolvers = buf_str(&t->resolvers),
		.never_dial = buf_str(&t->never_dial),
		.private_allow = buf_str(&t->private_allow),
		.synthetic_base = c->egress.synthetic_base,
		.synthetic_prefix = c->egress.synthetic_prefix,
		.max_connections_per_vm = c->egress.max_connections_per_vm,
		.peek_timeout_ms = c->egress.peek_timeout_s * 1000,
		.connect_timeout_ms = c->egress.connect_timeout_s * 1000,
		.idle_timeout_ms = c->egress.idle_timeout_s * 1000,
		.total_timeout_ms = c->egress.total_timeout_s * 1000,
	};
	return 0;
}

static struct msg_audit_config audit_record(const struct conf *c)
{
	return (struct msg_audit_config){.segment_bytes = c->audit.segment_mib << 20,
					 .sync_interval_ms = c->audit.sync_interval_ms};
}

/* --- sending --- */

static int send_config(int fd, enum msg_type type, const void *record, const int *fds, size_t nfds, const char *name,
		       struct error *reterr)
{
	int r = ipc_send_blocking(fd, type, 0, record, fds, nfds);

	return r < 0 ? error_set(reterr, r, "configuration of %s: %s", name, strerror(-r)) : 0;
}

int config_send_api(const struct broker *b, int fd, struct error *reterr)
{
	struct msg_api_config m = api_record(b->conf);
	_cleanup_close_ int cert = -1;
	_cleanup_close_ int key = -1;
	int fds[2 + MAX_LISTENERS], r;

	if ((r = certificate_open(b->conf, &cert, &key, reterr)) < 0)
		return r;
	fds[0] = cert;
	fds[1] = key;
	m.listeners = (uint8_t)b->listeners->n;
	m.metrics = b->listeners->metrics;
	memcpy(fds + 2, b->listeners->fds, b->listeners->n * sizeof(int));
	return send_config(fd, MSG_TYPE_msg_api_config, &m, fds, 2 + b->listeners->n, "iron-api", reterr);
}

int config_send_control(const struct broker *b, int fd, struct error *reterr)
{
	_cleanup_(text_finish) struct text t = {0};
	struct msg_control_config m;
	int r = control_record(b->conf, &t, &m, reterr);

	return r < 0 ? r : send_config(fd, MSG_TYPE_msg_control_config, &m, NULL, 0, "iron-control", reterr);
}

int config_send_audit(const struct broker *b, int fd, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/audit", b->conf->state_dir);
	_cleanup_close_ int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct msg_audit_config m = audit_record(b->conf);

	if (dir < 0)
		return error_set(reterr, -errno, "%s: %s", path, strerror(errno));
	return send_config(fd, MSG_TYPE_msg_audit_config, &m, &dir, 1, "iron-audit", reterr);
}

int config_send_egress(const struct broker *b, uint64_t workspace, int fd, struct error *reterr)
{
	_cleanup_(text_finish) struct text t = {0};
	struct msg_egress_config m;
	int r = egress_record(b->conf, workspace, &t, &m);

	if (r < 0)
		return error_set(reterr, r, "egress configuration: %s", strerror(-r));
	return send_config(fd, MSG_TYPE_msg_egress_config, &m, NULL, 0, "iron-egress", reterr);
}

int config_send_vm(const struct broker *b, const char *run_dir, uint64_t vm, uint64_t generation, int fd,
		   struct error *reterr)
{
	static const char *const names[] = {"qmp.sock", "agent.sock", "console.sock"};
	struct msg_vm_config m = {
		.vm = vm, .generation = generation, .boot_timeout_ms = b->conf->limits.boot_timeout_s * 1000};
	int fds[ARRAY_SIZE(names)], r = 0;
	size_t n = 0;

	for (; r == 0 && n < ARRAY_SIZE(names); n++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", run_dir, names[n]);
		r = unix_connect_now(path, &fds[n]); /* a taken QEMU that does not accept must not stop irond */
		if (r < 0) {
			error_set(reterr, r, "%s: %s", path, strerror(-r));
			break;
		}
	}
	if (r == 0)
		r = send_config(fd, MSG_TYPE_msg_vm_config, &m, fds, n, "iron-vm", reterr);
	while (n > 0)
		close(fds[--n]);
	return r;
}

enum log_level conf_log_level(const struct conf *conf)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(conf->log_level, names[i]) == 0)
			return (enum log_level)i;
	return LOG_LEVEL_INFO;
}

/* --- has it changed? --- */

int config_fingerprint(const struct conf *conf, enum role kind, struct buf *out, struct error *reterr)
{
	_cleanup_(text_finish) struct text t = {0};
	struct msg_control_config control;
	struct msg_egress_config egress;
	struct msg_api_config api = api_record(conf);
	struct msg_audit_config audit = audit_record(conf);
	int r = buf_printf(out, "%s\n", conf->log_level);

	if (r < 0)
		return r;
	if (kind == ROLE_API) {
		r = wire_encode(&msg_api_config_wire, &api, out);
		for (unsigned i = 0; r == 0 && i < conf->listen_count; i++)
			r = wire_list_add_z(out, conf->listen[i]);
		return r < 0 ? r : wire_list_add_z(out, conf->metrics_listen);
	}
	if (kind == ROLE_CONTROL) {
		r = control_record(conf, &t, &control, reterr);
		return r < 0 ? r : wire_encode(&msg_control_config_wire, &control, out);
	}
	if (kind == ROLE_EGRESS) {
		r = egress_record(conf, 0, &t, &egress);
		return r < 0 ? r : wire_encode(&msg_egress_config_wire, &egress, out);
	}
	return kind == ROLE_AUDIT ? wire_encode(&msg_audit_config_wire, &audit, out) : 0;
}
