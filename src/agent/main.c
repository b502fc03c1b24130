/* iron-agent: runs inside a machine, as a service or as its init, and does what the host asks for over one virtio port.
 *
 *	iron-agent [--port NAME] [--user NAME] [--exec-cgroup DIR]
 *	iron-agent --fd N [--user NAME]
 *
 * --fd serves a descriptor that is connected already, on any machine, and ends with it: for benches and tests. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>

#include "agent/file.h"
#include "agent/init.h"
#include "agent/loop.h"
#include "base/log.h"

static int usage(void)
{
	fputs("usage: iron-agent [--fd N | --port NAME] [--user NAME] [--exec-cgroup DIR]\n", stderr);
	return 2;
}

static bool parse(int argc, char **argv, struct loop_options *o)
{
	static const struct option options[] = {
		{"fd", required_argument, NULL, 'f'},
		{"port", required_argument, NULL, 'p'},
		{"user", required_argument, NULL, 'u'},
		{"exec-cgroup", required_argument, NULL, 'c'},
		{0},
	};
	uint64_t fd;

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'p') {
			o->port = optarg;
		} else if (c == 'u') {
			o->spawn.default_user = optarg;
		} else if (c == 'c') {
			o->spawn.cgroup = optarg;
		} else if (c == 'f' && str_parse_u64(str_of(optarg), INT32_MAX, &fd) == 0) {
			o->fd = (int)fd;
			o->mode = LOOP_FD;
		} else {
			return false;
		}
	}
	return optind == argc;
}

static int prepare_fd(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC) ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct loop_options o = {.mode = LOOP_SERVICE, .port = "iron.0", .spawn = {.default_user = "agent"}};

	log_init("iron-agent", LOG_LEVEL_INFO);
	if (getpid() == 1) {
		/* The kernel hands its own unknown parameters to init. */
		o.mode = LOOP_INIT;
		init_setup();
		file_poke("/proc/self/oom_score_adj", "-1000");
		loop_run(&o);
		init_power_off();
	}
	if (!parse(argc, argv, &o))
		return usage();
	if (o.mode == LOOP_FD && prepare_fd(o.fd)) {
		fprintf(stderr, "iron-agent: %d is no open descriptor\n", o.fd);
		return 2;
	}
	if (o.spawn.cgroup && file_make_dirs(o.spawn.cgroup)) {
		log_error("cannot make the control group of user processes", "path=%s", log_quote(o.spawn.cgroup));
		return 1;
	}
	return loop_run(&o);
}
