#pragma once
/* One option of iron.yaml as data, and the check of its value. */
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

enum conf_kind { CONF_str, CONF_u32, CONF_flag, CONF_strs, CONF_shapes, CONF_privates };

struct conf_option {
	const char *section, *name;
	enum conf_kind kind;
	size_t offset, count_offset; /* in struct conf */
	uint64_t low, high;
	const char *fallback, *expected, *doc;
};

/* 0, or -EINVAL with what was found instead (printable). Fills derived fields (synthetic_base, _prefix). */
int conf_check(const struct conf_option *o, struct conf *c, char ret_bad[128]);
