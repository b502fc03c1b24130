#include "broker/qemu_command.h"

#include <cpuid.h>
#include <stdarg.h>
#include <string.h>

#include "base/buf.h"

#define KERNEL_COMMAND_LINE                                                                                            \
	"console=ttyS0 quiet panic=-1 reboot=t net.ifnames=0 no_timer_check tsc=reliable nowatchdog"

static void add(qemu_argv *argv, const char *option, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void add(qemu_argv *argv, const char *option, const char *fmt, ...)
{
	va_list args;
	char *value;

	VEC_PUSH(argv, xstrdup(option));
	if (!fmt)
		return;
	va_start(args, fmt);
	if (vasprintf(&value, fmt, args) < 0)
		abort();
	va_end(args);
	VEC_PUSH(argv, value);
}

static void add_machine(qemu_argv *argv, const struct qemu_args *a, const char *cpu_model)
{
	add(argv, "-M", "microvm,pcie=on,x-option-roms=off,rtc=on,memory-backend=ram");
	/* The default translation buffer costs up to 400 MiB a VM. */
	add(argv, "-accel", a->kvm ? "kvm" : "tcg,tb-size=64");
	add(argv, "-cpu", "%s", cpu_model);
	add(argv, "-smp", "%u", a->vcpus);
	add(argv, "-m", "%u", a->memory_mib);
	add(argv, "-object", "memory-backend-ram,id=ram,size=%uM,share=off", a->memory_mib);
	add(argv, "-rtc", "base=utc");
}

static void add_confinement(qemu_argv *argv, const struct qemu_args *a)
{
	add(argv, "-name", "iron-%016llx", (unsigned long long)a->vm);
	add(argv, "-nodefaults", NULL);
	add(argv, "-no-user-config", NULL);
	add(argv, "-display", "none");
	add(argv, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(argv, "-msg", "timestamp=on");
}

static void add_kernel(qemu_argv *argv, const struct qemu_args *a)
{
	_cleanup_(buf_finish) struct buf line = {0};

	buf_append_z(&line, KERNEL_COMMAND_LINE);
	/* An emulated processor checks before it reads, and runs none of the guest's own branches: there is nothing to
	 * mitigate, and the flush of page tables at each system call costs TCG half of what it moves. */
	if (!a->kvm)
		buf_append_z(&line, " mitigations=off");
	/* Under TCG one boot in three hangs while the kernel calibrates its TSC; told, it does not calibrate. */
	if (a->tsc_khz)
		buf_printf(&line, " tsc_early_khz=%u", a->tsc_khz);
	if (a->image->cmdline[0])
		buf_printf(&line, " %s", a->image->cmdline);
	add(argv, "-kernel", "/proc/self/fd/%d", QEMU_FD_KERNEL);
	add(argv, "-initrd", "/proc/self/fd/%d", QEMU_FD_INITRD);
	add(argv, "-append", "%.*s", STR_ARG(buf_str(&line)));
}

static void add_channels(qemu_argv *argv)
{
	add(argv, "-chardev", "socket,id=qmp,fd=%d,server=on,wait=off", QEMU_FD_QMP);
	add(argv, "-mon", "chardev=qmp,mode=control");
	add(argv, "-chardev", "socket,id=console,fd=%d,server=on,wait=off", QEMU_FD_CONSOLE);
	add(argv, "-serial", "chardev:console");
	add(argv, "-device", "virtio-serial-pci,id=serial,max_ports=2,addr=3");
	add(argv, "-chardev", "socket,id=agent,fd=%d,server=on,wait=off", QEMU_FD_AGENT);
	add(argv, "-device", "virtserialport,id=iron.0,bus=serial.0,nr=1,chardev=agent,name=iron.0");
	add(argv, "-object", "rng-builtin,id=rng");
	add(argv, "-device", "virtio-rng-pci,rng=rng,addr=4");
}

/* The offloads are named one by one: they are part of what a snapshot expects of its backend. */
static void add_network(qemu_argv *argv, const struct qemu_args *a)
{
	if (a->tap_fd < 0)
		return;
	add(argv, "-netdev", "tap,id=net,fd=%d,vhost=off", QEMU_FD_TAP);
	add(argv, "-device",
	    "virtio-net-pci,netdev=net,romfile=,mac=02:00:00:00:00:02,addr=5,csum=on,guest_csum=on,gso=off,"
	    "host_tso4=on,guest_tso4=on,host_tso6=off,guest_tso6=off,host_ecn=off,guest_ecn=off,host_ufo=off,"
	    "guest_ufo=off,mrg_rxbuf=on");
}

static void limit_put(struct buf *out, const char *name, uint64_t per_second, uint64_t burst, uint32_t burst_s)
{
	if (per_second == 0)
		return;
	buf_printf(out, "%s\"%s\":%llu", out->len ? "," : "", name, (unsigned long long)per_second);
	if (burst > per_second && burst_s > 0)
		buf_printf(out, ",\"%s-max\":%llu,\"%s-max-length\":%u", name, (unsigned long long)burst, name, burst_s);
}

/* QEMU's throttle group (docs/throttle.txt), above the overlay: what the guest asks for is counted, not what its layers make
 * of that. True when there is one. */
static bool add_throttle(qemu_argv *argv, const struct disk_limits *l)
{
	_cleanup_(buf_finish) struct buf limits = {0};

	limit_put(&limits, "iops-total", l->iops, l->iops_burst, l->burst_s);
	limit_put(&limits, "bps-total", (uint64_t)l->mib_per_s << 20, (uint64_t)l->mib_per_s_burst << 20, l->burst_s);
	if (limits.len == 0)
		return false;
	add(argv, "-object", "{\"qom-type\":\"throttle-group\",\"id\":\"disk-limits\",\"limits\":{%.*s}}",
	    STR_ARG(buf_str(&limits)));
	add(argv, "-blockdev", "driver=throttle,node-name=disk0-limited,throttle-group=disk-limits,file=disk0");
	return true;
}

/* Every layer is a descriptor with an explicit driver and backing node: no image header chooses a file. */
static void add_disk(qemu_argv *argv, const struct qemu_args *a)
{
	const bool base = a->image->disk_fd >= 0;

	if (a->overlay_fd < 0)
		return;
	if (base) {
		add(argv, "-add-fd", "fd=%d,set=2", QEMU_FD_BASE);
		add(argv, "-blockdev",
		    "driver=file,node-name=base-file,filename=/dev/fdset/2,read-only=on,auto-read-only=off,locking=off");
		add(argv, "-blockdev", "driver=raw,node-name=base,file=base-file,read-only=on");
	}
	add(argv, "-add-fd", "fd=%d,set=1", QEMU_FD_OVERLAY);
	add(argv, "-blockdev", "driver=file,node-name=disk0-file,filename=/dev/fdset/1,discard=unmap,aio=threads");
	add(argv, "-blockdev", "driver=qcow2,node-name=disk0,file=disk0-file,discard=unmap%s", base ? ",backing=base" : "");
	const char *top = add_throttle(argv, &a->disk_limits) ? "disk0-limited" : "disk0";
	/* A host out of room stops the guest, it does not corrupt it. */
	add(argv, "-device", "virtio-blk-pci,drive=%s,addr=6,werror=stop,rerror=report,serial=iron", top);
}

void qemu_command_build(const struct qemu_args *a, const char *cpu_model, qemu_argv *ret)
{
	qemu_argv argv = {0};

	VEC_PUSH(&argv, xstrdup(QEMU_BINARY));
	add_machine(&argv, a, cpu_model);
	add_confinement(&argv, a);
	add_kernel(&argv, a);
	add_channels(&argv);
	add_network(&argv, a);
	add_disk(&argv, a);
	VEC_PUSH(&argv, NULL);
	ret->v = argv.v;
	ret->n = argv.n;
	ret->cap = argv.cap;
}

void qemu_argv_finish(qemu_argv *argv)
{
	for (size_t i = 0; i < argv->n; i++)
		free(argv->v[i]);
	VEC_FINISH(argv);
}

const char *qemu_cpu_model(bool kvm)
{
	unsigned eax, vendor[4] = {0};

	if (!kvm)
		return "Westmere-v1,+rdrand";
	__get_cpuid(0, &eax, &vendor[0], &vendor[2], &vendor[1]);
	return memcmp(vendor, "AuthenticAMD", 12) == 0 ? "EPYC-v3" : "Haswell-v4";
}
