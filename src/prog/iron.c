/* iron: the command line. Finds the command, sorts out its words, runs it, and says once why it failed. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"

static const struct command *const groups[] = {vm_commands, exec_commands, egress_commands, audit_commands, admin_commands};

/* What every command takes besides its own options. */
static const struct arg_option common[] = {
	{"json", 0, false}, {"help", 'h', false}, {"api-url", 0, true}, {"api-key", 0, true}, {0}};

static void usage(FILE *to)
{
	fprintf(to, "iron %s: virtual machines for agents, with one door\n\nUsage: iron COMMAND [OPTION…] [WORD…]\n\n", IRON_VERSION);
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		for (const struct command *c = groups[g]; c->name; c++) {
			_cleanup_free_ char *synopsis = xasprintf("%s %s", c->name, c->words);
			fprintf(to, "  %s%*s %s\n", synopsis, (int)(44 - MIN(out_width(synopsis), (size_t)44)), "", c->about);
		}
	}
	fprintf(to, "\nEvery command takes --help and, where it prints, --json. The API and key come from --api-url and\n"
		    "--api-key, IRON_API_URL and IRON_API_KEY, or ~/.config/iron/config.yaml.\n\n"
		    "Examples:\n  iron create demo && iron exec demo -- git --version\n"
		    "  iron egress add --host api.example.com\n  iron audit egress --follow\n");
}

static void help(const struct command *c)
{
	printf("iron %s %s\n    %s\n\n%s", c->name, c->words, c->about, c->help);
}

/* "egress add" is two words, "create" one. *ret_used says how many of argv it took. */
static const struct command *find(int argc, char **argv, int *ret_used)
{
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		for (const struct command *c = groups[g]; c->name; c++) {
			const char *space = strchr(c->name, ' ');
			size_t first = space ? (size_t)(space - c->name) : strlen(c->name);
			if (strlen(argv[0]) != first || strncmp(argv[0], c->name, first) != 0)
				continue;
			if (!space || (argc > 1 && strcmp(argv[1], space + 1) == 0)) {
				*ret_used = space ? 2 : 1;
				return c;
			}
		}
	}
	return NULL;
}

static bool is_group(const char *word)
{
	size_t n = strlen(word);
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (const struct command *c = groups[g]; c->name; c++)
			if (strncmp(c->name, word, n) == 0 && c->name[n] == ' ')
				return true;
	return false;
}

static int unknown(int argc, char **argv)
{
	if (is_group(argv[0])) {
		bool asked = argc > 1 && strcmp(argv[1], "--help") == 0;
		FILE *to = asked ? stdout : stderr;
		fprintf(to, "iron %s:\n", argv[0]);
		for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
			for (const struct command *c = groups[g]; c->name; c++)
				if (strncmp(c->name, argv[0], strlen(argv[0])) == 0)
					fprintf(to, "  iron %-24s %s\n", c->name, c->about);
		return asked ? 0 : EXIT_USAGE;
	}
	_cleanup_free_ char *word = out_escape(argv[0]);
	fprintf(stderr, "iron: there is no command '%s'; `iron --help` lists them\n", word);
	return EXIT_USAGE;
}

static int say(const struct error *e, int code)
{
	_cleanup_free_ char *text = out_escape(e->text);
	if (*text)
		fprintf(stderr, "iron: %s\n", text);
	return code;
}

/* The command's own options and the common ones in one list. */
static struct arg_option *all_options(const struct command *c)
{
	size_t n = 0;
	while (c->options[n].name)
		n++;
	struct arg_option *all = xcalloc(n + ARRAY_SIZE(common), sizeof *all);
	memcpy(all, c->options, n * sizeof *all);
	memcpy(all + n, common, sizeof common);
	return all;
}

static int check_words(const struct command *c, const struct args *a, struct error *reterr)
{
	if (a->n_words < c->min_words || a->n_words > c->max_words || (a->rest && !c->takes_rest))
		return error_set(reterr, -EINVAL, "usage: iron %s%s%s; `iron %s --help` has examples", c->name, *c->words ? " " : "",
				 c->words, c->name);
	for (size_t i = 0; i < a->n_words; i++)
		if (!*a->words[i])
			return error_set(reterr, -EINVAL, "a name is empty; is a variable unset?");
	return 0;
}

static int run(const struct command *command, int argc, char **argv)
{
	_cleanup_free_ struct arg_option *options = all_options(command);
	_cleanup_(settings_finish) struct settings settings = {0};
	struct context c = {0};

	if (args_parse(options, argc, argv, &c.args, &c.error))
		return say(&c.error, EXIT_USAGE);
	if (args_has(&c.args, "help")) {
		help(command);
		return 0;
	}
	if (check_words(command, &c.args, &c.error))
		return say(&c.error, EXIT_USAGE);
	c.json = args_has(&c.args, "json");
	if (settings_load(args_value(&c.args, "api-url"), args_value(&c.args, "api-key"), &settings, &c.error))
		return say(&c.error, command->takes_rest ? EXIT_EXEC_FAILED : EXIT_FAILED);
	c.client = client_create(&settings);
	int code = command->run(&c);
	client_destroy(c.client);
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
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("iron %s\n", IRON_VERSION);
		return 0;
	}
	const struct command *command = find(argc - 1, argv + 1, &used);
	return command ? run(command, argc - 1 - used, argv + 1 + used) : unknown(argc - 1, argv + 1);
}
