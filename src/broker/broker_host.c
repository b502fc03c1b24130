/* What `iron host` says of this machine. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "broker/requests.h"
#include "os/fdutil.h"
#include "os/sandbox.h"

/* A "Key:   123 kB" line of /proc/meminfo, in MiB. */
static uint64_t meminfo_mib(struct str text, struct str key)
{
	struct str line;
	uint64_t kib;

	while (str_split(&text, '\n', &line)) {
		if (!str_has_prefix(line, key))
			continue;
		struct str n = str_trim(str_make(line.p + key.len, line.len - key.len), " kB");
		return str_parse_u64(n, UINT64_MAX, &kib) == 0 ? kib >> 10 : 0;
	}
	return 0;
}

/* Of /proc/loadavg, whose first number has two decimals ("1.53 …"): 153. */
static uint32_t load_percent(struct str text)
{
	struct str whole;
	uint64_t n;

	if (!str_split(&text, '.', &whole) || str_parse_u64(whole, 1000000, &n) < 0 || text.len < 2)
		return 0;
	for (size_t i = 0; i < 2; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return 0;
		n = n * 10 + (uint64_t)(text.p[i] - '0');
	}
	return (uint32_t)n;
}

/* Whether the state lies on a dm-crypt device: /sys/dev/block/M:N/dm/uuid begins with CRYPT-. */
static const char *encryption_of(const char *dir)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct stat st;

	if (stat(dir, &st) < 0)
		return "unknown";
	_cleanup_free_ char *path = xasprintf("/sys/dev/block/%u:%u/dm/uuid", major(st.st_dev), minor(st.st_dev));
	if (file_read(path, 4096, &b) == 0 && str_has_prefix(buf_str(&b), STR("CRYPT-")))
		return "dm-crypt";
	return "none";
}

static void sandbox_text(const struct broker *b, char *ret, size_t size)
{
	struct sandbox_report r;

	sandbox_probe(&r);
	if (r.landlock_abi > 0 && r.seccomp)
		snprintf(ret, size, "full (Landlock ABI %d)", r.landlock_abi);
	else
		snprintf(ret, size, "degraded: without %s%s%s", r.landlock_abi > 0 ? "" : "Landlock",
			 r.landlock_abi > 0 || r.seccomp ? "" : " and ", r.seccomp ? "" : "seccomp");
}

void host_describe(const struct broker *b, struct host_text *space, struct msg_host *ret)
{
	_cleanup_(buf_finish) struct buf meminfo = {0}, loadavg = {0};
	struct utsname u = {0};
	struct statvfs vfs = {0};

	file_read("/proc/meminfo", 65536, &meminfo);
	file_read("/proc/loadavg", 4096, &loadavg);
	uname(&u);
	statvfs(b->conf->state_dir, &vfs);
	snprintf(space->kernel, sizeof space->kernel, "%.60s %.60s", u.sysname, u.release);
	snprintf(space->qemu, sizeof space->qemu, "%s", b->accel.qemu_version);
	snprintf(space->reason, sizeof space->reason, "%s", b->accel.reason);
	sandbox_text(b, space->sandbox, sizeof space->sandbox);
	*ret = (struct msg_host){
		.version = STR(IRON_VERSION),
		.accelerator = b->accel.kvm ? STR("kvm") : STR("tcg"),
		.accelerator_reason = str_of(space->reason),
		.isolation = b->accel.kvm ? STR("hardware") : STR("process"),
		.sandbox = str_of(space->sandbox),
		.encryption = str_of(encryption_of(b->conf->state_dir)),
		.qemu_version = str_of(space->qemu),
		.kernel = str_of(space->kernel),
		.cgroup = cgroup_version(b->cgroups) == 2 ? STR("v2") : STR("v1"),
		.cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
		.memory_total_mib = meminfo_mib(buf_str(&meminfo), STR("MemTotal:")),
		.memory_available_mib = meminfo_mib(buf_str(&meminfo), STR("MemAvailable:")),
		.disk_total_mib = (uint64_t)vfs.f_blocks * vfs.f_frsize >> 20,
		.disk_available_mib = (uint64_t)vfs.f_bavail * vfs.f_frsize >> 20,
		.load_1m_percent = load_percent(buf_str(&loadavg)),
	};
}
