#pragma once
/* A reason for a person to read, beside the negative errno-style code that functions return. */
#include <stdarg.h>

struct error {
	int code;       /* negative errno, 0: none set */
	char text[512]; /* one sentence, says what to do next where that is known */
};

/* Sets and returns `code`. NULL `e` is allowed. The first reason stays: a later call on a set error changes nothing. */
int error_set(struct error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "context: " before a reason that is already set. */
void error_prefix(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
