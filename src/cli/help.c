#include "cli/help.h"

#include <errno.h>
#include <string.h>

#include "cli/completion.h"

#define NAME_COLUMNS ((size_t)28)

const struct arg_option common_options[] = {
	{"json", 0, NULL, "one JSON document on standard output, the API's own objects"},
	{"quiet", 'q', NULL, "no progress and no \"done\"; a list is bare names"},
	{"wide", 0, NULL, "do not cut tables to the window"},
	{"help", 'h', NULL, "this"},
	{"api-url", 0, "URL", "the API, instead of IRON_API_URL and the configuration file"},
	{"api-key", 0, "KEY", "the key, instead of IRON_API_KEY; other users of this machine can read it there"},
	{0},
};

const struct command_group command_groups[] = {
	{"Virtual machines", vm_commands},
	{"Commands in a VM", exec_commands},
	{"Files", file_commands},
	{"Egress", egress_commands},
	{"The record", audit_commands},
	{"Images", image_commands},
	{"Keys and the host", admin_commands},
	{"Help", help_commands},
	{0},
};

const struct command *command_find(int argc, char *const *argv, int *ret_used)
{
	FOR_EACH_COMMAND(c)
	{
		const char *space = strchr(c->name, ' ');
		size_t first = space ? (size_t)(space - c->name) : strlen(c->name);
		if (strlen(argv[0]) != first || strncmp(argv[0], c->name, first) != 0)
			continue;
		if (!space || (argc > 1 && strcmp(argv[1], space + 1) == 0)) {
			*ret_used = space ? 2 : 1;
			return c;
		}
	}
	return NULL;
}

bool command_is_group(const char *word)
{
	size_t n = strlen(word);

	FOR_EACH_COMMAND(c)
	{
		if (strncmp(c->name, word, n) == 0 && c->name[n] == ' ')
			return true;
	}
	return false;
}

/* How many letters must change, come or go between the two (Levenshtein); words longer than 31 are far from all. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[32];
	size_t n = strlen(b);

	if (n > 31 || strlen(a) > 31)
		return UINT32_MAX;
	for (unsigned k = 0; k <= n; k++)
		row[k] = k;
	for (unsigned i = 0; a[i]; i++) {
		unsigned diagonal = row[0];
		row[0] = i + 1;
		for (size_t k = 1; k <= n; k++) {
			unsigned changed = diagonal + (a[i] != b[k - 1]);
			diagonal = row[k];
			row[k] = MIN(changed, MIN(row[k], row[k - 1]) + 1);
		}
	}
	return row[n];
}

const char *command_nearest(const char *typed)
{
	const char *best = NULL;
	unsigned least = 3;

	FOR_EACH_COMMAND(c)
	{
		unsigned d = distance(typed, c->name);
		if (d < least && d < strlen(c->name) - 1) {
			least = d;
			best = c->name;
		}
	}
	return best;
}

/* text in lines of at most `room` columns, all but the first behind `indent` blanks. */
static void wrap(FILE *to, const char *text, size_t indent, size_t room)
{
	size_t at = 0;

	for (const char *word = text; *word;) {
		size_t n = strcspn(word, " ");
		_cleanup_free_ char *one = xstrndup(word, n);
		size_t w = out_width(one);
		if (at && at + 1 + w > room) {
			fprintf(to, "\n%*s", (int)indent, "");
			at = 0;
		}
		at += (size_t)(at ? fprintf(to, " ") : 0) + w;
		fputs(one, to);
		word += n;
		word += strspn(word, " ");
	}
	fputc('\n', to);
}

static size_t help_width(FILE *to)
{
	size_t w = out_window(fileno(to));
	return w == SIZE_MAX ? 80 : MIN(MAX(w, (size_t)30), (size_t)110);
}

/* A name, and what is said of it: beside it, or below where the window is narrow. */
static void entry(FILE *to, const char *name, const char *about)
{
	size_t width = help_width(to), column = width >= 70 ? NAME_COLUMNS : 8;

	fprintf(to, "  %s", name);
	if (out_width(name) + 4 > column)
		fprintf(to, "\n%*s", (int)column, "");
	else
		fprintf(to, "%*s", (int)(column - 2 - out_width(name)), "");
	wrap(to, about, column, width - column);
}

static void option_entry(FILE *to, const struct arg_option *o)
{
	_cleanup_free_ char *letter = o->letter ? xasprintf("-%c, ", o->letter) : xstrdup("    ");
	_cleanup_free_ char *name =
	        xasprintf("%s--%s%s%s", letter, o->name, o->value ? " " : "", o->value ? o->value : "");
	entry(to, name, o->about);
}

