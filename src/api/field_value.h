#pragma once
/* Texts into values, shared by bodies and queries; field.h's kinds. name: the full name for errors. */
#include "api/field.h"

#define MEMBER(record, offset, type) (*(type *)(void *)((char *)(record) + (offset)))

/* The value of a field that is written as a text: every kind that a JSON string or a query can give. */
int value_set_text(const struct field *f, const char *name, struct str s, struct arena *a, void *record,
		   struct error *reterr);
int value_set_number(const struct field *f, const char *name, int64_t n, void *record, struct error *reterr);
void value_set_flag(const struct field *f, bool on, void *record);
/* What an absent field holds; marks given. */
void value_set_absent(const struct field *f, void *record);
void value_mark_given(const struct field *f, void *record);
