#pragma once
/* What exec.c (life), exec_io.c (bytes) and exec_table.c (ATTACH, EXECS and the rest) share. */
#include "agent/exec.h"

#define UNLIMITED SIZE_MAX
#define EXEC_TEXT_KEPT ((size_t)4096) /* of argv, and of the command, in the table */
#define EXEC_EOFS_MAX 64 /* on a terminal, not written yet */

enum { REPORT, IN, OUT, ERR };
_Static_assert(ERR + 1 == EXEC_POLLFDS, "one pollfd a descriptor");

struct exec {
	struct exec *next;
	struct exec_set *set;
	uint64_t id, seq;      /* id 0: not listed */
	struct stream *stream; /* that opened it; NULL: nobody listens any more */
	struct attach *attached;
	pid_t pid; /* 0: reaped */
	int status;
	int fd[EXEC_POLLFDS];      /* -1: closed */
	int polled[EXEC_POLLFDS];  /* index of its pollfd in this turn, -1: none */
	size_t left[EXEC_POLLFDS]; /* OUT, ERR: bytes that are still taken */
	bool tty, detached, started, eof, timed_out;
	bool ended;   /* no process, all output taken: only the table has it */
	bool removed; /* not in the table any more */
	struct buf input;
	size_t input_at, orphaned; /* orphaned: bytes at its front whose sender is gone, and is given no credit */
	size_t eofs; /* bytes behind them that no sender is to be given credit for: ends of file on a terminal */
	struct stream *feeder;     /* whose STDIN it is */
	uint64_t deadline_ms, kill_ms, grace_ms; /* 0: none */
	struct ring ring;
	uint64_t output;
	struct buf argv, command;
	char user[64];
	int64_t started_at_ms, ended_at_ms;
};

/* A stream of ATTACH. */
struct attach {
	struct attach *next;
	struct exec *exec;
	struct stream *stream;
	struct ring_reader reader;
	uint64_t until; /* without follow: where it ends */
	bool follow, input, greeted;
};

/* exec.c */
void exec_signal_group(const struct exec *e, int number);
struct stream_exit exec_exit(const struct exec *e);

/* exec_io.c */
void exec_close_fd(struct exec *e, int which);
bool exec_on_stdin(struct exec *e, struct stream *from, struct str data);
bool exec_on_stdin_eof(struct exec *e);
bool exec_on_signal(struct exec *e, struct str payload);
bool exec_on_resize(struct exec *e, struct str payload);
void exec_send_signal(struct exec *e, int number);
void exec_write_input(struct exec *e);
void exec_read_output(struct exec *e, int which);
bool exec_takes_output(const struct exec *e);
/* The one whose input it was is gone; what it sent before is still delivered. */
void exec_lose_feeder(struct exec *e);

/* exec_table.c */
struct exec *exec_find(const struct exec_set *s, uint64_t id);
bool exec_open_attach(struct exec_set *s, const struct agent_frame *f);
bool exec_open_list(struct exec_set *s, const struct agent_frame *f);
bool exec_open_signal(struct exec_set *s, const struct agent_frame *f);
bool exec_open_remove(struct exec_set *s, const struct agent_frame *f);
void exec_serve_listers(struct exec_set *s);
void exec_serve_attached(struct exec *e);
