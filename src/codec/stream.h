#pragma once
/* One byte channel between iron-api (or a relay) and a VM's iron-vm: a SOCK_SEQPACKET socketpair, each datagram one
 * byte of kind and at most STREAM_DATA_MAX bytes. It lives as long as what it carries; closing it sends SIGHUP to the
 * process. Back-pressure is the socket's own: a side that does not read stops the other, up to the guest's pipe.
 *
 * The opener sends one request first, and what it says decides the rest; iron-vm ends it with exactly one EXIT, DONE
 * or ERROR. That may come while input is still being sent: sending then fails with EPIPE, and the last word is there
 * to be read. A stream can be opened in any state of the machine; what its guest would have to answer is refused with
 * "vm_gone" while it cannot. iron-vm holds the guest to the order, the counts and the sizes below; text is the
 * guest's.
 *	EXEC           then STDIN, STDIN_EOF, SIGNAL, RESIZE in any order; STARTED, STDOUT, STDERR, EXIT. With
 *	               `detach`: STARTED, DONE, and the command goes on without a stream.
 *	ATTACH         EXEC_ROW (whose `offset` says where the output that follows begins), STDOUT and STDERR of an
 *	               earlier detached EXEC; then DONE, or with `follow` what comes live and EXIT. Where output came
 *	               faster than it was read here, and fell out of what is kept, another EXEC_ROW says where it goes
 *	               on. With `input` (one stream at a time) also STDIN, STDIN_EOF, SIGNAL, RESIZE. Closing it
 *	               leaves the command alone. Of an EXEC that was not detached: the row and the end.
 *	EXECS          an EXEC_ROW each, newest first, DONE
 *	EXEC_SIGNAL    DONE
 *	EXEC_REMOVE    killed if it runs, and forgotten: DONE
 *	FILE           by its op. READ, PACK: INFO (PACK: of the root), the bytes as STDOUT, DONE. READ of a
 *	               FILE_REGULAR: as many as its size, or ERROR; of a FILE_OTHER (one of /proc): until DONE. WRITE,
 *	               UNPACK: the bytes as STDIN, then STDIN_EOF; INFO, DONE: nothing is changed before the EOF of a
 *	               WRITE, and a stream that closes earlier leaves the old file whole. LIST: an INFO each, by name,
 *	               DONE. STAT, MKDIR, MOVE: INFO, DONE. REMOVE: DONE.
 *	CONSOLE        what is kept of the serial console as STDOUT, DONE; answered in any state of the guest. */
#include "codec/wire.h"

#define STREAM_DATA_MAX ((size_t)32 << 10)
#define STREAM_DATAGRAM_MAX ((size_t)96 << 10) /* an EXEC may be as large */

enum stream_kind {
	STREAM_STDIN = 0, /* the numbers 0-2 are the WebSocket's channels (api/exec_ws.c) */
	STREAM_STDOUT = 1,
	STREAM_STDERR = 2,
	STREAM_EXEC = 16,  /* stream_exec */
	STREAM_STDIN_EOF,  /* nothing */
	STREAM_SIGNAL,     /* stream_signal */
	STREAM_RESIZE,     /* stream_resize */
	STREAM_EXIT,       /* stream_exit */
	STREAM_ERROR,      /* stream_error: it did not start, or the VM is gone */
	STREAM_STARTED,    /* nothing: the process runs */
	STREAM_ATTACH = 32, /* stream_attach */
	STREAM_EXECS,       /* nothing */
	STREAM_EXEC_SIGNAL, /* stream_exec_signal */
	STREAM_EXEC_REMOVE, /* stream_exec_ref */
	STREAM_FILE,        /* stream_file */
	STREAM_CONSOLE,     /* nothing */
	STREAM_EXEC_ROW,    /* stream_exec_row */
	STREAM_INFO,        /* stream_file_info */
	STREAM_DONE,        /* nothing */
};

/* exec: the id that it is listed under, 0: not listed. detach: it outlives this stream and iron-vm; the last 8 MiB of
 * its output are kept for ATTACH (less where the guest's memory is small). argv: at least one item; command non-empty
 * instead: run by the user's shell with -c. environment: list of "K=V" over the login environment. user: empty is
 * "agent". timeout_ms 0: none; at its end SIGTERM, 2 s later SIGKILL, to the group. */
#define STREAM_EXEC_FIELDS(F, T)                                                                                       \
	F(T, list, argv, 65536)                                                                                        \
	F(T, str, command, 65536)                                                                                      \
	F(T, str, cwd, 4096)                                                                                           \
	F(T, list, environment, 65536)                                                                                 \
	F(T, str, user, 63)                                                                                            \
	F(T, flag, tty, 0)                                                                                             \
	F(T, u16, rows, 0)                                                                                             \
	F(T, u16, cols, 0)                                                                                             \
	F(T, u32, timeout_ms, 0)                                                                                       \
	F(T, u64, exec, 0)                                                                                             \
	F(T, flag, detach, 0)
WIRE_DECLARE(stream_exec, STREAM_EXEC_FIELDS);
#define STREAM_SIGNAL_FIELDS(F, T) F(T, u8, number, 64)
WIRE_DECLARE(stream_signal, STREAM_SIGNAL_FIELDS);
#define STREAM_RESIZE_FIELDS(F, T) F(T, u16, rows, 0) F(T, u16, cols, 0)
WIRE_DECLARE(stream_resize, STREAM_RESIZE_FIELDS);
/* code: the exit status, or 128 + signal; timed_out: the deadline ended it. */
#define STREAM_EXIT_FIELDS(F, T) F(T, u16, code, 0) F(T, u8, signal, 64) F(T, flag, timed_out, 0)
WIRE_DECLARE(stream_exit, STREAM_EXIT_FIELDS);

