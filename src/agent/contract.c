#include "agent/contract.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/environ.h"
#include "agent/file.h"
#include "agent/network.h"

#define CLOCK_SLACK_US 5000 /* closer than this a step does more harm than good */
#define HOSTS_MAX ((size_t)1 << 20)
#define BUNDLE "/etc/ssl/certs/ca-certificates.crt"
#define BUNDLE_SOURCE "/usr/local/share/ca-certificates/iron.crt"
#define BUNDLE_MARK "# Authorities given by iron follow; they are written anew at each start.\n"
#define BUNDLE_MAX ((size_t)8 << 20)

static int run_network(const void *record, struct error *reterr)
{
	return network_configure(record, reterr);
}

static int run_dns(const void *record, struct error *reterr)
{
	const struct agent_dns *r = record;
	_cleanup_(buf_finish) struct buf text = {0};
	struct str list = r->servers, server;
	struct in_addr address;
	char z[INET_ADDRSTRLEN];

	while (wire_list_next(&list, &server)) {
		if (str_copy(server, z, sizeof z) || inet_pton(AF_INET, z, &address) != 1)
			return error_set(reterr, -EINVAL, "a name server is not an IPv4 address");
		buf_printf(&text, "nameserver %s\n", z);
	}
	int e = file_write("/etc/resolv.conf", buf_str(&text), 0644);
	return e ? error_set(reterr, e, "cannot write /etc/resolv.conf: %s", strerror(-e)) : 0;
}

static int run_clock(const void *record, struct error *reterr)
{
	const struct agent_clock *r = record;
	struct timespec now, then = {.tv_sec = r->real_us / 1000000, .tv_nsec = r->real_us % 1000000 * 1000};

	if (r->real_us < 0)
		return error_set(reterr, -EINVAL, "the time is before 1970");
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t now_us;
	if (__builtin_mul_overflow((int64_t)now.tv_sec, 1000000, &now_us))
		now_us = 0;
	now_us += now.tv_nsec / 1000;
	if (now_us > r->real_us - CLOCK_SLACK_US && now_us < r->real_us + CLOCK_SLACK_US)
		return 0;
	if (clock_settime(CLOCK_REALTIME, &then))
		return error_set(reterr, -errno, "cannot set the clock: %s", strerror(errno));
	return 0;
}

static int run_entropy(const void *record, struct error *reterr)
{
	const struct agent_entropy *r = record;
	_Alignas(struct rand_pool_info) char space[sizeof(struct rand_pool_info) + 512];
	struct rand_pool_info *pool = (struct rand_pool_info *)space;
	_cleanup_close_ int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return error_set(reterr, -errno, "cannot open /dev/urandom: %s", strerror(errno));
	if (r->seed.len < 32)
		return error_set(reterr, -EINVAL, "the seed is shorter than 32 bytes");
	pool->entropy_count = (int)r->seed.len * 8;
	pool->buf_size = (int)r->seed.len;
	memcpy(pool->buf, r->seed.p, r->seed.len);
	int e = ioctl(fd, RNDADDENTROPY, pool) || ioctl(fd, RNDRESEEDCRNG) ? -errno : 0;
	explicit_bzero(space, sizeof space);
	return e ? error_set(reterr, e, "cannot reseed the kernel: %s", strerror(-e)) : 0;
}

static bool is_hostname(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
		      (i && i + 1 < s.len && (c == '-' || c == '.'))))
			return false;
	}
	return s.len > 0;
}

static bool is_machine_id(struct str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return s.len == 32;
}

/* Debian's convention: the machine's own name is 127.0.1.1. Other lines stay as they are. */
static int write_hosts(struct str hostname)
{
	_cleanup_(buf_finish) struct buf old = BUF_MAX(HOSTS_MAX), new = {0};
	struct str line, rest;

	int r = file_read("/etc/hosts", &old);
	if (r == -ENOENT)
		r = buf_append_z(&old, "127.0.0.1\tlocalhost\n");
	if (r)
		return r;
	rest = str_trim(buf_str(&old), "\n");
	while (str_split(&rest, '\n', &line))
		if (!str_has_prefix(line, STR("127.0.1.1\t")) && !str_has_prefix(line, STR("127.0.1.1 ")))
			buf_printf(&new, "%.*s\n", STR_ARG(line));
	buf_printf(&new, "127.0.1.1\t%.*s\n", STR_ARG(hostname));
	return new.failed ? -EMSGSIZE : file_write("/etc/hosts", buf_str(&new), 0644);
}

static int write_line(const char *path, struct str value, mode_t mode)
{
	_cleanup_(buf_finish) struct buf text = {0};

	buf_append_str(&text, value);
	buf_append_byte(&text, '\n');
	return file_write(path, buf_str(&text), mode);
}

