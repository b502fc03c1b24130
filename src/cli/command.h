#pragma once
/* A command of `iron`: its words, its options, its help, and what it does. What the program runs by, its help, iron(1) and
 * the shells' completion all come from these tables. */
#include "cli/args.h"
#include "cli/client.h"
#include "cli/out.h"

enum {
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_TIMED_OUT = 124,   /* --timeout passed */
	EXIT_EXEC_FAILED = 125, /* a command in a VM could not be run, or its connection was lost */
	EXIT_INTERRUPTED = 130,
};

struct context {
	struct client *client; /* NULL for a command that is OFFLINE */
	struct args args;
	bool json, quiet;
	struct error error; /* why a command that answers EXIT_FAILED failed; printed once, at the top */
};

enum command_flag {
	TAKES_REST = 1, /* words after `--` */
	RUNS = 2,       /* a command in a VM: a failure of ours is EXIT_EXEC_FAILED */
	BYTES = 4,      /* carries bytes as they are: no --json */
	OFFLINE = 8,    /* asks no API */
};

struct command {
	const char *name;     /* "create", or "egress add" */
	const char *words;    /* the synopsis after the name; its words say how they are completed */
	const char *about;    /* one line */
	const char *notes;    /* below the options; NULL: none. Lines of at most 76 columns */
	const char *examples; /* a command line each */
	const struct arg_option *options;
	size_t min_words, max_words;
	unsigned flags; /* enum command_flag */
	int (*run)(struct context *c);
};

/* Every command, in the order in which help lists them, by group; each group ends with a NULL name, the list with NULL. */
struct command_group {
	const char *title;
	const struct command *commands;
};
extern const struct command_group command_groups[];
/* What every command takes besides its own options; --json is not taken by one that carries BYTES. */
extern const struct arg_option common_options[];

#define FOR_EACH_COMMAND(c)                                                                                            \
	for (const struct command_group *group_ = command_groups; group_->title; group_++)                             \
		for (const struct command *c = group_->commands; c->name; c++)

extern const struct command vm_commands[], exec_commands[], file_commands[], egress_commands[], audit_commands[], image_commands[],
	admin_commands[];

/* The id of the VM that a person named by name or id. Refuses an empty name. -ENOENT …: c->error is set. */
int resolve_vm(struct context *c, const char *name, char ret_id[24]);
/* The same of the objects of a list below path (which may hold a query), whose ids begin with prefix; what: "rule", and
 * where: the command that lists them. An object that goes by that name twice is refused. *ret: heap. */
int resolve_named(struct context *c, const char *path, const char *prefix, const char *what, const char *where, const char *name,
		  char **ret);

/* preset.c */
int run_preset(struct context *c);

#define LIST_MAX 10000
/* Up to `most` objects of a list into a fresh array, following cursors; path has its query, or none. *ret_more (may be NULL):
 * there are more. */
int list_some(struct context *c, const char *path, size_t most, json_t **ret_data, bool *ret_more);
/* All of it, up to LIST_MAX; that it was cut there is said on standard error. */
int list_all(struct context *c, const char *path, json_t **ret_data);

/* Appends "&parameter=VALUE" of an option that was given. */
void add_filter(struct context *c, struct buf *path, const char *option, const char *parameter);
/* The same of a time: "10m", "2h", "3d" ago, or RFC 3339. -EINVAL. */
int add_time(struct context *c, struct buf *path, const char *option);
/* "K=V" options into body.field. -EINVAL */
int add_pairs(struct context *c, json_t *body, const char *option, const char *field);

/* The VM's own path: "/vms/ID" + suffix, heap; NULL when it could not be resolved. */
char *vm_path(struct context *c, const char *name, const char *suffix);
/* GET path and print its object: as JSON, or member by member. */
int print_one(struct context *c, const char *path);
void print_object(const json_t *object);
