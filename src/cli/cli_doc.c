/* Build-time tool: iron(1) and the completion scripts, from the tables that the program itself runs by.
 *     cli_doc man|bash|zsh|fish */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/completion.h"

/* mdoc takes a line that begins with a dot or a quote for a request, and a backslash for an escape. */
static void text(const char *s)
{
	for (const char *p = s; *p; p++) {
		if ((p == s || p[-1] == '\n') && (*p == '.' || *p == '\''))
			printf("\\&");
		if (*p == '\\')
			printf("\\e");
		else
			putchar(*p);
	}
}

/* An argument of a macro: nothing in it is a macro's name or a quote. */
static void argument(const char *s)
{
	putchar('"');
	for (const char *p = s; *p; p++) {
		if (*p == '"')
			printf("\\(dq");
		else if (*p == '\\')
			printf("\\e");
		else
			putchar(*p);
	}
	putchar('"');
}

/* Running text: lines of at most 76 bytes, a new one for each sentence, a paragraph where a line is blank. */
static void running(const char *s)
{
	size_t at = 0;

	while (*s) {
		size_t n = strcspn(s, " \n");
		_cleanup_free_ char *word = xstrndup(s, n);
		if (at && at + 1 + n > 76) {
			putchar('\n');
			at = 0;
		} else if (at) {
			putchar(' ');
		}
		text(word);
		at += n + 1;
		s += n;
		bool ends = n > 2 && strchr(".;:", word[n - 1]), paragraph = strncmp(s, "\n\n", 2) == 0;
		s += strspn(s, " \n");
		if (ends || paragraph || !*s) {
			printf(paragraph && *s ? "\n.Pp\n" : "\n");
			at = 0;
		}
	}
}

static void sentence(const char *s)
{
	_cleanup_free_ char *one = xasprintf("%c%s%s", s[0] >= 'a' && s[0] <= 'z' ? s[0] - 32 : s[0], s + 1,
	                                     s[strlen(s) - 1] == '.' ? "" : ".");
	running(one);
}

static void option(const struct arg_option *o)
{
	printf(".It ");
	if (o->letter)
		printf("Fl %c , ", o->letter);
	printf("Fl -%s", o->name);
	if (o->value) {
		printf(" Ar ");
		argument(o->value);
	}
	putchar('\n');
	sentence(o->about);
}

static void literal(const char *s)
{
	printf(".Bd -literal\n");
	text(s);
	printf(".Ed\n");
}

static void command(const struct command *c)
{
	_cleanup_free_ char *synopsis = xasprintf("iron %s%s%s%s\n", c->name, c->options->name ? " [OPTION…]" : "",
	                                          *c->words ? " " : "", c->words);
	printf(".Ss %s\n", c->name);
	sentence(c->about);
	literal(synopsis);
	if (c->options->name) {
		printf(".Bl -tag -width Ds\n");
		for (const struct arg_option *o = c->options; o->name; o++)
			option(o);
		printf(".El\n");
	}
	if (c->notes) {
		printf(".Pp\n");
		running(c->notes);
	}
	printf(".Pp\nExamples:\n");
	literal(c->examples);
}

static void man(void)
{
	printf(".Dd November 24, 2026\n.Dt IRON 1\n.Os\n.Sh NAME\n.Nm iron\n.Nd virtual machines for agents, with one "
	       "door\n"
	       ".Sh SYNOPSIS\n.Nm iron\n.Ar COMMAND\n.Op Ar OPTION ...\n.Op Ar WORD ...\n"
	       ".Sh DESCRIPTION\n");
	running("What takes an id of a VM, a rule, a key, an image or a command takes a name too. Text that came from "
	        "a VM or a server is "
	        "escaped before a terminal shows it. Where standard output is a terminal, tables fit its width and "
	        "states are coloured. "
	        "What lasts over a second says on standard error what it is at.\n\nEvery command takes these options.");
	printf(".Bl -tag -width Ds\n");
	for (const struct arg_option *o = common_options; o->name; o++)
		option(o);
	printf(".El\n.Sh COMMANDS\n");
	FOR_EACH_COMMAND(c)
	{
		command(c);
	}
	printf(".Sh ENVIRONMENT\n.Bl -tag -width Ds\n.It Ev IRON_API_URL , IRON_API_KEY\n"
	       "Where the API is, and the key; over the file, under\n.Fl -api-url\nand\n.Fl -api-key .\n"
	       ".It Ev IRON_API_TIMEOUT\nSeconds to wait for an answer, or for the next byte of a file (90).\n"
	       ".It Ev NO_COLOR\nNo colours.\n.El\n"
	       ".Sh FILES\n.Bl -tag -width Ds\n.It Pa ~/.config/iron/config.yaml\n.Cm api_url , api_key , tls_sha256\n"
	       "(the SHA-256 of the server's certificate, which is then trusted by it alone).\nOnly its owner may read "
	       "it.\n.El\n"
	       ".Sh EXIT STATUS\n.Bl -tag -width Ds\n.It 0\nIt was done.\n.It 1\nSomething failed; standard error says "
	       "what, and what to do next.\n"
	       ".It 2\nThe command line is wrong.\n.It 124\nWhat\n.Fl -timeout\nallows has passed.\n"
	       ".It 125\n.Cm exec , attach\nor\n.Cm run\ncould not run the command, or lost the connection to it.\n.It "
	       "130\nInterrupted.\n.El\n"
	       ".Pp\n.Cm exec , attach\nand\n.Cm run\nexit with the command's own code, 128 + N when signal N ended "
	       "it.\n"
	       ".Sh SEE ALSO\n.Xr iron-recipe 5 ,\n.Xr iron.yaml 5 ,\n.Xr irond 8\n");
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "man") == 0)
		man();
	else if (argc != 2 || !completion_print(stdout, argv[1]))
		return 2;
	return fflush(stdout) ? 1 : 0;
}
