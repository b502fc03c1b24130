#pragma once
/* A command's words, sorted out: options by a declared list, what is left, and what came after `--`. */
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct arg_option {
	const char *name; /* without dashes */
	char letter;      /* 0: none */
	bool takes_value;
};

#define ARGS_MAX 128

struct args {
	struct {
		const struct arg_option *option;
		const char *value; /* NULL where the option takes none */
	} given[ARGS_MAX];
	size_t n_given;
	const char *words[ARGS_MAX];
	size_t n_words;
	char *const *rest; /* after `--`, NULL-terminated; NULL when there was none */
};

/* options end with a NULL name. --name VALUE, --name=VALUE, -n VALUE, -nVALUE. -EINVAL with a sentence. */
int args_parse(const struct arg_option *options, int argc, char *const *argv, struct args *ret, struct error *reterr);

bool args_has(const struct args *a, const char *name);
/* The last value given, NULL when there is none. An empty value is a value. */
const char *args_value(const struct args *a, const char *name);
/* The i-th value of a repeated option, NULL past the last. */
const char *args_nth(const struct args *a, const char *name, size_t i);
/* A whole number from lo to hi; *ret is untouched when the option was not given. -EINVAL. */
int args_number(const struct args *a, const char *name, long lo, long hi, long *ret, struct error *reterr);
