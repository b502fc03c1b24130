#pragma once
/* A command's words, sorted out: options by a declared list, what is left, and what came after `--`. */
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Help, the man page and completion are made of these. */
struct arg_option {
	const char *name;  /* without dashes */
	char letter;       /* 0: none */
	const char *value; /* what its value is called, NULL when it takes none. "a|b|c": one of these. VM, IMAGE, FILE, DIR … are
			    * completed (completion.c) */
	const char *about;
};

#define ARGS_MAX 128
#define WORDS_MAX 1024

struct args {
	struct {
		const struct arg_option *option;
		const char *value; /* NULL where the option takes none */
	} given[ARGS_MAX];
	size_t n_given;
	const char *words[WORDS_MAX];
	size_t n_words;
	char *const *rest; /* after `--`, NULL-terminated; NULL when there was none */
};

/* options end with a NULL name. --name VALUE, --name=VALUE, -n VALUE, -nVALUE, -abc for three that take none. -EINVAL with
 * a sentence. */
int args_parse(const struct arg_option *options, int argc, char *const *argv, struct args *ret, struct error *reterr);

bool args_has(const struct args *a, const char *name);
/* The last value given, NULL when there is none. An empty value is a value. */
const char *args_value(const struct args *a, const char *name);
/* The i-th value of a repeated option, NULL past the last. */
const char *args_nth(const struct args *a, const char *name, size_t i);
/* A whole number from lo to hi; *ret is untouched when the option was not given. -EINVAL. */
int args_number(const struct args *a, const char *name, long lo, long hi, long *ret, struct error *reterr);
