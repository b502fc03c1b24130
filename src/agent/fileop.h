#pragma once
/* Operations on files (FILE of codec/stream.h), each in a child process of the user in whose name it is done
 * (agent/filejob.h): the kernel judges what it may, and what blocks (a slow disk, a dead mount) blocks only it.
 *
 * The child writes frames of this protocol, which are passed on under the stream's credit; input goes to it through a
 * pipe. A stream that ends early closes the pipes: a child that has not been told to commit by then undoes. */
#include <poll.h>
#include <sys/types.h>

#include "agent/spawn.h"
#include "agent/streams.h"

#define FILEOP_MAX 64
#define FILEOP_POLLFDS 2

struct fileop_set {
	struct fileop *head;
	size_t n;
	const struct spawn_options *options;
	struct stream_set *streams;
};

void fileop_set_finish(struct fileop_set *s);
/* FILE. false: a violation. */
bool fileop_open(struct fileop_set *s, const struct agent_frame *f);
void fileop_on_reaped(struct fileop_set *s, pid_t pid);
/* As those of agent/exec.h; room for FILEOP_POLLFDS * FILEOP_MAX. */
size_t fileop_poll_prepare(struct fileop_set *s, struct pollfd *fds);
void fileop_poll_done(struct fileop_set *s, const struct pollfd *fds);
void fileop_settle(struct fileop_set *s);