/* offset: of the first byte wanted, counted over stdout and stderr together, in the order they came. */
#define STREAM_ATTACH_FIELDS(F, T) F(T, u64, exec, 0) F(T, u64, offset, 0) F(T, flag, follow, 0) F(T, flag, input, 0)
WIRE_DECLARE(stream_attach, STREAM_ATTACH_FIELDS);
#define STREAM_EXEC_REF_FIELDS(F, T) F(T, u64, exec, 0)
WIRE_DECLARE(stream_exec_ref, STREAM_EXEC_REF_FIELDS);
#define STREAM_EXEC_SIGNAL_FIELDS(F, T) F(T, u64, exec, 0) F(T, u8, number, 64)
WIRE_DECLARE(stream_exec_signal, STREAM_EXEC_SIGNAL_FIELDS);
/* argv, command: cut to fit. code, signal, timed_out: as in stream_exit, when it does not run. Times: ms since 1970 by
 * the guest's clock, 0: absent. output: bytes so far; offset: the oldest one kept (ATTACH: the first one sent). */
#define STREAM_EXEC_ROW_FIELDS(F, T)                                                                                   \
	F(T, u64, exec, 0)                                                                                             \
	F(T, list, argv, 4096)                                                                                         \
	F(T, str, command, 4096)                                                                                       \
	F(T, str, user, 63)                                                                                            \
	F(T, flag, tty, 0)                                                                                             \
	F(T, flag, detached, 0)                                                                                        \
	F(T, flag, running, 0)                                                                                         \
	F(T, u16, code, 0)                                                                                             \
	F(T, u8, signal, 64)                                                                                           \
	F(T, flag, timed_out, 0)                                                                                       \
	F(T, i64, started_at, 0)                                                                                       \
	F(T, i64, ended_at, 0)                                                                                         \
	F(T, u64, output, 0)                                                                                           \
	F(T, u64, offset, 0)
WIRE_DECLARE(stream_exec_row, STREAM_EXEC_ROW_FIELDS);

/* path: absolute, or below the user's home. user: in whose name, with whose rights; empty is "agent". mode: permission
 * bits, FILE_MODE_NONE: those of the file that is replaced, else 0644 (0755 a directory). owner: "user" or
 * "user:group" that a WRITE or MKDIR gives it to, which only root may; empty: the user, or who owned the file that is
 * replaced. A WRITE replaces a link, and does not follow it; READ follows, STAT and the others do not. to: MOVE's
 * target; LIST: only names after this one. limit: LIST's most entries, 0: 1000. recursive: REMOVE a tree; MKDIR and
 * WRITE make the parents that are missing. overwrite: MOVE may replace a file. PACK: a tar of the tree below path,
 * names relative to it (of a file: that one). UNPACK: into the directory path, which is made; an entry that would
 * leave it, a link that leads out of it, a device: "unsafe", and nothing after it. */
enum file_op {
	FILE_READ = 1,
	FILE_WRITE,
	FILE_REMOVE,
	FILE_STAT,
	FILE_LIST,
	FILE_MKDIR,
	FILE_MOVE,
	FILE_PACK,
	FILE_UNPACK
};
#define FILE_MODE_NONE UINT32_MAX
#define STREAM_FILE_FIELDS(F, T)                                                                                       \
	F(T, u8, op, 9)                                                                                                \
	F(T, str, path, 4096)                                                                                          \
	F(T, str, to, 4096)                                                                                            \
	F(T, str, user, 63)                                                                                            \
	F(T, u32, mode, 0)                                                                                             \
	F(T, str, owner, 127)                                                                                          \
	F(T, u32, limit, 0)                                                                                            \
	F(T, flag, recursive, 0)                                                                                       \
	F(T, flag, overwrite, 0)
WIRE_DECLARE(stream_file, STREAM_FILE_FIELDS);
/* name: of LIST's entries; else empty. owner, group: names, or numbers where the guest knows none. target: a link's.
 * more: there are entries after this one (LIST's last). All of it hostile text. */
enum file_kind { FILE_REGULAR = 1, FILE_DIRECTORY, FILE_LINK, FILE_OTHER };
#define STREAM_FILE_INFO_FIELDS(F, T)                                                                                  \
	F(T, str, name, 255)                                                                                           \
	F(T, u8, kind, 4)                                                                                              \
	F(T, u64, size, 0)                                                                                             \
	F(T, u32, mode, 0)                                                                                             \
	F(T, str, owner, 63)                                                                                           \
	F(T, str, group, 63)                                                                                           \
	F(T, i64, modified_at, 0)                                                                                      \
	F(T, str, target, 4096)                                                                                        \
	F(T, flag, more, 0)
WIRE_DECLARE(stream_file_info, STREAM_FILE_INFO_FIELDS);

/* code: "exec_failed", "no_such_user", "no_such_directory", "vm_gone", "bad_request", "limit"; of execs:
 * "no_such_exec", "ended"; of files: "no_such_file", "not_a_directory", "is_a_directory", "exists", "not_empty",
 * "denied", "no_room", "bad_path", "unsafe", "bad_archive", "io". */
#define STREAM_ERROR_FIELDS(F, T) F(T, str, code, 31) F(T, str, message, 512)
WIRE_DECLARE(stream_error, STREAM_ERROR_FIELDS);
