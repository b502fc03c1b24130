#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broker/qemu_command.h"

/* What both accelerators share, in order. */
#define DEVICES                                                                                                        \
	"-name\n"                                                                                                      \
	"iron-000000000000002a\n"                                                                                      \
	"-nodefaults\n"                                                                                                \
	"-no-user-config\n"                                                                                            \
	"-display\n"                                                                                                   \
	"none\n"                                                                                                       \
	"-sandbox\n"                                                                                                   \
	"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n"                                    \
	"-msg\n"                                                                                                       \
	"timestamp=on\n"                                                                                               \
	"-kernel\n"                                                                                                    \
	"/proc/self/fd/6\n"                                                                                            \
	"-initrd\n"                                                                                                    \
	"/proc/self/fd/7\n"                                                                                            \
	"-append\n"                                                                                                    \
	"console=ttyS0 quiet panic=-1 reboot=t net.ifnames=0 no_timer_check tsc=reliable nowatchdog"

#define CHANNELS                                                                                                       \
	"-chardev\n"                                                                                                   \
	"socket,id=qmp,fd=3,server=on,wait=off\n"                                                                      \
	"-mon\n"                                                                                                       \
	"chardev=qmp,mode=control\n"                                                                                   \
	"-chardev\n"                                                                                                   \
	"socket,id=console,fd=5,server=on,wait=off\n"                                                                  \
	"-serial\n"                                                                                                    \
	"chardev:console\n"                                                                                            \
	"-device\n"                                                                                                    \
	"virtio-serial-pci,id=serial,max_ports=2,addr=3\n"                                                             \
	"-chardev\n"                                                                                                   \
	"socket,id=agent,fd=4,server=on,wait=off\n"                                                                    \
	"-device\n"                                                                                                    \
	"virtserialport,id=iron.0,bus=serial.0,nr=1,chardev=agent,name=iron.0\n"                                                 \
	"-object\n"                                                                                                    \
	"rng-builtin,id=rng\n"                                                                                         \
	"-device\n"                                                                                                    \
	"virtio-rng-pci,rng=rng,addr=4\n"

#define NETWORK                                                                                                        \
	"-netdev\n"                                                                                                    \
	"tap,id=net,fd=8,vhost=off\n"                                                                                  \
	"-device\n"                                                                                                    \
	"virtio-net-pci,netdev=net,romfile=,mac=02:00:00:00:00:02,addr=5,csum=on,guest_csum=on,gso=off,host_tso4=on,"  \
	"guest_tso4=on,host_tso6=off,guest_tso6=off,host_ecn=off,guest_ecn=off,host_ufo=off,guest_ufo=off,"            \
	"mrg_rxbuf=on\n"

#define FRONT(accelerator, cpu)                                                                                        \
	"/usr/bin/qemu-system-x86_64\n"                                                                                \
	"-M\n"                                                                                                         \
	"microvm,pcie=on,x-option-roms=off,rtc=on,memory-backend=ram\n"                                                \
	"-accel\n" accelerator "\n"                                                                                    \
	"-cpu\n" cpu "\n"                                                                                              \
	"-smp\n"                                                                                                       \
	"2\n"                                                                                                          \
	"-m\n"                                                                                                         \
	"2048\n"                                                                                                       \
	"-object\n"                                                                                                    \
	"memory-backend-ram,id=ram,size=2048M,share=off\n"                                                             \
	"-rtc\n"                                                                                                       \
	"base=utc\n"

static struct image_files image_make(const char *cmdline, int disk_fd)
{
	struct image_files image = {.kernel_fd = 30, .initrd_fd = 31, .disk_fd = disk_fd};
	snprintf(image.cmdline, sizeof image.cmdline, "%s", cmdline);
	return image;
}

static void check(const struct qemu_args *a, const char *cpu, const char *expected)
{
	_cleanup_(qemu_argv_finish) qemu_argv argv = {0};
	_cleanup_(buf_finish) struct buf text = {0};

	qemu_command_build(a, cpu, &argv);
	assert_null(argv.v[argv.n - 1]);
	for (size_t i = 0; i + 1 < argv.n; i++)
		buf_printf(&text, "%s\n", argv.v[i]);
	_cleanup_free_ char *got = buf_take_z(&text);
	assert_string_equal(got, expected);
}

