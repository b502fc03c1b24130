#pragma once
/* Between out.c, table.c and progress.c: how they were asked to show things. */
#include <stdbool.h>

bool out_is_quiet(void);
bool out_is_wide(void);
