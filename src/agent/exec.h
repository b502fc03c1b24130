#pragma once
/* The processes that the host has run, in a set: those that run (EXEC_MAX, of them EXEC_DETACHED_MAX detached), and the
 * last EXEC_ENDED_KEPT that ended, for EXECS and ATTACH.
 *
 * Life: spawned, STARTED (the report pipe closed) or ERROR; then data both ways under credit; the main process is
 * reaped; output is drained; EXIT. A process left in the background may hold the pipes open: EXEC_GRACE_MS after the
 * main process's end, what is in the pipes at that moment is still delivered and then they are closed. On CLOSE, and
 * when the channel is lost, the group gets SIGHUP and the stream is over; the entry stays until its process is
 * reaped, so that a timeout still holds.
 *
 * A detached one is through with its stream at STARTED. Its output goes into a ring (agent/ring.h) as it comes, which
 * streams of ATTACH read at their own pace; all rings together are bounded by `pool`. Neither a stream's end nor the
 * channel's concerns it. */
#include <poll.h>

#include "agent/ring.h"
#include "agent/spawn.h"
#include "agent/streams.h"

#define EXEC_MAX 1024
#define EXEC_DETACHED_MAX 64
#define EXEC_ENDED_KEPT 64
#define EXEC_GRACE_MS 500
#define EXEC_KILL_MS 2000 /* between SIGTERM and SIGKILL */
#define EXEC_POLLFDS 4    /* at most, an entry */

struct exec_set {
	struct exec *head; /* newest first */
	size_t n, running, detached; /* entries; those with a process or output; of these detached ones */
	size_t turn; /* which entry is read first: no stream starves another */
	uint64_t last_seq;
	struct exec_lister *listers;
	struct ring_pool pool;
	struct spawn_options options;
	struct stream_set *streams;
};

/* pool: a 16th of the machine's memory, 2 MiB at least. */
void exec_set_init(struct exec_set *s, struct stream_set *streams, const struct spawn_options *o);
void exec_set_finish(struct exec_set *s);

/* EXEC, ATTACH, EXECS, EXEC_SIGNAL, EXEC_REMOVE. false: a violation. */
bool exec_open(struct exec_set *s, const struct agent_frame *f);
/* To every process, or to those on a terminal; streams stay for their last words. */
void exec_signal(struct exec_set *s, int number, bool terminals_only);
/* A child's end, from waitpid(2); a pid that is none of the set's is passed over. */
void exec_on_reaped(struct exec_set *s, pid_t pid, int status);

/* One turn of the loop: the descriptors to wait for (room for EXEC_POLLFDS * EXEC_MAX), what came of them, and then
 * what time and state ask for. */
size_t exec_poll_prepare(struct exec_set *s, struct pollfd *fds);
void exec_poll_done(struct exec_set *s, const struct pollfd *fds);
/* Milliseconds to the next deadline, -1: none. */
int exec_timeout_ms(const struct exec_set *s, uint64_t now_ms);
void exec_settle(struct exec_set *s, uint64_t now_ms);
