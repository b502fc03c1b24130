#pragma once
/* The calls that a VM answers over its byte channel, as shape.c's table names them. Each was read and checked; it takes the
 * call over and answers it, now or later. */
struct call;

/* exec.c: POST exec, buffered, as events, or detached. */
void exec_start(struct call *c);
/* execs.c: earlier commands. */
void execs_list(struct call *c);
void execs_get(struct call *c);
void execs_signal(struct call *c);
void execs_remove(struct call *c);
/* files.c: list, stat, mkdir, move, remove. */
void files_ask(struct call *c);
/* transfer.c: the bytes of a file or of a tree, out and in. */
void download_start(struct call *c);
void upload_start(struct call *c);
/* console.c */
void console_start(struct call *c);