static void tcg_with_a_disk(void **state)
{
	const struct image_files image = image_make("root=/dev/vda rw", 32);
	const struct qemu_args a = {.vm = 42, .vcpus = 2, .memory_mib = 2048, .tsc_khz = 2596148, .image = &image,
				    .overlay_fd = 33, .tap_fd = 34};

	check(&a, "Westmere-v1,+rdrand",
	      FRONT("tcg,tb-size=64", "Westmere-v1,+rdrand") DEVICES " mitigations=off tsc_early_khz=2596148 root=/dev/vda rw\n" CHANNELS NETWORK
	      "-add-fd\n"
	      "fd=10,set=2\n"
	      "-blockdev\n"
	      "driver=file,node-name=base-file,filename=/dev/fdset/2,read-only=on,auto-read-only=off,locking=off\n"
	      "-blockdev\n"
	      "driver=raw,node-name=base,file=base-file,read-only=on\n"
	      "-add-fd\n"
	      "fd=9,set=1\n"
	      "-blockdev\n"
	      "driver=file,node-name=disk0-file,filename=/dev/fdset/1,discard=unmap,aio=threads\n"
	      "-blockdev\n"
	      "driver=qcow2,node-name=disk0,file=disk0-file,discard=unmap,backing=base\n"
	      "-device\n"
	      "virtio-blk-pci,drive=disk0,addr=6,werror=stop,rerror=report,serial=iron\n");
}

static void kvm_without_disk_or_network(void **state)
{
	const struct image_files image = image_make("", -1);
	const struct qemu_args a = {.vm = 42, .vcpus = 2, .memory_mib = 2048, .kvm = true, .image = &image, .overlay_fd = -1,
				    .tap_fd = -1};

	check(&a, "EPYC-v3", FRONT("kvm", "EPYC-v3") DEVICES "\n" CHANNELS);
}

static void a_disk_without_a_base_has_no_backing_node(void **state)
{
	const struct image_files image = image_make("", -1);
	const struct qemu_args a = {.vm = 42, .vcpus = 2, .memory_mib = 2048, .image = &image, .overlay_fd = 33, .tap_fd = -1};

	check(&a, "Westmere-v1,+rdrand",
	      FRONT("tcg,tb-size=64", "Westmere-v1,+rdrand") DEVICES " mitigations=off\n" CHANNELS
	      "-add-fd\n"
	      "fd=9,set=1\n"
	      "-blockdev\n"
	      "driver=file,node-name=disk0-file,filename=/dev/fdset/1,discard=unmap,aio=threads\n"
	      "-blockdev\n"
	      "driver=qcow2,node-name=disk0,file=disk0-file,discard=unmap\n"
	      "-device\n"
	      "virtio-blk-pci,drive=disk0,addr=6,werror=stop,rerror=report,serial=iron\n");
}

#define LIMITED(limits)                                                                                                \
	"-add-fd\n"                                                                                                    \
	"fd=9,set=1\n"                                                                                                 \
	"-blockdev\n"                                                                                                  \
	"driver=file,node-name=disk0-file,filename=/dev/fdset/1,discard=unmap,aio=threads\n"                           \
	"-blockdev\n"                                                                                                  \
	"driver=qcow2,node-name=disk0,file=disk0-file,discard=unmap\n"                                                 \
	"-object\n"                                                                                                    \
	"{\"qom-type\":\"throttle-group\",\"id\":\"disk-limits\",\"limits\":{" limits "}}\n"                           \
	"-blockdev\n"                                                                                                  \
	"driver=throttle,node-name=disk0-limited,throttle-group=disk-limits,file=disk0\n"                              \
	"-device\n"                                                                                                    \
	"virtio-blk-pci,drive=disk0-limited,addr=6,werror=stop,rerror=report,serial=iron\n"

static void a_disk_is_held_to_its_limits(void **state)
{
	const struct image_files image = image_make("", -1);
	struct qemu_args a = {.vm = 42, .vcpus = 2, .memory_mib = 2048, .image = &image, .overlay_fd = 33, .tap_fd = -1};

	a.disk_limits = (struct disk_limits){.iops = 500, .mib_per_s = 4096, .mib_per_s_burst = 8192, .burst_s = 10};
	check(&a, "Westmere-v1,+rdrand",
	      FRONT("tcg,tb-size=64", "Westmere-v1,+rdrand") DEVICES " mitigations=off\n" CHANNELS
	      LIMITED("\"iops-total\":500,\"bps-total\":4294967296,\"bps-total-max\":8589934592,\"bps-total-max-length\":10"));
	/* a burst that is none */
	a.disk_limits = (struct disk_limits){.mib_per_s = 1, .mib_per_s_burst = 1, .iops_burst = 7, .burst_s = 10};
	check(&a, "Westmere-v1,+rdrand",
	      FRONT("tcg,tb-size=64", "Westmere-v1,+rdrand") DEVICES " mitigations=off\n" CHANNELS LIMITED("\"bps-total\":1048576"));
}

static void the_cpu_model_is_a_named_one(void **state)
{
	assert_string_equal(qemu_cpu_model(false), "Westmere-v1,+rdrand");
	assert_string_not_equal(qemu_cpu_model(true), "host");
	assert_string_not_equal(qemu_cpu_model(true), "max");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tcg_with_a_disk),
		cmocka_unit_test(kvm_without_disk_or_network),
		cmocka_unit_test(a_disk_without_a_base_has_no_backing_node),
		cmocka_unit_test(a_disk_is_held_to_its_limits),
		cmocka_unit_test(the_cpu_model_is_a_named_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
