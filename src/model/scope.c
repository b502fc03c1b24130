#include "model/scope.h"

#define SCOPE_TEXT(id, text) text,
static const char *const texts[] = {SCOPE_TABLE(SCOPE_TEXT)};

uint32_t scope_parse(struct str text)
{
	for (unsigned i = 0; i < SCOPE_COUNT; i++)
		if (str_eq(text, str_of(texts[i])))
			return 1U << i;
	return SCOPE_NONE;
}

const char *scope_text(unsigned i)
{
	return texts[i];
}

int scope_covers(uint32_t held, uint32_t needed)
{
	return (held & SCOPE_ADMIN) || (held & needed) == needed;
}
