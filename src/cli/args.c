#include "cli/args.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"

static const struct arg_option *find_long(const struct arg_option *options, struct str name)
{
	for (; options->name; options++)
		if (str_eq(name, str_of(options->name)))
			return options;
	return NULL;
}

static const struct arg_option *find_short(const struct arg_option *options, char letter)
{
	for (; options->name; options++)
		if (options->letter && options->letter == letter)
			return options;
	return NULL;
}

/* Whether value is one of those that "a|b|c" lists; every value is where nothing is listed. */
static bool is_choice(const char *choices, const char *value)
{
	struct str rest = str_of(choices), one;

	if (!strchr(choices, '|'))
		return true;
	while (str_split(&rest, '|', &one))
		if (str_eq(one, str_of(value)))
			return true;
	return false;
}

static int take(struct args *a, const struct arg_option *o, const char *value, struct error *reterr)
{
	if (a->n_given == ARGS_MAX)
		return error_set(reterr, -EINVAL, "more than %d options", ARGS_MAX);
	if (value && !is_choice(o->value, value))
		return error_set(reterr, -EINVAL, "--%s must be one of %s, not '%s'", o->name, o->value, value);
	a->given[a->n_given].option = o;
	a->given[a->n_given++].value = value;
	return 0;
}

/* -abc: letters that take no value, and a last one that may. *ret_last is that one, *ret_value what follows it. */
static int parse_letters(const struct arg_option *options, const char *word, struct args *a,
			 const struct arg_option **ret_last, const char **ret_value, struct error *reterr)
{
	for (const char *p = word + 1;; p++) {
		const struct arg_option *o = find_short(options, *p);
		if (!o)
			return error_set(reterr, -EINVAL, "unknown option -%c%s%s", *p,
			                 p == word + 1 && !p[1] ? "" : " in ", p == word + 1 && !p[1] ? "" : word);
		if (o->value || !p[1]) {
			*ret_last = o;
			*ret_value = p[1] ? p + 1 : NULL;
			return 0;
		}
		int r = take(a, o, NULL, reterr);
		if (r)
			return r;
	}
}

/* One word that begins with a dash; *i is moved when its value is the next word. */
static int parse_option(const struct arg_option *options, int argc, char *const *argv, int *i, struct args *a,
			struct error *reterr)
{
	const char *word = argv[*i], *value = NULL;
	const struct arg_option *o = NULL;

	if (word[1] == '-') {
		struct str name = str_of(word + 2), head;
		str_split(&name, '=', &head);
		o = find_long(options, head);
		value = name.p;
		if (!o)
			return error_set(reterr, -EINVAL, "unknown option %s", word);
	} else {
		int r = parse_letters(options, word, a, &o, &value, reterr);
		if (r)
			return r;
	}
	if (!o->value && value)
		return error_set(reterr, -EINVAL, "--%s takes no value", o->name);
	if (o->value && !value) {
		if (*i + 1 >= argc)
			return error_set(reterr, -EINVAL, "--%s needs a value: --%s %s", o->name, o->name, o->value);
		value = argv[++*i];
	}
	return take(a, o, value, reterr);
}

int args_parse(const struct arg_option *options, int argc, char *const *argv, struct args *ret, struct error *reterr)
{
	struct args a = {0};

	for (int i = 0; i < argc; i++) {
		const char *word = argv[i];
		if (strcmp(word, "--") == 0) {
			a.rest = argv + i + 1;
			break;
		}
		if (word[0] == '-' && word[1]) {
			int r = parse_option(options, argc, argv, &i, &a, reterr);
			if (r)
				return r;
			continue;
		}
		if (a.n_words == WORDS_MAX)
			return error_set(reterr, -EINVAL, "more than %d words", WORDS_MAX);
		a.words[a.n_words++] = word;
	}
	*ret = a;
	return 0;
}

const char *args_nth(const struct args *a, const char *name, size_t nth)
{
	for (size_t i = 0; i < a->n_given; i++)
		if (strcmp(a->given[i].option->name, name) == 0 && nth-- == 0)
			return a->given[i].value;
	return NULL;
}

bool args_has(const struct args *a, const char *name)
{
	for (size_t i = 0; i < a->n_given; i++)
		if (strcmp(a->given[i].option->name, name) == 0)
			return true;
	return false;
}

const char *args_value(const struct args *a, const char *name)
{
	const char *value = NULL;
	for (size_t i = 0; i < a->n_given; i++)
		if (strcmp(a->given[i].option->name, name) == 0)
			value = a->given[i].value;
	return value;
}

int args_number(const struct args *a, const char *name, long lo, long hi, long *ret, struct error *reterr)
{
	const char *text = args_value(a, name);
	uint64_t v;

	if (!text)
		return 0;
	if (str_parse_u64(str_of(text), (uint64_t)hi, &v) || (long)v < lo)
		return error_set(reterr, -EINVAL, "--%s must be a number from %ld to %ld, not '%s'", name, lo, hi,
		                 text);
	*ret = (long)v;
	return 0;
}
