/* The scripts know every command, every option and how each value and word is completed: the latter by what the tables
 * call it. VM, IMAGE, KEY, RULE and EXEC are asked for with `iron … -q`, for at most two seconds; SRC, DST, FILE and
 * DIR are paths, and VM:PATH where a VM's name may begin; a|b|c is one of these; another value is not completed. */
#include "cli/completion.h"

#include <string.h>

#include "cli/command.h"
#include "cli/completion_scripts.h"

/* 'text' as one word of a POSIX shell. */
static void quote_sh(FILE *to, const char *text)
{
	fputc('\'', to);
	for (; *text; text++)
		if (*text == '\'')
			fputs("'\\''", to);
		else
			fputc(*text, to);
	fputc('\'', to);
}

static void quote_fish(FILE *to, const char *text)
{
	fputc('\'', to);
	for (; *text; text++) {
		if (*text == '\'' || *text == '\\')
			fputc('\\', to);
		fputc(*text, to);
	}
	fputc('\'', to);
}

/* The words of a synopsis, one after the other, as kinds: "VM EXEC", "VM…", "enforce|warn|inherit". What follows "--"
 * or an option is not the command's own. */
static char *kinds_of(const struct command *c)
{
	_cleanup_(buf_finish) struct buf b = {0};
	struct str rest = str_of(c->words), token;
	bool joins = false;

	while (str_split(&rest, ' ', &token)) {
		token = str_trim(token, "[]");
		if (str_has_prefix(token, STR("--")))
			break;
		if (str_eq(token, STR("|")) || token.len == 0) {
			joins = token.len > 0;
			continue;
		}
		if (b.len)
			buf_append_byte(&b, joins ? '|' : ' ');
		buf_append_str(&b, token);
		joins = false;
	}
	return buf_take_z(&b);
}

static bool takes(const struct command *c, const struct arg_option *common)
{
	return !(c->flags & BYTES) || strcmp(common->name, "json") != 0;
}

/* f for each option of a command and then each common one. */
static void each_option(FILE *to, const struct command *c,
			void (*f)(FILE *, const struct command *, const struct arg_option *))
{
	for (const struct arg_option *o = c->options; o->name; o++)
		f(to, c, o);
	for (const struct arg_option *o = common_options; o->name; o++)
		if (takes(c, o))
			f(to, c, o);
}

/* --- bash, zsh: a table of functions' own --- */

static void name_option(FILE *to, const struct command *c, const struct arg_option *o)
{
	fprintf(to, " --%s", o->name);
}

static void name_value(FILE *to, const struct command *c, const struct arg_option *o)
{
	if (!o->value)
		return;
	fprintf(to, " --%s=%s", o->name, o->value);
	if (o->letter)
		fprintf(to, " -%c=%s", o->letter, o->value);
}

static void describe_option(FILE *to, const struct command *c, const struct arg_option *o)
{
	_cleanup_free_ char *text = xasprintf("--%s:%s", o->name, o->about);
	fputc(' ', to);
	quote_sh(to, text);
}

static void print_specs(FILE *to, bool zsh)
{
	fprintf(to, "_iron_spec() {\n\tcase $1 in\n");
	FOR_EACH_COMMAND(c)
	{
		_cleanup_free_ char *kinds = kinds_of(c);
		fputc('\t', to);
		quote_sh(to, c->name);
		fprintf(to, zsh ? ")\n\t\toptions=(" : ")\n\t\toptions='");
		each_option(to, c, zsh ? describe_option : name_option);
		fprintf(to, zsh ? ")\n\t\tvalues='" : "'\n\t\tvalues='");
		each_option(to, c, name_value);
		fprintf(to, "'\n\t\tkinds=");
		quote_sh(to, kinds);
		fprintf(to, " ;;\n");
	}
	fprintf(to, "\t*) return 1 ;;\n\tesac\n}\n");
}

/* "create list … egress" once each, and for a group its second words. */
static bool is_first_of_group(const struct command *c)
{
	size_t n = strcspn(c->name, " ");

	FOR_EACH_COMMAND(other)
	{
		if (strncmp(other->name, c->name, n) == 0 && other->name[n] == ' ')
			return other == c;
	}
	return true;
}

static void first_words(FILE *to)
{
	FOR_EACH_COMMAND(c)
	{
		if (!strchr(c->name, ' ') || is_first_of_group(c))
			fprintf(to, "%.*s ", (int)strcspn(c->name, " "), c->name);
	}
}

static void print_bash_words(FILE *to)
{
	fprintf(to, "_iron_words='");
	first_words(to);
	fprintf(to, "'\n_iron_second() {\n\tcase $1 in\n");
	FOR_EACH_COMMAND(c)
	{
		if (strchr(c->name, ' ') && is_first_of_group(c)) {
			size_t n = strcspn(c->name, " ");
			fprintf(to, "\t%.*s) echo '", (int)n, c->name);
			for (const struct command_group *g = command_groups; g->title; g++)
				for (const struct command *o = g->commands; o->name; o++)
					if (strncmp(o->name, c->name, n + 1) == 0)
						fprintf(to, "%s ", o->name + n + 1);
			fprintf(to, "' ;;\n");
		}
	}
	fprintf(to, "\tesac\n}\n");
}

