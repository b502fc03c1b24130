#pragma once
/* A command of `iron`: its words, its options, its help, and what it does. */
#include "cli/args.h"
#include "cli/client.h"
#include "cli/out.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_EXEC_FAILED = 125 };

struct context {
	struct client *client;
	struct args args;
	bool json;
	struct error error; /* why a command that answers EXIT_FAILED failed; printed once, at the top */
};

struct command {
	const char *name;   /* "create", or "egress add" */
	const char *words;  /* the synopsis after the name */
	const char *about;  /* one line */
	const char *help;   /* options and examples, several lines */
	const struct arg_option *options;
	size_t min_words, max_words;
	bool takes_rest; /* words after `--` */
	int (*run)(struct context *c);
};

extern const struct command vm_commands[], exec_commands[], egress_commands[], audit_commands[], admin_commands[];

/* The id of the VM that a person named by name or id. Refuses an empty name. -ENOENT …: c->error is set. */
int resolve_vm(struct context *c, const char *name, char ret_id[24]);

/* Appends every page of a list to a fresh array (data), following cursors up to 10,000 items. path has its query, or none. */
int list_all(struct context *c, const char *path, json_t **ret_data);
