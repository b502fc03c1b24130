/* What a run has used. The numbers come from places of different lives: the group and the overlay outlast QEMU, its
 * /proc entry lasts until it is reaped, the tap's counters as long as somebody holds the tap. So what was read once is
 * kept, and a number never falls. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "broker/vm_impl.h"
#include "os/fdutil.h"

static void raise_to(uint64_t *known, uint64_t now)
{
	if (now > *known)
		*known = now;
}

/* proc_pid_io(5). */
static void read_io(const struct vm *v, struct rec_vm_usage *u)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str text, line, name;
	char path[32];
	uint64_t n;

	snprintf(path, sizeof path, "/proc/%d/io", v->qemu.pid);
	if (v->qemu.pidfd < 0 || file_read(path, 4096, &b) < 0)
		return;
	text = buf_str(&b);
	while (str_split(&text, '\n', &line)) {
		if (!str_split(&line, ':', &name) || str_parse_u64(str_trim(line, " "), UINT64_MAX, &n) < 0)
			continue;
		if (str_eq(name, STR("read_bytes")))
			raise_to(&u->disk_read_bytes, n);
		else if (str_eq(name, STR("write_bytes")))
			raise_to(&u->disk_written_bytes, n);
	}
}

static void read_disk(const struct vm *v, struct rec_vm_usage *u)
{
	_cleanup_free_ char *path = xasprintf("%s/overlay.qcow2", v->dir);
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	u->disk_bytes = (uint64_t)st.st_blocks * 512;
	u->disk_limit_bytes = (uint64_t)v->record.disk_gib << 30;
}

static void read_group(const struct vm *v, struct rec_vm_usage *u)
{
	struct cgroup_usage g;

	if (!v->group)
		return;
	cgroup_usage(v->group, &g);
	raise_to(&u->cpu_us, g.cpu_us);
	raise_to(&u->memory_peak_bytes, g.memory_peak_bytes);
	u->memory_bytes = g.memory_bytes;
	u->memory_limit_bytes = g.memory_limit_bytes;
}

static void read_network(const struct vm *v, struct rec_vm_usage *u)
{
	_cleanup_free_ char *pin = xasprintf("%s/net", v->run_dir);
	uint64_t sent, received;

	if (vm_net_bytes(pin, &sent, &received) < 0)
		return;
	raise_to(&u->net_sent_bytes, sent);
	raise_to(&u->net_received_bytes, received);
}

void vm_usage_read(struct vm *v)
{
	read_disk(v, &v->usage);
	if (v->phase == PHASE_STOPPED)
		return;
	read_group(v, &v->usage);
	read_io(v, &v->usage);
	read_network(v, &v->usage);
}

struct str vm_usage_encode(const struct vm *v, struct buf *space)
{
	buf_clear(space);
	return wire_encode(&rec_vm_usage_wire, &v->usage, space) == 0 ? buf_str(space) : STR_NONE;
}

void vm_stats(struct broker *b, uint64_t id, struct reply to)
{
	struct vm *v = map_get(&b->vms, id);
	struct msg_vm_stats m = {.vm = id};

	if (!v) {
		broker_answer(b, to, -ENOENT, "there is no such VM", 0);
		return;
	}
	vm_usage_read(v);
	m.generation = v->generation;
	m.running = v->phase == PHASE_RUNNING;
	if (m.running) {
		const struct rec_vm_usage *u = &v->usage;
		m.cpu_us = u->cpu_us;
		m.memory_bytes = u->memory_bytes;
		m.memory_peak_bytes = u->memory_peak_bytes;
		m.memory_limit_bytes = u->memory_limit_bytes;
		m.disk_read_bytes = u->disk_read_bytes;
		m.disk_written_bytes = u->disk_written_bytes;
		m.net_sent_bytes = u->net_sent_bytes;
		m.net_received_bytes = u->net_received_bytes;
	}
	m.disk_bytes = v->usage.disk_bytes;
	m.disk_limit_bytes = v->usage.disk_limit_bytes;
	if (role_peer(b->control) && role_incarnation(b->control) == to.incarnation)
		ipc_reply(role_peer(b->control), to.txn, MSG_TYPE_msg_vm_stats, &m, NULL, 0);
}