static void print_zsh_words(FILE *to)
{
	fprintf(to, "_iron_words=(\n");
	FOR_EACH_COMMAND(c)
	{
		if (strchr(c->name, ' ') && !is_first_of_group(c))
			continue;
		int n = (int)strcspn(c->name, " ");
		_cleanup_free_ char *text = c->name[n] ? xasprintf("%.*s:more: iron help %.*s", n, c->name, n, c->name)
		                                       : xasprintf("%s:%s", c->name, c->about);
		fputc('\t', to);
		quote_sh(to, text);
		fputc('\n', to);
	}
	fprintf(to, ")\n_iron_second() {\n\tcase $1 in\n");
	FOR_EACH_COMMAND(c)
	{
		if (!strchr(c->name, ' ') || !is_first_of_group(c))
			continue;
		size_t n = strcspn(c->name, " ");
		fprintf(to, "\t%.*s) seconds=(", (int)n, c->name);
		for (const struct command_group *g = command_groups; g->title; g++)
			for (const struct command *o = g->commands; o->name; o++)
				if (strncmp(o->name, c->name, n + 1) == 0) {
					_cleanup_free_ char *text = xasprintf("%s:%s", o->name + n + 1, o->about);
					fputc(' ', to);
					quote_sh(to, text);
				}
		fprintf(to, ") ;;\n");
	}
	fprintf(to, "\t*) return 1 ;;\n\tesac\n}\n");
}

/* --- fish: a line an option --- */

static void fish_values(FILE *to, const char *kind)
{
	static const struct {
		const char *kind, *values;
	} known[] = {{"VM", "(__iron_ask list)"},       {"IMAGE", "(__iron_ask image list)"},
	             {"KEY", "(__iron_ask keys list)"}, {"RULE", "(__iron_ask egress list)"},
	             {"PRESET", "(__iron_ask egress preset list)"},
	             {"EXEC", "(__iron_execs)"},        {"PATH", "(__iron_paths)"},
	             {"SRC", "(__iron_paths)"},         {"DST", "(__iron_paths)"}};
	_cleanup_free_ char *one = xstrndup(kind, strcspn(kind, "\xe2")); /* without its "…" */

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(known[i].kind, one) == 0)
			fprintf(to, " -a '%s'", known[i].values);
	if (strcmp(one, "COMMAND") == 0) {
		fprintf(to, " -a '");
		first_words(to);
		fprintf(to, "'");
	} else if (strchr(kind, '|')) {
		fprintf(to, " -a '");
		for (const char *p = kind; *p; p++)
			fputc(*p == '|' ? ' ' : *p, to);
		fprintf(to, "'");
	}
}

static void fish_option(FILE *to, const struct command *c, const struct arg_option *o)
{
	bool file = o->value &&
	            (strcmp(o->value, "FILE") == 0 || strcmp(o->value, "DIR") == 0 || strcmp(o->value, "PATH") == 0);

	fprintf(to, "complete -c iron -n '__iron_is %s' -l %s", c->name, o->name);
	if (o->letter)
		fprintf(to, " -s %c", o->letter);
	if (o->value && file)
		fprintf(to, " -r -F");
	else if (o->value) {
		fprintf(to, " -x");
		fish_values(to, o->value);
	}
	fprintf(to, " -d ");
	quote_fish(to, o->about);
	fputc('\n', to);
}

/* The options that take a value, once each. */
static void fish_valued(FILE *to)
{
	_cleanup_(buf_finish) struct buf all = {0};

	buf_append_byte(&all, ' ');
	FOR_EACH_COMMAND(c)
	{
		for (const struct arg_option *list = c->options; list;
		     list = list == c->options ? common_options : NULL)
			for (const struct arg_option *o = list; o->name; o++) {
				_cleanup_free_ char *name = xasprintf(" --%s ", o->name),
				                    *letter = xasprintf(" -%c ", o->letter);
				if (o->value && !memmem(all.data, all.len, name, strlen(name)))
					buf_printf(&all, "%s", name + 1);
				if (o->value && o->letter && !memmem(all.data, all.len, letter, strlen(letter)))
					buf_printf(&all, "%s", letter + 1);
			}
	}
	fprintf(to, "set -g __iron_valued%.*s\n", STR_ARG(buf_str(&all)));
}

static void print_fish(FILE *to)
{
	fputs(fish_head, to);
	fish_valued(to);
	FOR_EACH_COMMAND(c)
	{
		_cleanup_free_ char *kinds = kinds_of(c);
		int n = (int)strcspn(c->name, " ");
		const char *second = c->name[n] ? c->name + n + 1 : NULL;
		if (!second || is_first_of_group(c)) {
			fprintf(to, "complete -c iron -n '__iron_words 0' -a %.*s -d ", n, c->name);
			quote_fish(to, second ? "more: iron help" : c->about);
			fputc('\n', to);
		}
		if (second) {
			fprintf(to, "complete -c iron -n '__iron_group %.*s' -a %s -d ", n, c->name, second);
			quote_fish(to, c->about);
			fputc('\n', to);
		}
		struct str rest = str_of(kinds), kind;
		for (unsigned i = 0; str_split(&rest, ' ', &kind); i++) {
			_cleanup_free_ char *one = str_dup(kind);
			bool many = str_has_suffix(kind, STR("…"));
			fprintf(to, "complete -c iron -n '__iron_word %u%s %s'", i, many ? "+" : "", c->name);
			fish_values(to, one);
			fputc('\n', to);
		}
		each_option(to, c, fish_option);
	}
}

bool completion_print(FILE *to, const char *shell)
{
	if (strcmp(shell, "bash") == 0) {
		fprintf(to, "# bash completion for iron, made from its own tables\n");
		print_bash_words(to);
		print_specs(to, false);
		fputs(bash_tail, to);
	} else if (strcmp(shell, "zsh") == 0) {
		fprintf(to, "#compdef iron\n# zsh completion for iron, made from its own tables\ntypeset -ga "
		            "_iron_words\n");
		print_zsh_words(to);
		print_specs(to, true);
		fputs(zsh_tail, to);
	} else if (strcmp(shell, "fish") == 0) {
		print_fish(to);
	} else {
		return false;
	}
	return true;
}
