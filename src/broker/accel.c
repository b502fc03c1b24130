/* Which accelerator guests get. /dev/kvm can open, make a VM and a vCPU and still be unable to run a stock kernel, so it is
 * believed only when an image of ours has booted under it. The verdict is kept below state_dir, with what it depends on:
 * host kernel, QEMU build, CPU model and microcode. A host without an image to boot has no verdict yet, and uses TCG. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/cleanup.h"
#include "broker/boot_check.h"
#include "broker/image_store.h"
#include "broker/qemu_command.h"
#include "os/fdutil.h"

#define CACHE "accel.json"
#define CACHE_MAX_BYTES ((size_t)8192)
#define CPUINFO_MAX_BYTES ((size_t)8 << 20)
#define PROBE_DEADLINE_MS 6000       /* mini takes less than one second where KVM works */
#define PROBE_DEADLINE_DISK_MS 15000
#define PROBE_MEMORY_MIB 512
#define TSC_SAMPLE_MS 100

static int qemu_version_read(char *ret, size_t size, struct error *reterr)
{
	char line[256] = "";
	int fds[2], status = 0;

	if (access(QEMU_BINARY, X_OK) < 0)
		return error_set(reterr, -ENOENT, QEMU_BINARY " is missing: install qemu-system-x86");
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set(reterr, -errno, "pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execl(QEMU_BINARY, QEMU_BINARY, "--version", (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	ssize_t n = read(fds[0], line, sizeof line - 1);
	close(fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n <= 0 || status != 0)
		return error_set(reterr, -EIO, QEMU_BINARY " --version says nothing");
	str_copy(str_make(line, MIN(strcspn(line, "\n"), size - 1)), ret, size);
	return 0;
}

static uint64_t raw_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A pair of readings that belong together: of several, the one that took least. */
static void sample(uint64_t *ret_tsc, uint64_t *ret_ns)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 16; i++) {
		uint64_t before = __rdtsc(), now = raw_ns(), after = __rdtsc();
		if (after - before >= best)
			continue;
		best = after - before;
		*ret_tsc = before + best / 2;
		*ret_ns = now;
	}
}

static uint32_t tsc_khz_measure(void)
{
	const struct timespec pause = {.tv_nsec = TSC_SAMPLE_MS * 1000000L};
	uint64_t tsc0 = 0, ns0 = 0, tsc1 = 0, ns1 = 0;

	sample(&tsc0, &ns0);
	nanosleep(&pause, NULL);
	sample(&tsc1, &ns1);
	return ns1 > ns0 ? (uint32_t)((tsc1 - tsc0) * 1000000 / (ns1 - ns0)) : 0;
}

/* "AMD EPYC microcode 0x…" */
static void cpu_describe(struct buf *out)
{
	static const char *const keys[] = {"model name", "microcode"};
	_cleanup_(buf_finish) struct buf text = {0};

	if (file_read("/proc/cpuinfo", CPUINFO_MAX_BYTES, &text) < 0 || buf_append_byte(&text, 0) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *at = strstr((const char *)text.data, keys[i]);
		const char *value = at ? strchr(at, ':') : NULL;
		if (value)
			buf_printf(out, " %s%.*s", keys[i], (int)strcspn(value, "\n"), value);
	}
}

/* All that a verdict depends on, as one line. */
static char *key_make(const struct accel *a)
{
	_cleanup_(buf_finish) struct buf key = {0};
	struct utsname host;

	uname(&host);
	buf_printf(&key, "%s %s; %s;", host.release, host.version, a->qemu_version);
	cpu_describe(&key);
	buf_printf(&key, "; %s", qemu_cpu_model(true));
	return buf_take_z(&key);
}

static bool cache_read(const char *state_dir, const char *key, struct accel *a)
{
	_cleanup_free_ char *path = xasprintf("%s/" CACHE, state_dir);
	_cleanup_(buf_finish) struct buf text = {0};

	if (file_read(path, CACHE_MAX_BYTES, &text) < 0)
		return false;
	json_auto_t *j = json_loadb((const char *)text.data, text.len, 0, NULL);
	const char *kept = json_string_value(json_object_get(j, "key"));
	const char *reason = json_string_value(json_object_get(j, "reason"));
	if (!kept || !reason || strcmp(kept, key) != 0)
		return false;
	a->kvm = json_is_true(json_object_get(j, "kvm"));
	snprintf(a->reason, sizeof a->reason, "%s", reason);
	return true;
}

/* A verdict that cannot be kept is found again next time. */
static void cache_write(const char *state_dir, const char *key, const struct accel *a)
{
	json_auto_t *j =
		json_pack("{s:s, s:b, s:s}", "key", key, "kvm", a->kvm, "reason", a->reason);
	_cleanup_free_ char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;

	if (text)
		file_replace(state_dir, CACHE, str_of(text), 0644);
}

/* mini if there is one, else the newest. */
static const struct image *probe_image(const struct image_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i].name, "mini") == 0)
			return &l->v[i];
	return l->n ? &l->v[0] : NULL;
}

/* True when there is a verdict. */
static bool probe(const struct conf *conf, struct accel *a)
{
	_cleanup_(image_list_finish) struct image_list images = {0};
	_cleanup_(image_files_close) struct image_files files = {.kernel_fd = -1, .initrd_fd = -1, .disk_fd = -1};
	struct error e = {0};
	uint64_t ms = 0;

	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		snprintf(a->reason, sizeof a->reason, "this host has no usable /dev/kvm (%s)", strerror(errno));
		return true;
	}
	const struct image *image = image_scan(conf->state_dir, &images, &e) < 0 ? NULL : probe_image(&images);
	if (!image || image_open(conf->state_dir, image->id, &files, &e) < 0) {
		snprintf(a->reason, sizeof a->reason,
			 "KVM is not proved yet: there is no image to boot under it (irond image build mini)");
		return false;
	}
	const struct boot_check check = {
		.conf = conf,
		.image = &files,
		.scratch = conf->run_dir,
		.kvm = true,
		.tsc_khz = a->tsc_khz,
		.memory_mib = PROBE_MEMORY_MIB,
		.deadline_ms = image->has_disk ? PROBE_DEADLINE_DISK_MS : PROBE_DEADLINE_MS,
		.stop_fd = -1,
	};
	a->kvm = boot_check_run(&check, &ms, &e) == 0;
	if (a->kvm)
		snprintf(a->reason, sizeof a->reason, "image %s booted under KVM in %u ms", image->name, (unsigned)ms);
	else
		snprintf(a->reason, sizeof a->reason, "image %s does not boot under KVM: %.160s", image->name, e.text);
	return true;
}

int accel_get(const struct conf *conf, struct accel *ret, struct error *reterr)
{
	struct accel a = {0};

	int r = qemu_version_read(a.qemu_version, sizeof a.qemu_version, reterr);
	if (r < 0)
		return r;
	a.tsc_khz = tsc_khz_measure();
	_cleanup_free_ char *key = key_make(&a);
	if (!cache_read(conf->state_dir, key, &a) && probe(conf, &a))
		cache_write(conf->state_dir, key, &a);
	*ret = a;
	return 0;
}