/* D-Bus keeps a copy, where it is not a link to the first one. */
static int write_machine_id(struct str id)
{
	struct stat st;

	int r = write_line("/etc/machine-id", id, 0444);
	if (r == 0 && lstat("/var/lib/dbus/machine-id", &st) == 0 && S_ISREG(st.st_mode))
		r = write_line("/var/lib/dbus/machine-id", id, 0444);
	return r;
}

static int run_identity(const void *record, struct error *reterr)
{
	const struct agent_identity *r = record;

	if (!is_hostname(r->hostname) || !is_machine_id(r->machine_id))
		return error_set(reterr, -EINVAL, "the hostname or the machine id is malformed");
	if (sethostname(r->hostname.p, r->hostname.len))
		return error_set(reterr, -errno, "cannot set the hostname: %s", strerror(errno));
	int e = write_line("/etc/hostname", r->hostname, 0644);
	if (e == 0)
		e = write_hosts(r->hostname);
	if (e)
		return error_set(reterr, e, "cannot write /etc/hostname and /etc/hosts: %s", strerror(-e));
	e = write_machine_id(r->machine_id);
	return e ? error_set(reterr, e, "cannot write /etc/machine-id: %s", strerror(-e)) : 0;
}

static int run_environment(const void *record, struct error *reterr)
{
	const struct agent_environment *r = record;
	_cleanup_(buf_finish) struct buf text = {0};

	int e = environ_format(r->environment, &text);
	if (e)
		return error_set(reterr, e, "an entry of the environment is not NAME=VALUE");
	e = file_write(ENVIRON_IRON, buf_str(&text), 0644);
	return e ? error_set(reterr, e, "cannot write %s: %s", ENVIRON_IRON, strerror(-e)) : 0;
}

/* Ours are a marked block at the end of the bundle that the guest's programs read, and a file from which
 * update-ca-certificates(8) would put them there again. (Running it here takes half a minute under emulation.) */
static int write_bundle(struct str pem)
{
	_cleanup_(buf_finish) struct buf bundle = BUF_MAX(BUNDLE_MAX);

	int r = file_read(BUNDLE, &bundle);
	if (r && r != -ENOENT)
		return r;
	const char *old = bundle.len ? memmem(bundle.data, bundle.len, BUNDLE_MARK, sizeof BUNDLE_MARK - 1) : NULL;
	if (!old && pem.len == 0)
		return 0;
	if (old)
		bundle.len = (size_t)((const uint8_t *)old - bundle.data);
	if (pem.len) {
		buf_append_z(&bundle, BUNDLE_MARK);
		buf_append_str(&bundle, pem);
		buf_append_byte(&bundle, '\n');
	}
	return bundle.failed ? -EMSGSIZE : file_write(BUNDLE, buf_str(&bundle), 0644);
}

static int run_trust(const void *record, struct error *reterr)
{
	const struct agent_trust *r = record;

	int e = write_bundle(r->pem);
	if (e)
		return error_set(reterr, e, "cannot write %s: %s", BUNDLE, strerror(-e));
	e = r->pem.len                                 ? file_write(BUNDLE_SOURCE, r->pem, 0644)
	    : unlink(BUNDLE_SOURCE) && errno != ENOENT ? -errno
						       : 0;
	return e ? error_set(reterr, e, "cannot write %s: %s", BUNDLE_SOURCE, strerror(-e)) : 0;
}

static int run_generation(const void *record, struct error *reterr)
{
	const struct agent_generation *r = record;
	char text[24];

	snprintf(text, sizeof text, "%llu", (unsigned long long)r->generation);
	int e = write_line("/run/iron/generation", str_of(text), 0644);
	return e ? error_set(reterr, e, "cannot write /run/iron/generation: %s", strerror(-e)) : 0;
}

struct step {
	const char *name;
	const struct wire_type *wire;
	int (*run)(const void *record, struct error *reterr);
};

union step_record {
#define MEMBER(name, record) struct record name;
	AGENT_STEPS(MEMBER)
};

int contract_run(struct str name, struct str body, struct error *reterr)
{
#define STEP(name, record) {#name, &record##_wire, run_##name},
	static const struct step steps[] = {AGENT_STEPS(STEP)};
	union step_record record;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		if (!str_eq(name, str_of(steps[i].name)))
			continue;
		if (wire_decode(steps[i].wire, body, &record))
			return error_set(reterr, -EBADMSG, "the step's record is malformed");
		return steps[i].run(&record, reterr);
	}
	return error_set(reterr, -ENOSYS, "this agent has no such step");
}