static void configuration(FILE *to)
{
	fprintf(to, "\nThe API and the key come from --api-url and --api-key, IRON_API_URL and\n"
	            "IRON_API_KEY, or ~/.config/iron/config.yaml. iron(1) is the whole manual.\n");
}

void help_all(FILE *to)
{
	fprintf(to, "iron %s: virtual machines for agents, with one door\n\nUsage: iron COMMAND [OPTION…] [WORD…]\n",
	        IRON_VERSION);
	for (const struct command_group *g = command_groups; g->title; g++) {
		fprintf(to, "\n%s:\n", g->title);
		for (const struct command *c = g->commands; c->name; c++)
			entry(to, c->name, c->about);
	}
	fprintf(to, "\n`iron help COMMAND` or `iron COMMAND --help` says more.\n");
	configuration(to);
	fprintf(to, "\nExamples:\n  iron create demo && iron exec demo -- git --version\n"
	            "  iron egress add --host api.example.com\n  iron audit egress --follow\n");
}

void help_group(FILE *to, const char *word)
{
	size_t n = strlen(word);

	fprintf(to, "Usage: iron %s COMMAND [OPTION…] [WORD…]\n\n", word);
	FOR_EACH_COMMAND(c)
	{
		if (strncmp(c->name, word, n) != 0 || c->name[n] != ' ')
			continue;
		_cleanup_free_ char *name = xasprintf("iron %s", c->name);
		entry(to, name, c->about);
	}
	fprintf(to, "\n`iron %s COMMAND --help` says more.\n", word);
}

void help_command(FILE *to, const struct command *c)
{
	fprintf(to, "Usage: iron %s%s%s\n\n", c->name, *c->words ? " " : "", c->words);
	_cleanup_free_ char *about = xasprintf(
	        "%c%s.", c->about[0] >= 'a' && c->about[0] <= 'z' ? c->about[0] - 32 : c->about[0], c->about + 1);
	wrap(to, about, 0, help_width(to));
	if (c->options->name)
		fprintf(to, "\nOptions:\n");
	for (const struct arg_option *o = c->options; o->name; o++)
		option_entry(to, o);
	fprintf(to, "\nAs every command:\n");
	for (const struct arg_option *o = common_options; o->name; o++)
		if (!(c->flags & BYTES) || strcmp(o->name, "json") != 0)
			option_entry(to, o);
	if (c->notes)
		fprintf(to, "\n%s", c->notes);
	fprintf(to, "\nExamples:\n");
	for (const char *line = c->examples; *line;) {
		size_t n = strcspn(line, "\n");
		fprintf(to, "  %.*s\n", (int)n, line);
		line += n + (line[n] == '\n');
	}
}

/* --- the commands about commands --- */

static int run_help(struct context *c)
{
	int used;

	if (c->args.n_words == 0) {
		help_all(stdout);
		return 0;
	}
	char *words[2] = {(char *)(uintptr_t)c->args.words[0], (char *)(uintptr_t)c->args.words[1]};
	const struct command *command = command_find((int)c->args.n_words, words, &used);
	if (command) {
		help_command(stdout, command);
	} else if (command_is_group(words[0])) {
		help_group(stdout, words[0]);
	} else {
		error_set(&c->error, -ENOENT, "there is no command '%s'; `iron help` lists them", words[0]);
		return EXIT_USAGE;
	}
	return 0;
}

static int run_completion(struct context *c)
{
	if (completion_print(stdout, c->args.words[0]))
		return 0;
	error_set(&c->error, -EINVAL, "there is completion for bash, zsh and fish, not for '%s'", c->args.words[0]);
	return EXIT_USAGE;
}

static const struct arg_option none[] = {{0}};

const struct command help_commands[] = {
	{"help", "[COMMAND]", "list the commands, or explain one", NULL, "iron help\niron help egress add\n", none, 0,
	 2, OFFLINE | BYTES, run_help},
	{"completion", "bash | zsh | fish", "print a script that completes iron's words in that shell",
	 "They are installed with iron, where the shells look for them; this is for a\n"
	 "shell that looks elsewhere.\n",
	 ". <(iron completion bash)\niron completion zsh >~/.zfunc/_iron\niron completion fish "
	 ">~/.config/fish/completions/iron.fish\n",
	 none, 1, 1, OFFLINE | BYTES, run_completion},
	{0},
};
