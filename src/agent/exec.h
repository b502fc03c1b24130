#pragma once
/* The processes that the host has run: one struct exec each, in a set bounded by AGENT_STREAMS_MAX attached to a
 * stream and EXEC_MAX in all.
 *
 * Life: spawned, STARTED (the report pipe closed) or ERROR; then data both ways under credit; the main process is
 * reaped; output is drained; EXIT. A process left in the background may hold the pipes open: EXEC_GRACE_MS after the
 * main process's end, what is in the pipes at that moment is still delivered and then they are closed. On CLOSE, and
 * when the channel is lost, the group gets SIGHUP and the stream is over; the entry stays until its process is
 * reaped, so that a timeout still holds. */
#include <poll.h>

#include "agent/channel.h"
#include "agent/spawn.h"

#define EXEC_MAX 1024
#define EXEC_GRACE_MS 500
#define EXEC_KILL_MS 2000 /* between SIGTERM and SIGKILL */
#define EXEC_POLLFDS 4    /* at most, an entry */

struct exec_set {
	struct exec *head;
	size_t n, attached;
	uint32_t last_stream;
	size_t turn; /* which entry is read first: no stream starves another */
	struct spawn_options options;
	struct channel *channel;
};

void exec_set_finish(struct exec_set *s);

/* A frame of a stream. false: a violation. */
bool exec_on_frame(struct exec_set *s, const struct agent_frame *f);
/* All streams are over. */
void exec_hang_up(struct exec_set *s);
/* To every process, or to those on a terminal; streams stay for their last words. */
void exec_signal(struct exec_set *s, int number, bool terminals_only);
/* A child's end, from waitpid(2); a pid that is none of the set's is passed over. */
void exec_on_reaped(struct exec_set *s, pid_t pid, int status);

/* One turn of the loop: the descriptors to wait for (room for EXEC_POLLFDS * s->n), what came of them, and then what
 * time and state ask for. */
size_t exec_poll_prepare(struct exec_set *s, struct pollfd *fds);
void exec_poll_done(struct exec_set *s, const struct pollfd *fds);
/* Milliseconds to the next deadline, -1: none. */
int exec_timeout_ms(const struct exec_set *s, uint64_t now_ms);
void exec_settle(struct exec_set *s, uint64_t now_ms);
