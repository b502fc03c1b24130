#include "broker/boot_check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/text.h"
#include "codec/agent.h"
#include "os/fdutil.h"

#define HELLO_INTERVAL_MS 250
#define TAIL_BYTES 400
#define KEPT_BYTES 4096
/* Of the uid range, the last: that of the VM in the last slot, which a host has no memory for. */
#define UID_OFFSET 36863U

/* The last bytes that came from somewhere. */
struct tail {
	uint8_t bytes[KEPT_BYTES];
	size_t n;
};

struct run {
	const struct boot_check *check;
	char *dir;
	uid_t uid;
	int overlay_fd, log_fd, agent_fd, console_fd;
	struct qemu_process qemu;
	struct tail agent, console;
	uint8_t nonce[AGENT_NONCE_SIZE];
	uint64_t started_ms, hello_ms;
};

static void tail_add(struct tail *t, const uint8_t *p, size_t n)
{
	if (n > KEPT_BYTES) {
		p += n - KEPT_BYTES;
		n = KEPT_BYTES;
	}
	size_t keep = MIN(t->n, KEPT_BYTES - n);
	memmove(t->bytes, t->bytes + t->n - keep, keep);
	memcpy(t->bytes + keep, p, n);
	t->n = keep + n;
}

/* False at the end of the stream. */
static bool tail_read(struct tail *t, int fd)
{
	uint8_t space[KEPT_BYTES];
	ssize_t n = read(fd, space, sizeof space);

	if (n > 0)
		tail_add(t, space, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static int overlay_make(struct run *r, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/check.qcow2", r->check->scratch);

	if (r->check->image->disk_fd < 0)
		return 0;
	unlink(path);
	int e = overlay_create(path, r->check->image->disk_fd, 1, r->uid, r->uid, reterr);
	if (e < 0)
		return e;
	r->overlay_fd = open(path, O_RDWR | O_CLOEXEC);
	e = r->overlay_fd < 0 ? error_set(reterr, -errno, "%s: %s", path, strerror(errno)) : 0;
	unlink(path);
	return e;
}

static int directory_make(struct run *r, struct error *reterr)
{
	r->dir = xasprintf("%s/check-%d", r->check->conf->run_dir, getpid());
	int e = dir_make_parents(r->check->conf->run_dir);
	if (e == 0)
		e = dir_make(r->dir, 0700, 0, 0);
	return e < 0 ? error_set(reterr, e, "%s: %s", r->dir, strerror(-e)) : 0;
}

static int channel_connect(const char *dir, const char *name, int *ret_fd, struct error *reterr)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	int e = unix_connect(path, ret_fd);

	if (e < 0)
		return error_set(reterr, e, "%s: %s", path, strerror(-e));
	return fcntl(*ret_fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int start(struct run *r, struct error *reterr)
{
	const struct boot_check *c = r->check;
	int e;

	r->log_fd = memfd_create("qemu-log", MFD_CLOEXEC);
	if (r->log_fd < 0)
		return error_set(reterr, -errno, "memfd: %s", strerror(errno));
	if ((e = directory_make(r, reterr)) < 0 || (e = overlay_make(r, reterr)) < 0)
		return e;
	const struct qemu_args args = {
		.uid = r->uid,
		.gid = r->uid,
		.vcpus = 1,
		.memory_mib = c->memory_mib,
		.kvm = c->kvm,
		.tsc_khz = c->tsc_khz,
		.image = c->image,
		.overlay_fd = r->overlay_fd,
		.tap_fd = -1,
		.run_dir = r->dir,
		.log_fd = r->log_fd,
	};
	if ((e = qemu_spawn(&args, &r->qemu, reterr)) < 0)
		return e;
	r->started_ms = mono_ms();
	if ((e = channel_connect(r->dir, "agent.sock", &r->agent_fd, reterr)) < 0)
		return e;
	return channel_connect(r->dir, "console.sock", &r->console_fd, reterr);
}

static void finish(struct run *r)
{
	if (r->qemu.pid > 0) {
		kill(r->qemu.pid, SIGKILL);
		while (waitpid(r->qemu.pid, NULL, 0) < 0 && errno == EINTR)
			;
		close(r->qemu.pidfd);
	}
	closep(&r->agent_fd);
	closep(&r->console_fd);
	closep(&r->overlay_fd);
	closep(&r->log_fd);
	if (r->dir)
		dir_remove(r->dir);
	free(r->dir);
}

/* Lost while the guest has not opened its port: so it is said again and again. */
static void hello_send(struct run *r)
{
	_cleanup_(buf_finish) struct buf hello = {0};

	r->hello_ms = mono_ms();
	if (agent_hello_encode(AGENT_HELLO, r->nonce, &hello) == 0 && write(r->agent_fd, hello.data, hello.len) < 0)
		return; /* full: earlier ones still wait there */
}

static int fail(struct run *r, int code, const char *what, struct error *reterr)
{
	_cleanup_(buf_finish) struct buf text = {0};
	char said[TAIL_BYTES];
	struct tail *from = &r->console;
	ssize_t n = pread(r->log_fd, said, sizeof said, 0);

	if (n > 0 && code == -ECHILD)
		escape_terminal(str_of(strndupa(said, (size_t)n)), &text);
	else if (from->n)
		escape_terminal(str_make(from->bytes + from->n - MIN(from->n, (size_t)TAIL_BYTES),
					 MIN(from->n, (size_t)TAIL_BYTES)), &text);
	return error_set(reterr, code, "%s%s%.*s", what, text.len ? "; its last words: " : "", STR_ARG(buf_str(&text)));
}

/* One turn: 1 the agent answered, 0 go on. */
static int turn(struct run *r, struct error *reterr)
{
	struct pollfd p[] = {{.fd = r->agent_fd, .events = POLLIN},
			     {.fd = r->console_fd, .events = POLLIN},
			     {.fd = r->qemu.pidfd, .events = POLLIN},
			     {.fd = r->check->stop_fd, .events = POLLIN}};

	if (poll(p, ARRAY_SIZE(p), HELLO_INTERVAL_MS) < 0 && errno != EINTR)
		return error_set(reterr, -errno, "poll: %s", strerror(errno));
	if (p[3].revents)
		return error_set(reterr, -EINTR, "interrupted");
	if (p[1].revents && !tail_read(&r->console, r->console_fd))
		r->console_fd = (close(r->console_fd), -1);
	if (p[0].revents && !tail_read(&r->agent, r->agent_fd))
		return fail(r, -ECHILD, "QEMU closed the agent's channel", reterr);
	if (memmem(r->agent.bytes, r->agent.n, r->nonce, sizeof r->nonce))
		return 1;
	if (p[2].revents)
		return fail(r, -ECHILD, "QEMU ended before the agent answered", reterr);
	if (mono_ms() - r->hello_ms >= HELLO_INTERVAL_MS)
		hello_send(r);
	return 0;
}

static int wait_for_agent(struct run *r, uint64_t *ret_ms, struct error *reterr)
{
	int e;

	if (getrandom(r->nonce, sizeof r->nonce, 0) != sizeof r->nonce)
		return error_set(reterr, -EIO, "no random numbers");
	while ((e = turn(r, reterr)) == 0)
		if (mono_ms() - r->started_ms > r->check->deadline_ms)
			return fail(r, -ETIMEDOUT, "the agent did not answer in time", reterr);
	if (e < 0)
		return e;
	*ret_ms = mono_ms() - r->started_ms;
	return 0;
}

int boot_check_run(const struct boot_check *c, uint64_t *ret_ms, struct error *reterr)
{
	struct run r = {
		.check = c,
		.uid = c->conf->uid_base + UID_OFFSET,
		.overlay_fd = -1,
		.log_fd = -1,
		.agent_fd = -1,
		.console_fd = -1,
	};
	int e = start(&r, reterr);

	if (e == 0)
		e = wait_for_agent(&r, ret_ms, reterr);
	finish(&r);
	return e;
}
