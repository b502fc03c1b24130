/* iron: the command line. Finds the command, sorts out its words, runs it, and says once why it failed. */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/help.h"

static int unknown(int argc, char **argv)
{
	bool group = command_is_group(argv[0]),
	     asked = group && argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
	_cleanup_free_ char *typed = group && argc > 1 ? xasprintf("%s %s", argv[0], argv[1]) : xstrdup(argv[0]);
	const char *nearest = command_nearest(typed);

	if (nearest && !asked)
		out_warn("there is no command '%s'; is it `iron %s`?", typed, nearest);
	else if (!group)
		out_warn("there is no command '%s'; `iron --help` lists them", typed);
	else if (argc > 1 && !asked)
		out_warn("there is no command '%s'", typed);
	if (group)
		help_group(asked ? stdout : stderr, argv[0]);
	return asked ? 0 : EXIT_USAGE;
}

static int say(const struct error *e, int code)
{
	if (*e->text)
		out_warn("%s", e->text);
	return code;
}

/* The command's own options and the common ones in one list. */
static struct arg_option *all_options(const struct command *c)
{
	size_t own = 0, common = 0;

	while (c->options[own].name)
		own++;
	while (common_options[common].name)
		common++;
	struct arg_option *all = xcalloc(own + common + 1, sizeof *all);
	memcpy(all, c->options, own * sizeof *all);
	memcpy(all + own, common_options, common * sizeof *all);
	return all;
}

static int check_words(const struct command *c, const struct args *a, struct error *reterr)
{
	if (a->n_words < c->min_words || a->n_words > c->max_words || (a->rest && !(c->flags & TAKES_REST)))
		return error_set(reterr, -EINVAL, "usage: iron %s%s%s; `iron %s --help` has examples", c->name,
		                 *c->words ? " " : "", c->words, c->name);
	for (size_t i = 0; i < a->n_words; i++)
		if (!*a->words[i])
			return error_set(reterr, -EINVAL, "a name is empty; is a variable unset?");
	if ((c->flags & BYTES) && args_has(a, "json"))
		return error_set(reterr, -EINVAL, "iron %s prints what it carries as it is; it has no --json", c->name);
	return 0;
}

static int run_online(const struct command *command, struct context *c)
{
	_cleanup_(settings_finish) struct settings settings = {0};

	if (settings_load(args_value(&c->args, "api-url"), args_value(&c->args, "api-key"), &settings, &c->error))
		return command->flags & RUNS ? EXIT_EXEC_FAILED : EXIT_FAILED;
	c->client = client_create(&settings);
	int code = command->run(c);
	client_destroy(c->client);
	return code;
}

static int run(const struct command *command, int argc, char **argv)
{
	_cleanup_free_ struct arg_option *options = all_options(command);
	struct context c = {0};

	if (args_parse(options, argc, argv, &c.args, &c.error)) {
		say(&c.error, EXIT_USAGE);
		if (strncmp(c.error.text, "unknown option", 14) == 0)
			fprintf(stderr, "iron: `iron %s --help` lists its options\n", command->name);
		return EXIT_USAGE;
	}
	if (args_has(&c.args, "help")) {
		help_command(stdout, command);
		return 0;
	}
	if (check_words(command, &c.args, &c.error))
		return say(&c.error, EXIT_USAGE);
	c.json = args_has(&c.args, "json");
	c.quiet = args_has(&c.args, "quiet");
	out_configure(c.quiet, args_has(&c.args, "wide"));
	int code = command->flags & OFFLINE ? command->run(&c) : run_online(command, &c);
	errno = 0;
	if (fflush(stdout) && errno != EPIPE && code == 0) {
		error_set(&c.error, -errno, "standard output: %s", strerror(errno));
		code = EXIT_FAILED;
	}
	return say(&c.error, code);
}

int main(int argc, char **argv)
{
	int used;

	setlocale(LC_CTYPE, "");
	/* no locale is set: terminals speak UTF-8 all the same */
	if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0 && !getenv("LC_ALL"))
		setlocale(LC_CTYPE, "C.UTF-8");
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		help_all(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		help_all(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("iron %s\n", IRON_VERSION);
		return 0;
	}
	const struct command *command = command_find(argc - 1, argv + 1, &used);
	return command ? run(command, argc - 1 - used, argv + 1 + used) : unknown(argc - 1, argv + 1);
}
