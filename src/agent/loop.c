#include "agent/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "agent/contract.h"
#include "agent/fileop.h"
#include "agent/init.h"
#include "agent/port.h"
#include "agent/power.h"
#include "base/clock.h"
#include "base/log.h"

#define PORT_WAIT_MS 50 /* between looks at a port that is absent or has no host at its other end */

struct loop {
	const struct loop_options *options;
	struct channel channel;
	struct stream_set streams;
	struct exec_set execs;
	struct fileop_set fileops;
	struct power power;
	int children; /* signalfd of SIGCHLD */
	uint64_t quiet_until_ms;
	struct pollfd fds[2 + EXEC_POLLFDS * EXEC_MAX + FILEOP_POLLFDS * FILEOP_MAX];
};

static void on_reset(struct channel *c, void *user)
{
	struct loop *l = user;
	streams_reset(&l->streams);
}

static void power_off(struct loop *l)
{
	if (l->options->mode == LOOP_INIT)
		init_power_off();
	if (l->options->mode == LOOP_FD) {
		exec_signal(&l->execs, SIGTERM, false);
		exit(0);
	}
	power_begin(&l->power, &l->execs, mono_ms());
}

static bool run_step(struct loop *l, struct str payload)
{
	struct error error = {0};
	struct agent_step step;

	if (wire_decode(&agent_step_wire, payload, &step))
		return false;
	int r = contract_run(step.name, step.body, &error);
	struct agent_step_done done = {.id = step.id, .code = r, .reason = str_of(error.text)};
	done.reason.len = MIN(done.reason.len, (size_t)400);
	channel_send_record(&l->channel, AGENT_STEP_DONE, 0, &agent_step_done_wire, &done);
	return true;
}

static bool on_open(const struct agent_frame *f, void *user)
{
	struct loop *l = user;

	return f->type == AGENT_FILE ? fileop_open(&l->fileops, f) : exec_open(&l->execs, f);
}

static bool on_frame(struct channel *c, const struct agent_frame *f, void *user)
{
	struct loop *l = user;

	if (f->stream)
		return streams_on_frame(&l->streams, f);
	if (f->type == AGENT_PING)
		channel_send(c, AGENT_PONG, 0, f->payload);
	else if (f->type == AGENT_STEP)
		return run_step(l, f->payload);
	else if (f->type == AGENT_SHUTDOWN)
		power_off(l);
	else if (f->type == AGENT_HOLD)
		channel_send(c, AGENT_HELD, 0, STR_NONE);
	if (f->type == AGENT_HOLD || f->type == AGENT_RESUME)
		c->held = f->type == AGENT_HOLD;
	return true;
}

static void reap(struct loop *l)
{
	struct signalfd_siginfo drained[8];
	int status;

	while (read(l->children, drained, sizeof drained) > 0)
		;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
		exec_on_reaped(&l->execs, pid, status);
		fileop_on_reaped(&l->fileops, pid);
	}
}

/* A port whose host went away says end of file at once, each time: it is left alone for a while. */
static void rest(struct loop *l)
{
	l->quiet_until_ms = mono_ms() + PORT_WAIT_MS;
}

static void find_port(struct loop *l)
{
	int fd = port_open(l->options->port);

	if (fd >= 0) {
		channel_attach(&l->channel, fd);
		return;
	}
	if (fd != -ENOENT)
		log_limited(LOG_LEVEL_WARN, 1, "port not opened", "name=%s error=%s", l->options->port,
			    log_quote(strerror(-fd)));
	rest(l);
}

/* false: the loop ends. */
static bool after_io(struct loop *l, int r)
{
	if (r == 0)
		return true;
	if (l->options->mode == LOOP_FD) {
		channel_reset(&l->channel);
		return false;
	}
	if (r != -EPIPE)
		close(take_fd(l->channel.fd));
	if (l->channel.synced)
		log_info("channel lost", NULL);
	channel_reset(&l->channel);
	buf_clear(&l->channel.in);
	rest(l);
	return true;
}

static bool serve_channel(struct loop *l, short revents)
{
	int r = 0;

	if (revents & (POLLIN | POLLHUP | POLLERR))
		r = channel_read(&l->channel);
	if (r == 0 && channel_wants_output(&l->channel))
		r = channel_write(&l->channel);
	return after_io(l, r);
}

static int wait_ms(const struct loop *l, uint64_t now)
{
	int ms = exec_timeout_ms(&l->execs, now);

	if (l->quiet_until_ms > now) {
		int quiet = (int)(l->quiet_until_ms - now);
		ms = ms < 0 ? quiet : MIN(ms, quiet);
	}
	if (l->power.state == POWER_ENDING)
		ms = ms < 0 ? POWER_LOOK_MS : MIN(ms, POWER_LOOK_MS);
	return ms;
}

static short channel_events(const struct loop *l)
{
	return (short)((channel_wants_input(&l->channel) ? POLLIN : 0) |
		       (channel_wants_output(&l->channel) ? POLLOUT : 0));
}

static bool turn(struct loop *l)
{
	uint64_t now = mono_ms();
	bool quiet = l->quiet_until_ms > now;

	if (l->channel.fd < 0 && !quiet && l->options->mode != LOOP_FD) {
		find_port(l);
		quiet = l->quiet_until_ms > now;
	}
	l->fds[0] = (struct pollfd){.fd = l->children, .events = POLLIN};
	l->fds[1] = (struct pollfd){.fd = quiet ? -1 : l->channel.fd, .events = channel_events(l)};
	size_t execs = exec_poll_prepare(&l->execs, l->fds + 2);
	size_t files = fileop_poll_prepare(&l->fileops, l->fds + 2 + execs);
	if (poll(l->fds, 2 + execs + files, wait_ms(l, now)) < 0 && errno != EINTR)
		return false;
	exec_poll_done(&l->execs, l->fds + 2);
	fileop_poll_done(&l->fileops, l->fds + 2 + execs);
	if (l->fds[0].revents)
		reap(l);
	bool alive = l->fds[1].fd < 0 || serve_channel(l, l->fds[1].revents);
	now = mono_ms();
	exec_settle(&l->execs, now);
	fileop_settle(&l->fileops);
	power_settle(&l->power, &l->execs, now);
	return alive;
}

static int setup(struct loop *l)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	/* an ignored signal is inherited: a hang-up must reach a process that has not reset its own yet */
	signal(SIGHUP, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	l->children = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return l->children < 0 ? -errno : 0;
}

int loop_run(const struct loop_options *o)
{
	static struct loop l; /* some 50 KiB, once */

	l = (struct loop){.options = o};
	l.streams = (struct stream_set){.channel = &l.channel, .open = on_open, .user = &l};
	exec_set_init(&l.execs, &l.streams, &o->spawn);
	l.fileops = (struct fileop_set){.options = &o->spawn, .streams = &l.streams};
	channel_init(&l.channel);
	l.channel.on_frame = on_frame;
	l.channel.on_reset = on_reset;
	l.channel.user = &l;
	int r = setup(&l);
	if (r)
		return 1;
	if (o->mode == LOOP_FD)
		channel_attach(&l.channel, o->fd);
	while (turn(&l))
		;
	streams_reset(&l.streams);
	exec_set_finish(&l.execs);
	fileop_set_finish(&l.fileops);
	channel_finish(&l.channel);
	close(l.children);
	return 0;
}
