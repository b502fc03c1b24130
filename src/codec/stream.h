#pragma once
/* One byte channel between iron-api (or a relay) and a VM's iron-vm: a SOCK_SEQPACKET socketpair, each datagram one byte
 * of kind and at most STREAM_DATA_MAX bytes. It lives as long as what it carries; closing it sends SIGHUP to the process.
 * Back-pressure is the socket's own: a side that does not read stops the other, up to the guest's pipe.
 *
 * The opener sends EXEC first. Then STDIN, STDIN_EOF, SIGNAL, RESIZE in any order; iron-vm sends STDOUT, STDERR, and at
 * last one EXIT, or one ERROR. */
#include "codec/wire.h"

#define STREAM_DATA_MAX ((size_t)32 << 10)
#define STREAM_DATAGRAM_MAX ((size_t)96 << 10) /* an EXEC may be as large */

enum stream_kind {
	STREAM_STDIN = 0, /* the numbers 0-2 are the WebSocket's channels (API.md) */
	STREAM_STDOUT = 1,
	STREAM_STDERR = 2,
	STREAM_EXEC = 16,  /* stream_exec */
	STREAM_STDIN_EOF,  /* nothing */
	STREAM_SIGNAL,     /* stream_signal */
	STREAM_RESIZE,     /* stream_resize */
	STREAM_EXIT,       /* stream_exit */
	STREAM_ERROR,      /* stream_error: it did not start, or the VM is gone */
	STREAM_STARTED,    /* nothing: the process runs */
};

/* argv: at least one item; command non-empty instead: run by the user's shell with -c. environment: list of "K=V" over
 * the login environment. user: empty is "agent". timeout_ms 0: none; at its end SIGTERM, 2 s later SIGKILL, to the group. */
#define STREAM_EXEC_FIELDS(F, T)                                                                                       \
	F(T, list, argv, 65536)                                                                                        \
	F(T, str, command, 65536)                                                                                      \
	F(T, str, cwd, 4096)                                                                                           \
	F(T, list, environment, 65536)                                                                                 \
	F(T, str, user, 63)                                                                                            \
	F(T, flag, tty, 0)                                                                                             \
	F(T, u16, rows, 0)                                                                                             \
	F(T, u16, cols, 0)                                                                                             \
	F(T, u32, timeout_ms, 0)
WIRE_DECLARE(stream_exec, STREAM_EXEC_FIELDS);
#define STREAM_SIGNAL_FIELDS(F, T) F(T, u8, number, 64)
WIRE_DECLARE(stream_signal, STREAM_SIGNAL_FIELDS);
#define STREAM_RESIZE_FIELDS(F, T) F(T, u16, rows, 0) F(T, u16, cols, 0)
WIRE_DECLARE(stream_resize, STREAM_RESIZE_FIELDS);
/* code: the exit status, or 128 + signal; timed_out: the deadline ended it. */
#define STREAM_EXIT_FIELDS(F, T) F(T, u16, code, 0) F(T, u8, signal, 64) F(T, flag, timed_out, 0)
WIRE_DECLARE(stream_exit, STREAM_EXIT_FIELDS);
/* code: "exec_failed", "no_such_user", "no_such_directory", "vm_gone", "bad_request", "limit". */
#define STREAM_ERROR_FIELDS(F, T) F(T, str, code, 31) F(T, str, message, 512)
WIRE_DECLARE(stream_error, STREAM_ERROR_FIELDS);
